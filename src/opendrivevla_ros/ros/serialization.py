"""The bytes of ROS messages."""

from typing import Any

from rclpy.serialization import serialize_message


def message_cdr(message: Any) -> bytes:
    """A ROS message as CDR; the bytes between aligned fields are as they come."""
    return serialize_message(message)
