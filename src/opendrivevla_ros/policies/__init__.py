"""Driving policies: from an Observation to a Plan, one file or folder a policy."""
