"""Driving data: bags, nuScenes-format scenes from nuScenes and from the world, instruction data."""
