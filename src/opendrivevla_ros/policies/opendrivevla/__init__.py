"""OpenDriveVLA (arXiv 2503.23463): perception tokens into a Qwen2.5 that writes six waypoints."""
