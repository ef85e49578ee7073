"""A seeded driving world: streets, traffic, an expert driver, rendered cameras and narration. No torch, no rclpy."""
