"""The ROS 2 nodes, and what lies between core's words and messages. The only room that imports rclpy."""
