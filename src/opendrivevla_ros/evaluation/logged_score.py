"""The driver score of plans at moments of recorded drives, from what the labels tell of the next three seconds.

The reference is who drove. Road users are where they were labelled, straight on between two labels.
"""

import math

import numpy as np
import shapely
from numpy.typing import NDArray

from opendrivevla_ros.core.geometry import Array, distances_along
from opendrivevla_ros.core.plan import MapElement
from opendrivevla_ros.core.trajectory import FUTURE_TIMES_S, Trajectory
from opendrivevla_ros.datasets.drive_store import StoredSample
from opendrivevla_ros.datasets.driving_samples import AgentLabel, DrivingSample
from opendrivevla_ros.evaluation.driver_score import Scene, driver_score
from opendrivevla_ros.evaluation.plan_tracker import STEP_S

LOGGED_S = float(FUTURE_TIMES_S[-1])
OBJECTS = ("barrier", "traffic_cone")
ROUTE_BEHIND, ROUTE_AHEAD = 10.0, 60.0  # metres straight on before and behind what was driven
MOVES_METRES = 0.25  # in half a second, from which on a road user's course is its heading
EDGE_METRES = 0.5  # so near to where the labels of the map end, it is not known what is road


def driver_reward(stored: StoredSample, plan: Trajectory) -> float:
    """The driver score of a plan at a recorded moment, 0 to 1, over the next 3 s.

    0 for a plan that cannot be scored; NaN for a moment at which nothing can, since its future or its road users are
    not known.
    """
    sample = stored.sample
    if sample.agents is None or not sample.future_mask.all() or not np.isfinite(sample.future).all():
        return math.nan
    if not all(map(_is_finite, sample.agents)):
        return math.nan
    try:
        return driver_score(plan, logged_scene(sample), horizon_s=LOGGED_S).score
    except ValueError:
        return 0.0


def _is_finite(agent: AgentLabel) -> bool:
    numbers = np.concatenate([agent.position, agent.size, [agent.yaw], agent.future[agent.future_mask].ravel()])
    return bool(np.isfinite(numbers).all())


def logged_scene(sample: DrivingSample) -> Scene:
    """What plans at a recorded moment are scored in; of a road that is not labelled nothing is off.

    Raises ValueError for a sample whose future or road users are not known.
    """
    if sample.agents is None or not sample.future_mask.all():
        known = int(sample.future_mask.sum())
        raise ValueError(
            f"sample {sample.token} has {known} of {len(sample.future)} points of its future"
            f" and {'no' if sample.agents is None else 'its'} road users: no plan can be scored there"
        )
    times = STEP_S * np.arange(round(LOGGED_S / STEP_S) + 1)
    agents, ego = sample.agents, sample.observation.ego
    boxes = [_boxes(agent, times) for agent in agents]
    following = np.minimum(np.searchsorted(FUTURE_TIMES_S, times), len(FUTURE_TIMES_S) - 1)
    driven = np.concatenate([np.zeros((1, 2)), sample.future[:, :2]])
    return Scene(
        others=np.array(boxes).reshape(-1, len(times), 5),
        present=np.array([agent.future_mask[following] for agent in agents], dtype=bool).reshape(-1, len(times)),
        is_object=np.array([agent.label in OBJECTS for agent in agents], dtype=bool),
        on_road=_Road(sample.map_elements or ()).has,
        route=_route(driven, float(sample.future[-1, 2])),
        reference_progress=float(distances_along(driven)[-1]),
        speed=ego.speed,
        acceleration=float(ego.acceleration[0]),
        steering=ego.steering,
    )


def _boxes(agent: AgentLabel, times: Array) -> Array:
    """[T, 5] a road user's boxes. Where its place is not known, it counts as not there."""
    known = np.concatenate([[0.0], FUTURE_TIMES_S[agent.future_mask]])
    places = np.concatenate([agent.position[None, :2], agent.future[agent.future_mask]])
    steps = np.diff(places, axis=0)
    yaw = [agent.yaw]
    for step in steps:
        yaw.append(float(np.arctan2(step[1], step[0])) if np.hypot(*step) >= MOVES_METRES else yaw[-1])
    if len(yaw) > 1 and np.cos(yaw[1] - agent.yaw) < 0:  # it goes backwards
        yaw[1:] = [agent.yaw] * len(steps)
    middles = np.concatenate([[0.0], (known[1:] + known[:-1]) / 2])  # a course is that of the middle of its step
    x, y = (np.interp(times, known, column) for column in places.T)
    heading = np.interp(times, middles, np.unwrap(yaw))
    size = np.broadcast_to(agent.size[:2], (len(times), 2))
    return np.column_stack([x, y, heading, size])


def _route(driven: Array, yaw: float) -> Array:
    """[M, 2] along what was driven, straight on at both ends."""
    ahead = driven[-1] + ROUTE_AHEAD * np.array([np.cos(yaw), np.sin(yaw)])
    apart = np.concatenate([[True], np.hypot(*np.diff(driven, axis=0).T) > 1e-3])
    return np.concatenate([[[-ROUTE_BEHIND, 0.0]], driven[apart], ahead[None]])


class _Road:
    """Where the road is, as far as the labels reach."""

    def __init__(self, elements: tuple[MapElement, ...]) -> None:
        rings = [element.points[:, :2] for element in elements if element.label == "drivable_area"]
        outlines = [ring for ring in rings if shapely.LinearRing(ring).is_ccw]
        holes = [ring for ring in rings if not shapely.LinearRing(ring).is_ccw]
        self._area = _union(outlines).difference(_union(holes))
        # labels are cut off at a square around the ego, which some road or line reaches
        self._reach = max((float(np.abs(ring).max()) for ring in rings), default=0.0) - EDGE_METRES

    def has(self, places: Array) -> NDArray[np.bool_]:
        """[N] whether places [N, 2] are on the road; beyond the labels they are."""
        beyond = (np.abs(places) > self._reach).any(axis=1)
        inside: NDArray[np.bool_] = shapely.contains_xy(self._area, places[:, 0], places[:, 1])
        return inside | beyond


def _union(rings: list[Array]) -> shapely.Geometry:
    return shapely.union_all([shapely.Polygon(ring) for ring in rings])
