"""Driving data from files: bags, and a synthetic bag for the demo."""
