"""Lets a node work until ROS shuts down."""

import traceback

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node


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
