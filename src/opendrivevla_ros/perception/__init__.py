"""Six pictures to scene, agent and map queries, boxes and masks: OpenDriveVLA's perception (arXiv 2503.23463, 3.1)."""
