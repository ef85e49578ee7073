"""From bytes to an Observation: image codec, synchroniser, odometry buffer, calibration. Neither torch nor rclpy."""
