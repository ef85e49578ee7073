"""The life of a process that is one node: until Ctrl-C, or until ROS shuts down."""

import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node


@contextmanager
def running() -> Iterator[None]:
    """ROS for the block, which Ctrl-C ends without an error, also where it comes while the node is made."""
    rclpy.init()
    try:
        yield
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception:
        if rclpy.ok():
            raise
        # Interrupted while the node was made: its parts then fail one way or another.
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if rclpy.ok():
            rclpy.shutdown()


def spin(node: Node) -> None:
    """Until ROS shuts down. An error of one callback is logged: it must not end the others."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while rclpy.ok():
        try:
            executor.spin()
        except ExternalShutdownException:
            return
        except Exception:  # rclpy raises, for one, for a lifecycle transition that is not possible now
            if rclpy.ok():
                node.get_logger().error(f"a callback failed:\n{traceback.format_exc()}")
