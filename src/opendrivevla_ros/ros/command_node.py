"""A ROS node for the time of one command, and whether there is ROS at all."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class RosNotFound(Exception):
    """There is no ROS 2 here; one sentence with the remedy."""


def require_ros() -> None:
    """Raises ImportError where rclpy does not load."""
    importlib.import_module("rclpy")


def require_messages() -> None:
    """Raises ImportError where this package's messages do not load."""
    importlib.import_module("opendrivevla_ros.msg")


@contextmanager
def ros_node(name: str) -> Iterator[Any]:
    """A node of a process that handles its own signals. Raises RosNotFound."""
    try:
        import rclpy
        from rclpy.signals import SignalHandlerOptions
    except ImportError as error:
        remedy = "source ROS 2, or run `make setup` and `source scripts/env.sh` in the source tree"
        raise RosNotFound(f"this needs ROS 2, which is not here ({error}); {remedy}") from None
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node(name)
    try:
        yield node
    finally:
        node.destroy_node()
        rclpy.shutdown()
