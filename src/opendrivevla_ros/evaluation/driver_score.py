"""The driver score of a plan: PDMS = NC * DAC * (5 EP + 5 TTC + 2 C) / 12 (NAVSIM, arXiv 2406.15349, section 3).

The plan is driven by `plan_tracker`; what is scored is the motion that comes of it. Where the plan ends before the
published 4 s, it is scored for as long as it lasts, and the score says for how long.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from opendrivevla_ros.core.boxes import corners, overlaps
from opendrivevla_ros.core.geometry import Array, distances_along
from opendrivevla_ros.core.trajectory import Trajectory
from opendrivevla_ros.evaluation.comfort import Comfort, comfort
from opendrivevla_ros.evaluation.plan_tracker import STEP_S, Motion, track
from opendrivevla_ros.safety.road_users import Body

HORIZON_S = 4.0
BODY = Body(front=3.414, rear=0.67, half_width=0.925)  # of the nuScenes cars, as the published evaluation has them
PROJECTED_S = (0.0, 0.3, 0.6, 0.9)  # ahead of every instant, for the time to collision
STANDS = 0.05  # m/s
LEAST_PROGRESS = 5.0  # metres: where the reference drives less, progress is not judged
STATIC_FACTOR = 0.5  # of a collision with what is no road user


@dataclass(frozen=True)
class Scene:
    """What a plan is scored in, in base_link at t0, every STEP_S from t0 on for at least the horizon.

    others: [A, T, 5] boxes (x, y, yaw, length, width). present: bool [A, T]. is_object: bool [A], what is no road
    user. on_road: places [N, 2] to bool [N]. route: [M, 2] along which progress is measured. reference_progress: of
    whom the plan is compared with (a planner with knowledge, or the human), metres along it. speed, acceleration,
    steering: of the vehicle at t0.
    """

    others: Array
    present: NDArray[np.bool_]
    is_object: NDArray[np.bool_]
    on_road: Callable[[Array], NDArray[np.bool_]]
    route: Array
    reference_progress: float
    speed: float
    acceleration: float = 0.0
    steering: float = 0.0


@dataclass(frozen=True)
class DriverScore:
    """no_collision: 0, 0.5 or 1. progress: 0 to 1. drivable, time_to_collision, comfort: 0 or 1. seconds: scored."""

    no_collision: float
    drivable: float
    progress: float
    time_to_collision: float
    comfort: float
    seconds: float
    details: Comfort

    @property
    def score(self) -> float:
        """PDMS, 0 to 1."""
        mean = (5 * self.progress + 5 * self.time_to_collision + 2 * self.comfort) / 12
        return self.no_collision * self.drivable * mean


def driver_score(plan: Trajectory, scene: Scene, body: Body = BODY, horizon_s: float = HORIZON_S) -> DriverScore:
    """Raises ValueError for a plan that is not finite, and for a scene that is shorter than what is scored."""
    if not np.isfinite(plan.xy).all():
        raise ValueError("a plan that is not finite has no driver score; count it as one that failed")
    seconds = min(horizon_s, float(plan.times[-1]))
    motion = track(plan, scene.speed, steering=scene.steering, acceleration=scene.acceleration, horizon_s=seconds)
    instants = len(motion.times)
    if scene.others.shape[1] < instants:
        known = scene.others.shape[1] * STEP_S
        raise ValueError(f"the scene is known for {known:.1f} s, but {seconds:.1f} s are scored; shorten the horizon")
    boxes = body.boxes(np.column_stack([motion.xy, motion.yaw]))
    found = comfort(motion)
    no_collision = _no_collision(motion, boxes, scene)
    return DriverScore(
        no_collision=no_collision,
        drivable=float(scene.on_road(corners(boxes).reshape(-1, 2)).all()),
        progress=_progress(motion, scene) if no_collision > 0 else 0.0,
        time_to_collision=float(not _hits_ahead(motion, boxes, scene)),
        comfort=float(found.comfortable),
        seconds=seconds,
        details=found,
    )


def _no_collision(motion: Motion, boxes: Array, scene: Scene) -> float:
    """1 without a collision by the vehicle's own doing; of those that it does not cause see `_own_doing`."""
    touching = _touching(boxes, scene, len(boxes))
    factor = 1.0
    for other in np.flatnonzero(touching.any(axis=1)):
        instant = int(touching[other].argmax())
        if instant == 0 or not _own_doing(motion, boxes, scene, other, instant):
            continue
        factor = min(factor, STATIC_FACTOR if scene.is_object[other] else 0.0)
    return factor


def _own_doing(motion: Motion, boxes: Array, scene: Scene, other: int, instant: int) -> bool:
    """Not where the vehicle stands, nor where it is struck from behind by somebody who moves."""
    if motion.speed[instant] < STANDS:
        return False
    before, now = scene.others[other, instant - 1, :2], scene.others[other, instant, :2]
    if np.hypot(*(now - before)) / STEP_S < STANDS:
        return True
    away, yaw = now - boxes[instant, :2], boxes[instant, 2]
    ahead = float(away[0] * np.cos(yaw) + away[1] * np.sin(yaw))
    return ahead > -boxes[instant, 3] / 2


def _hits_ahead(motion: Motion, boxes: Array, scene: Scene) -> bool:
    """Whether, from any instant on, all going on as they go, the vehicle soon hits somebody before it."""
    instants = len(boxes)
    velocity = np.column_stack([np.cos(motion.yaw), np.sin(motion.yaw)]) * motion.speed[:, None]
    others = scene.others[:, :instants]
    steps = np.diff(others[..., :2], axis=1) / STEP_S
    moving = np.concatenate([steps, steps[:, -1:]], axis=1) if instants > 1 else np.zeros_like(others[..., :2])
    away = others[..., :2] - boxes[None, :, :2]
    ahead = (away * np.column_stack([np.cos(motion.yaw), np.sin(motion.yaw)])[None]).sum(axis=-1) > 0
    relevant = scene.present[:, :instants] & ahead & (motion.speed >= STANDS)[None]
    for seconds in PROJECTED_S:
        own, their = boxes.copy(), others.copy()
        own[:, :2] += velocity * seconds
        their[..., :2] += moving * seconds
        if (overlaps(own[None], their) & relevant).any():
            return True
    return False


def _touching(boxes: Array, scene: Scene, instants: int) -> NDArray[np.bool_]:
    """[A, T]."""
    return overlaps(boxes[None], scene.others[:, :instants]) & scene.present[:, :instants]


def _progress(motion: Motion, scene: Scene) -> float:
    """The way along the route as a share of the reference's, at most 1."""
    if scene.reference_progress < LEAST_PROGRESS:
        return 1.0
    made = _along(scene.route, motion.xy[-1]) - _along(scene.route, motion.xy[0])
    return float(np.clip(made / scene.reference_progress, 0.0, 1.0))


def _along(route: Array, place: Array) -> float:
    """Metres along a polyline [M, 2] to the point of it that is nearest to a place."""
    starts, steps = route[:-1], np.diff(route, axis=0)
    lengths = np.maximum((steps**2).sum(axis=1), 1e-12)
    share = np.clip(((place - starts) * steps).sum(axis=1) / lengths, 0.0, 1.0)
    nearest = int(np.hypot(*(starts + share[:, None] * steps - place).T).argmin())
    return float(distances_along(route)[nearest] + share[nearest] * np.sqrt(lengths[nearest]))
