"""What may be wrong with a plan: one function a check, each a measured value against its limit.

A plan is checked as a `Course`, in the vehicle's base_link now. Nothing is repaired here, and nothing decided: what
follows from a check that fails is the supervisor's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from opendrivevla_ros.core.boxes import overlaps
from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.safety.course import Course
from opendrivevla_ros.safety.road_users import Body, Movers, free_way, own_stops

WARNING_SHARE = 0.5  # of a limit, from which on a value is worth a warning
STEP_S = 0.1  # between the instants at which boxes are compared
LEAST_BEND = 1.0  # metres, below which a turn says how exact the points are, and nothing about the wheels


@dataclass(frozen=True)
class Limits:
    """How far a plan may go; metres, seconds, radians and their quotients.

    points, horizon: fewer points, or an end sooner than this from now, are no plan. speed: of any step. start: of the
    vehicle from where the plan has it now; behind: of any coming point behind the vehicle. curvature: 1/m; 0.2 is a
    turning circle of 10 m, kerb to kerb less than most cars have. lateral_acceleration, acceleration, braking, jerk:
    of a driver who is in a hurry, not of an emergency. heading_step: between two points. speed_jump: from the
    vehicle's speed to that of the plan now. plan_jump: from the plan before, at the same instants; sideways_jump: from
    its line: a plan may brake at once, and does not change its lane so; both within `horizon` from now, for by then
    other plans have come, and further on every new look changes what is foreseen. age: of the plan. hard_braking,
    reaction: with which the vehicle can stop, and all others do (see `stopping_distance`). margin: kept around every
    road user. time_to_overlap: sooner contact with a road user is a failure.
    """

    points: int = 2
    horizon: float = 1.5
    speed: float = 25.0
    start: float = 2.0
    behind: float = 2.0
    curvature: float = 0.25
    lateral_acceleration: float = 4.0
    acceleration: float = 4.0
    braking: float = 7.0
    jerk: float = 15.0
    heading_step: float = 0.8
    speed_jump: float = 4.0
    plan_jump: float = 4.0
    sideways_jump: float = 1.5
    age: float = 1.0
    hard_braking: float = 7.0
    reaction: float = 0.3
    margin: float = 0.2
    time_to_overlap: float = 1.5


@dataclass(frozen=True)
class Surroundings:
    """What is known beside the plan.

    speed: of the vehicle, m/s, negative backwards. age: of the plan, s. body: the vehicle's. previous: the plan
    before it, seen from now. movers: road users. boundaries: polylines [N, 2] that must not be crossed.
    """

    speed: float
    age: float
    body: Body
    previous: Course | None = None
    movers: Movers = field(default_factory=Movers)
    boundaries: Sequence[Array] = ()


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    value, limit: what was measured, and how far it may go. strain: value as a share of the limit, or of a least
    value the other way round: above 1 the check fails. message: one sentence with both.
    """

    name: str
    value: float
    limit: float
    strain: float
    message: str

    @property
    def ok(self) -> bool:
        """Whether the value is within its limit; a value that is not a number is not."""
        return self.strain <= 1.0

    @property
    def warns(self) -> bool:
        """Whether it is within its limit, but has used up more than WARNING_SHARE of it."""
        return WARNING_SHARE < self.strain <= 1.0


def check_plan(course: Course, around: Surroundings, limits: Limits) -> tuple[Check, ...]:
    """All checks of a plan. Where it is no motion at all, the checks of its motion are left out."""
    form = (finite(course), points(course, limits), times(course), horizon(course, limits), age(around, limits))
    if not all(check.ok for check in form[:3]):
        return form
    return form + tuple(check(course, around, limits) for check in _OF_MOTION)


def finite(course: Course) -> Check:
    """No value is infinite or not a number."""
    wrong = sum(int((~np.isfinite(values)).sum()) for values in (course.times, course.xy, course.yaw))
    return _at_most("finite", wrong, 0, f"{wrong} of the plan's numbers are not finite")


def points(course: Course, limits: Limits) -> Check:
    """There are enough of them."""
    count = len(course.times) - 1
    return _at_least("points", count, limits.points, f"the plan has {count} points, the least is {limits.points}")


def times(course: Course) -> Check:
    """Every point comes after the one before."""
    backwards = int((~(np.diff(course.times) > 0)).sum())
    return _at_most("times", backwards, 0, f"{backwards} of the plan's points do not come after the one before")


def horizon(course: Course, limits: Limits) -> Check:
    """The plan does not end too soon."""
    left = float(course.times[-1]) if len(course.times) else 0.0
    return _at_least(
        "horizon", left, limits.horizon, f"the plan ends in {left:.2f} s, the least is {limits.horizon:.2f} s"
    )


def age(around: Surroundings, limits: Limits) -> Check:
    """The picture that the plan was made from is not too old; one from the future is as wrong as an old one."""
    value = abs(around.age)
    return _at_most("age", value, limits.age, f"the plan is {around.age:.2f} s old, the limit is {limits.age:.2f} s")


def start(course: Course, around: Surroundings, limits: Limits) -> Check:
    """The vehicle is where the plan has it now."""
    value = float(np.hypot(*course.at(np.zeros(1))[0, :2]))
    return _at_most(
        "start", value, limits.start, f"the plan is {value:.2f} m from the vehicle, the limit is {limits.start:.2f} m"
    )


def behind(course: Course, around: Surroundings, limits: Limits) -> Check:
    """No coming point lies behind the vehicle."""
    coming = course.xy[course.times > 0, 0]
    value = max(0.0, -float(coming.min(initial=0.0)))
    return _at_most(
        "behind", value, limits.behind, f"the plan goes {value:.2f} m back, the limit is {limits.behind:.2f} m"
    )


def step_length(course: Course, around: Surroundings, limits: Limits) -> Check:
    """No step is longer than the highest speed allows."""
    value = float(np.abs(course.speeds).max())
    return _at_most(
        "step_length", value, limits.speed, f"a step takes {value:.1f} m/s, the limit is {limits.speed:.1f} m/s"
    )


def curvature(course: Course, around: Surroundings, limits: Limits) -> Check:
    """The wheels can turn so far: the change of heading over the way, of every step that moves."""
    value = float(_curvatures(course).max())
    return _at_most(
        "curvature", value, limits.curvature, f"the plan bends by {value:.3f} 1/m, the limit is {limits.curvature:.3f}"
    )


def lateral_acceleration(course: Course, around: Surroundings, limits: Limits) -> Check:
    """Speed squared times curvature stays below what tyres and passengers bear."""
    value = float((course.speeds**2 * _curvatures(course)).max())
    limit = limits.lateral_acceleration
    return _at_most(
        "lateral_acceleration", value, limit, f"bends take {value:.1f} m/s2 sideways, the limit is {limit:.1f}"
    )


def acceleration(course: Course, around: Surroundings, limits: Limits) -> Check:
    """From step to step, the speed does not rise too fast."""
    value = max(0.0, float(_accelerations(course).max(initial=0.0)))
    limit = limits.acceleration
    return _at_most(
        "acceleration", value, limit, f"the plan speeds up by {value:.1f} m/s2, the limit is {limit:.1f} m/s2"
    )


def braking(course: Course, around: Surroundings, limits: Limits) -> Check:
    """From step to step, the speed does not fall too fast."""
    value = max(0.0, -float(_accelerations(course).min(initial=0.0)))
    return _at_most(
        "braking", value, limits.braking, f"the plan brakes by {value:.1f} m/s2, the limit is {limits.braking:.1f}"
    )


def jerk(course: Course, around: Surroundings, limits: Limits) -> Check:
    """The acceleration does not change too fast."""
    changes = np.abs(np.diff(_accelerations(course)))
    middles = (course.times[1:] + course.times[:-1]) / 2
    spans = (middles[2:] - middles[:-2]) / 2
    value = float((changes / spans).max(initial=0.0))
    return _at_most(
        "jerk", value, limits.jerk, f"the plan jerks by {value:.1f} m/s3, the limit is {limits.jerk:.1f} m/s3"
    )


def heading_step(course: Course, around: Surroundings, limits: Limits) -> Check:
    """No two points in a row head in very different directions."""
    value = float(np.abs(course.turns).max())
    limit = limits.heading_step
    return _at_most("heading_step", value, limit, f"the heading steps by {value:.2f} rad, the limit is {limit:.2f}")


def speed_jump(course: Course, around: Surroundings, limits: Limits) -> Check:
    """The plan goes on at the speed that the vehicle has."""
    step = int(np.clip(np.searchsorted(course.times, 0.0, side="right") - 1, 0, len(course.speeds) - 1))
    planned = float(course.speeds[step])
    value, limit = abs(planned - around.speed), limits.speed_jump
    sentence = f"the plan goes {planned:.1f} m/s and the vehicle {around.speed:.1f}, the limit is {limit:.1f} apart"
    return _at_most("speed_jump", value, limit, sentence)


def plan_jump(course: Course, around: Surroundings, limits: Limits) -> Check:
    """At the same instants, the plan is near the one before; 0 where there is none, or none that reaches so far."""
    value = 0.0
    if around.previous is not None:
        shared = _shared_instants(course, around.previous, limits.horizon)
        apart = course.at(shared)[:, :2] - around.previous.at(shared)[:, :2]
        value = float(np.hypot(*apart.T).max(initial=0.0))
    limit = limits.plan_jump
    return _at_most("plan_jump", value, limit, f"the plan jumps by {value:.2f} m, the limit is {limit:.2f} m")


def sideways_jump(course: Course, around: Surroundings, limits: Limits) -> Check:
    """The plan runs where the one before ran: how far its places are beside that one's line."""
    value = 0.0
    if around.previous is not None and len(shared := _shared_instants(course, around.previous, limits.horizon)):
        whole = np.arange(0.0, around.previous.times[-1] + 1e-9, STEP_S)  # who is faster is still on that line
        line, places = around.previous.at(whole), course.at(shared)
        apart = places[:, None, :2] - line[None, :, :2]
        nearest = np.hypot(apart[..., 0], apart[..., 1]).argmin(axis=1)
        offset, yaw = apart[np.arange(len(places)), nearest], line[nearest, 2]
        value = float(np.abs(offset[:, 1] * np.cos(yaw) - offset[:, 0] * np.sin(yaw)).max(initial=0.0))
    limit = limits.sideways_jump
    sentence = f"the plan jumps sideways by {value:.2f} m, the limit is {limit:.2f} m"
    return _at_most("sideways_jump", value, limit, sentence)


def stopping_distance(course: Course, around: Surroundings, limits: Limits) -> Check:
    """The vehicle could stop behind whoever is in its way, even if they brake hard.

    The safe longitudinal distance of RSS (arXiv 1708.06374, definition 1), without acceleration in the time of
    reaction: v t + v^2 / 2b - w^2 / 2b. In the way is whose box touches the strip that the plan sweeps from now on.
    """
    value, limit = _needed_and_free(course, around, limits)
    sentence = f"stopping takes {value:.1f} m, and {limit:.1f} m are free to a road user"
    strain = 0.0 if np.isinf(limit) else value / limit if limit > 0 else np.inf
    return Check("stopping_distance", value, limit, strain, sentence)


def overlap(course: Course, around: Surroundings, limits: Limits) -> Check:
    """Nobody will be where the plan has the vehicle at the same time: not sooner than `time_to_overlap`."""
    instants = np.arange(0.0, course.times[-1] + 1e-9, STEP_S)
    value = np.inf
    if len(around.movers) and len(instants):
        own = around.body.boxes(course.at(instants), limits.margin)
        touching = overlaps(own, around.movers.at(instants)).any(axis=0)
        value = float(instants[touching.argmax()]) if touching.any() else np.inf
    limit = limits.time_to_overlap
    sentence = f"the plan meets a road user in {value:.1f} s, the least is {limit:.1f} s"
    return _at_least("overlap", value, limit, "the plan meets nobody" if np.isinf(value) else sentence)


def boundary(course: Course, around: Surroundings, limits: Limits) -> Check:
    """The vehicle's sides do not cross a road boundary on the way from now on."""
    instants = np.arange(0.0, course.times[-1] + 1e-9, STEP_S)
    crossed = 0
    if len(instants) > 1:
        poses = course.at(instants)
        left = np.stack([-np.sin(poses[:, 2]), np.cos(poses[:, 2])], axis=-1) * around.body.half_width
        crossed = _crossings((poses[:, :2] + left, poses[:, :2] - left), around.boundaries)
    return _at_most("boundary", crossed, 0, f"the plan crosses a road boundary {crossed} times")


_OF_MOTION: tuple[Callable[[Course, Surroundings, Limits], Check], ...] = (
    start,
    behind,
    step_length,
    curvature,
    lateral_acceleration,
    acceleration,
    braking,
    jerk,
    heading_step,
    speed_jump,
    plan_jump,
    sideways_jump,
    stopping_distance,
    overlap,
    boundary,
)


def _shared_instants(course: Course, previous: Course, horizon: float) -> Array:
    """Seconds from now, up to a horizon, at which both plans say something."""
    return np.arange(0.0, min(course.times[-1], previous.times[-1], horizon) + 1e-9, STEP_S)


def _at_most(name: str, value: float, limit: float, message: str) -> Check:
    strain = value / limit if limit > 0 else (0.0 if value == 0 else np.inf)
    return Check(name, value, limit, strain if np.isfinite(value) else np.inf, message)


def _at_least(name: str, value: float, limit: float, message: str) -> Check:
    strain = limit / value if value > 0 else np.inf
    return Check(name, value, limit, np.inf if np.isnan(value) else strain, message)


def _curvatures(course: Course) -> Array:
    """[N] magnitudes, 1/m, over at least LEAST_BEND of way."""
    return np.abs(course.turns) / np.maximum(course.lengths, LEAST_BEND)


def _accelerations(course: Course) -> Array:
    """[N - 1] m/s^2 between the middles of neighbouring steps."""
    middles = (course.times[1:] + course.times[:-1]) / 2
    return np.diff(course.speeds) / np.diff(middles)


def _needed_and_free(course: Course, around: Surroundings, limits: Limits) -> tuple[float, float]:
    """Metres that stopping takes and that are free, for the road user to whom least is left over; infinity: nobody."""
    speed, movers = max(around.speed, 0.0), around.movers
    reach = speed * limits.reaction + speed**2 / (2 * limits.hard_braking)
    if not len(movers):
        return reach, np.inf
    poses = course.at(np.arange(0.0, max(course.times[-1], 0.0) + 1e-9, STEP_S))
    free = free_way(poses, movers, around.body, limits.margin)
    needed = np.maximum(reach - own_stops(poses, free, movers, limits.hard_braking), 0.0)
    worst = int((free - needed).argmin())
    return float(needed[worst]), float(free[worst])


def _crossings(paths: Sequence[Array], lines: Sequence[Array]) -> int:
    """How many steps of paths [T, 2] cross any polyline [N, 2]; a touch at an end counts once."""
    if not lines:
        return 0
    starts, steps = (part[:, None] for part in _steps(paths))  # [S, 1, 2]
    others, spans = (part[None] for part in _steps(lines))  # [1, N, 2]
    between = others - starts
    area = _cross(steps, spans)
    with np.errstate(divide="ignore", invalid="ignore"):
        own, other = _cross(between, spans) / area, _cross(between, steps) / area
    return int(((own >= 0) & (own < 1) & (other >= 0) & (other < 1)).any(axis=1).sum())


def _steps(lines: Sequence[Array]) -> tuple[Array, Array]:
    """Where the steps of all lines begin [S, 2], and how they lead on [S, 2]."""
    return np.concatenate([line[:-1] for line in lines]), np.concatenate([np.diff(line, axis=0) for line in lines])


def _cross(first: Array, second: Array) -> Array:
    return first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]
