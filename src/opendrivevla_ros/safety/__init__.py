"""What stands between a plan and the vehicle."""
