"""The named scenario families, and the one way to make a scenario."""

import zlib
from collections.abc import Callable

import numpy as np

from opendrivevla_ros.world import junction_families, road_families
from opendrivevla_ros.world.draft import Draft
from opendrivevla_ros.world.scenario import Scenario

_FAMILIES: dict[str, Callable[[np.random.Generator], Draft]] = {
    family.__name__: family
    for family in (
        road_families.free_road,
        road_families.bend,
        junction_families.junction_left,
        junction_families.junction_right,
        junction_families.junction_straight,
        road_families.braking_lead,
        road_families.stopped_lead,
        road_families.stopped_queue,
        road_families.cut_in,
        road_families.crossing_pedestrian,
        road_families.occluded_pedestrian,
        road_families.parked_cars,
        road_families.cyclist,
        road_families.oncoming,
    )
}
FAMILIES: tuple[str, ...] = tuple(_FAMILIES)


def make_scenario(family: str, seed: int) -> Scenario:
    """The scenario of a family with a seed; the same every time and everywhere.

    Raises ValueError for a family that does not exist or a negative seed.
    """
    if family not in _FAMILIES:
        raise ValueError(f"no scenario family {family!r}; choose one of {', '.join(FAMILIES)}")
    if seed < 0:
        raise ValueError(f"seed {seed} is negative; give 0 or more")
    random = np.random.default_rng([zlib.crc32(family.encode()), seed])
    return _FAMILIES[family](random).finish(family, seed, random)
