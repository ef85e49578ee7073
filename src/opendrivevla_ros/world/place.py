"""Where the ego vehicle is on the road map, in the terms that a passenger would use."""

from dataclasses import dataclass

import cv2
import numpy as np

from opendrivevla_ros.core.geometry import Array, apply, distances_along, invert, wrap_angle
from opendrivevla_ros.world.state import Ego, Lane, RoadMap

JUNCTION_METRES, CROSSWALK_METRES = 40.0, 30.0
AHEAD_HALF_WIDTH = 8.0  # metres to each side of straight ahead
BEND_METRES, BEND_RADIANS = 25.0, 0.35


@dataclass(frozen=True)
class Place:
    """lanes: of the ego's direction. in_junction: the ego is inside one. bend: +1 the lane bends left within 25 m,
    -1 right, 0 straight. to_junction, to_crosswalk: metres ahead; None where there is none near.
    """

    lanes: int
    in_junction: bool
    bend: int
    to_junction: float | None
    to_crosswalk: float | None


def place_of(road: RoadMap, ego: Ego) -> Place:
    """The surroundings of the ego on its road."""
    x, y = (float(value) for value in ego.centre)
    in_junction = any(_inside(polygon, x, y) for polygon in road.junctions)
    lane = nearest_lane(road, x, y, ego.yaw)
    return Place(
        lanes=_lanes_one_way(road, lane),
        in_junction=in_junction,
        bend=0 if in_junction else _bend(lane, x, y),
        to_junction=None if in_junction else _nearest_ahead(road.junctions, ego, JUNCTION_METRES),
        to_crosswalk=_nearest_ahead(road.crosswalks, ego, CROSSWALK_METRES),
    )


def nearest_lane(road: RoadMap, x: float, y: float, yaw: float) -> Lane:
    """The lane closest to a pose among those that lead its way (within 60 degrees), or else of all."""
    best: tuple[float, int] = (np.inf, 0)
    for lane in road.lanes:
        offsets = np.hypot(lane.centreline[:, 0] - x, lane.centreline[:, 1] - y)
        index = min(int(offsets.argmin()), len(lane.centreline) - 2)
        step = lane.centreline[index + 1] - lane.centreline[index]
        against = abs(float(wrap_angle(np.arctan2(step[1], step[0]) - yaw))) > np.pi / 3
        best = min(best, (float(offsets.min()) + 1000.0 * against, lane.id))
    return road.lanes[best[1]]


def _lanes_one_way(road: RoadMap, lane: Lane) -> int:
    count, number = 1, lane.left
    while number is not None:
        count, number = count + 1, road.lanes[number].left
    number = lane.right
    while number is not None:
        count, number = count + 1, road.lanes[number].right
    return count


def _bend(lane: Lane, x: float, y: float) -> int:
    line = lane.centreline
    start = int(np.hypot(line[:, 0] - x, line[:, 1] - y).argmin())
    travelled = distances_along(line[start:])
    ahead = line[start:][travelled <= BEND_METRES]
    if len(ahead) < 3:
        return 0
    steps = np.diff(ahead, axis=0)
    headings = np.unwrap(np.arctan2(steps[:, 1], steps[:, 0]))
    turned = float(headings[-1] - headings[0])
    return 0 if abs(turned) < BEND_RADIANS else int(np.sign(turned))


def _nearest_ahead(polygons: tuple[Array, ...], ego: Ego, within: float) -> float | None:
    """Metres from base_link to the nearest corner of a polygon straight ahead."""
    world_to_base = invert(ego.base_to_world)
    found = []
    for polygon in polygons:
        points = apply(world_to_base, np.column_stack([polygon, np.zeros(len(polygon))]))
        if points[:, 1].min() < 0 < points[:, 1].max() and points[:, 0].min() > 0:
            near = points[np.abs(points[:, 1]) < AHEAD_HALF_WIDTH]
            found += near[:, 0].tolist()
    nearest = min(found, default=np.inf)
    return nearest if nearest <= within else None


def _inside(polygon: Array, x: float, y: float) -> bool:
    return cv2.pointPolygonTest(polygon.astype(np.float32), (x, y), False) >= 0
