"""The parameters of world_node: all are read once, at the start."""

from typing import Any

from rclpy.node import Node

from opendrivevla_ros.ros.parameters import START, ConfigurationError, Entry, declare, unknown_parameters
from opendrivevla_ros.world.families import FAMILIES

WORLD_TABLE: tuple[Entry, ...] = (
    Entry("family", "junction_left", "scenario family", choices=FAMILIES, when=START),
    Entry("seed", 49, "of the scenario", minimum=0, maximum=2**31 - 1, when=START),
    Entry("duration", 0.0, "the drive ends after so long; 0: after the scenario's own time", "s", 0, 3600, when=START),
    Entry("real_time_factor", 1.0, "world time per wall time", "s/s", 0.01, 10, when=START),
    Entry("readers", 1, "time begins when every picture has so many readers; 0: at once", "", 0, 100, when=START),
    Entry("lead_in", 2.0, "the world's expert drives for so long before plans are followed", "s", 0, 3600, when=START),
    Entry(
        "plan_timeout", 2.0, "a plan this long after its stamp is stale: the vehicle brakes", "s", 0.1, 600, when=START
    ),
    Entry("image_width", 448, "of the pictures, which are 16:9", "px", 64, 1600, when=START),
    Entry(
        "camera_rate",
        2.0,
        "pictures of each camera per second; vla_node plans from every set",
        "Hz",
        0.5,
        10,
        when=START,
    ),
)


def read_world_parameters(node: Node) -> dict[str, Any]:
    """Declares the parameters and gives their values; raises ConfigurationError with everything that is wrong."""
    values, refused = declare(node, WORLD_TABLE)
    problems = list(refused.values())
    for name in unknown_parameters(node, values):
        problems.append(f"parameter {name} is unknown; the parameters are {', '.join(values)}")
    if values["image_width"] % 16:
        width = values["image_width"]
        problems.append(f"parameter image_width is {width}, which has no height at 16:9; give a multiple of 16")
    if problems:
        raise ConfigurationError("; ".join(problems))
    return values
