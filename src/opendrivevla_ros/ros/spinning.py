"""The life of a process that is one node: until Ctrl-C, or until ROS shuts down."""

import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node


@contextmanager
def running() -> Iterator[None]:
    """ROS for the block, which Ctrl-C ends without an error, wherever it comes.

    Ctrl-C shuts ROS down in a thread of its own. Until that is done, what it interrupts fails one way or another.
    """
    interrupted = threading.Event()

    def interrupt(*_: object) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    rclpy.init()  # its handler comes before this one, and calls it
    try:
        yield
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception:
        if rclpy.ok() and not interrupted.is_set():
            raise
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            if rclpy.ok():
                rclpy.shutdown()
        except RuntimeError:  # the other thread may come in between
            if rclpy.ok():
                raise


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
