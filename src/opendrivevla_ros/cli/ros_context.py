"""A ROS node for the time of one command."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opendrivevla_ros.cli.console import CommandError


@contextmanager
def ros_node(name: str) -> Iterator[Any]:
    """A node of a process that handles its own signals. Raises CommandError where there is no ROS."""
    try:
        import rclpy
        from rclpy.signals import SignalHandlerOptions
    except ImportError as error:
        remedy = "source ROS 2, or run `make setup` and `source scripts/env.sh` in the source tree"
        raise CommandError(f"this needs ROS 2, which is not here ({error}); {remedy}") from None
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node(name)
    try:
        yield node
    finally:
        node.destroy_node()
        rclpy.shutdown()
