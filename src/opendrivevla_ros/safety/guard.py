"""One cycle of the guard: from the newest plan and the vehicle's motion to what the vehicle may follow.

No message and no clock: the node hands in what has come, and sends what is decided.
"""

from dataclasses import dataclass, field

from opendrivevla_ros.core.ego import EgoState
from opendrivevla_ros.core.geometry import Array, invert
from opendrivevla_ros.core.plan import Agent, MapElement
from opendrivevla_ros.core.trajectory import Trajectory
from opendrivevla_ros.safety.course import Course
from opendrivevla_ros.safety.fallback import StopLimits, stop
from opendrivevla_ros.safety.plan_checks import Check, Limits, Surroundings, check_plan
from opendrivevla_ros.safety.road_users import Body, Movers
from opendrivevla_ros.safety.supervisor import Cycle, Patience, Source, State, Supervisor, Transition
from opendrivevla_ros.safety.surroundings import boundaries_seen_from, movers_seen_from


@dataclass(frozen=True)
class PlacedTrajectory:
    """A trajectory, in base_link at `ego.stamp_ns`, its t0.

    confidence: how likely its point 3 s ahead is off by no more than `uncertainty.GOOD_METRES`, as the model has it.
    """

    trajectory: Trajectory
    ego: EgoState
    confidence: float = 1.0


@dataclass(frozen=True)
class Scene:
    """What was seen around the vehicle, in base_link at `ego.stamp_ns`."""

    ego: EgoState
    agents: tuple[Agent, ...] = ()
    map_elements: tuple[MapElement, ...] = ()


@dataclass(frozen=True)
class GuardSettings:
    """The limits of everything that the guard does.

    scene_age: seconds after which road users that were seen are no longer known. least_confidence: of a plan;
    unsure_plans: so many in a row with less, and somebody must take over.
    """

    body: Body
    plan: Limits = field(default_factory=Limits)
    stop: StopLimits = field(default_factory=StopLimits)
    patience: Patience = field(default_factory=Patience)
    scene_age: float = 1.0
    least_confidence: float = 0.0
    unsure_plans: int = 3


@dataclass(frozen=True)
class Decision:
    """What a cycle comes to.

    forward: the candidate to be sent on now, once; None where there is none that is new. stop: what is to be sent in
    place of a plan. checks: of the newest candidate. transition: of the state, where it has changed.
    """

    state: State
    reasons: tuple[str, ...]
    forward: PlacedTrajectory | None
    stop: PlacedTrajectory | None
    checks: tuple[Check, ...]
    transition: Transition | None


class Guard:
    """The newest candidate and scene, the last good candidate, and the supervisor."""

    def __init__(self, settings: GuardSettings) -> None:
        self.supervisor = Supervisor(settings.patience)
        self.settings = settings
        self._scene: Scene | None = None
        self._newest: PlacedTrajectory | None = None
        self._before: PlacedTrajectory | None = None  # the candidate before the newest
        self._refused = ""  # why the newest is none
        self._unsure = 0  # plans in a row
        self._is_new = False
        self._good: PlacedTrajectory | None = None
        self._stop: PlacedTrajectory | None = None
        self._ego: EgoState | None = None  # the last that was known

    @property
    def newest(self) -> PlacedTrajectory | None:
        """The newest candidate."""
        return self._newest

    @property
    def scene(self) -> Scene | None:
        """What was seen last."""
        return self._scene

    def take(self, candidate: PlacedTrajectory) -> None:
        """A plan has come; the next cycle decides about it."""
        self._before, self._newest, self._is_new, self._refused = self._newest, candidate, True, ""
        self._unsure = self._unsure + 1 if candidate.confidence < self.settings.least_confidence else 0

    def refuse(self, reason: str) -> None:
        """Something has come in place of a plan that is none; until a plan comes, there is none."""
        self._before = self._newest = None
        self._is_new, self._refused = False, reason

    def see(self, scene: Scene) -> None:
        """What is around has been seen anew."""
        self._scene = scene

    def forget(self) -> None:
        """Drops all plans and scenes, as after a jump of the clock: what they were made for is over."""
        self._scene = self._newest = self._before = self._good = None
        self._is_new, self._refused, self._unsure = False, "", 0

    def cycle(
        self,
        now_ns: int,
        ego: EgoState | None,
        *,
        blind: tuple[str, ...] = (),
        uncertain: tuple[str, ...] = (),
        faults: tuple[str, ...] = (),
        degraded: tuple[str, ...] = (),
    ) -> Decision:
        """Decides what is sent now.

        ego: the vehicle's motion now, or None with the reasons in `blind`. uncertain, faults, degraded: what else is
        known, see `supervisor.Cycle`; the checks of the plan add to the faults.
        """
        checks: tuple[Check, ...] = ()
        if ego is None:
            blind = blind or ("the vehicle's own motion is not known",)
        elif self._newest is None:
            faults += (self._refused or "no plan has come",)
        else:
            checks = self._check(self._newest, ego, now_ns)
            faults += tuple(check.message for check in checks if not check.ok)
            faults += self._old_scene(now_ns)
            uncertain += self._uncertain(self._newest)
        transition = self.supervisor.step(Cycle(blind, uncertain, faults, degraded))
        forward = None
        if not faults and not uncertain and ego is not None:
            if self._is_new and self.supervisor.sends is Source.MODEL:
                forward = self._newest
            self._good = self._newest
        self._is_new = False
        self._ego = ego or self._ego
        if self.supervisor.sends is not Source.STOP:
            self._stop = None
        elif self._ego is not None and (ego is not None or self._stop is None):  # blind, the last stop holds
            self._stop = PlacedTrajectory(self._stopping(self._ego), self._ego)
        return Decision(self.supervisor.state, self.supervisor.reasons, forward, self._stop, checks, transition)

    def _check(self, candidate: PlacedTrajectory, ego: EgoState, now_ns: int) -> tuple[Check, ...]:
        since, age_s = _since(candidate.ego, ego, now_ns)
        scene = self._scene
        # what the vehicle follows must not jump; once that is a stop, the plans must agree with one another
        good = self._good if self.supervisor.sends is Source.MODEL else self._before
        if good is candidate:
            good = None
        around = Surroundings(
            speed=ego.speed,
            age=age_s,
            body=self.settings.body,
            previous=None if good is None else Course.seen_from(good.trajectory, *_since(good.ego, ego, now_ns)),
            movers=self._movers(ego, now_ns),
            boundaries=[] if scene is None else boundaries_seen_from(scene.map_elements, _since(scene.ego, ego, 0)[0]),
        )
        return check_plan(Course.seen_from(candidate.trajectory, since, age_s), around, self.settings.plan)

    def _old_scene(self, now_ns: int) -> tuple[str, ...]:
        """Why a plan cannot be checked against road users that were seen once; a model may never tell of any."""
        if self._scene is None:
            return ()
        age_s, limit = (now_ns - self._scene.ego.stamp_ns) * 1e-9, self.settings.scene_age
        return (f"road users were last seen {age_s:.2f} s ago, the limit is {limit:.2f} s",) if age_s > limit else ()

    def _uncertain(self, newest: PlacedTrajectory) -> tuple[str, ...]:
        if self._unsure < self.settings.unsure_plans:
            return ()
        sure, least = newest.confidence, self.settings.least_confidence
        return (f"the last {self._unsure} plans were unsure: confidence {sure:.2f}, the least is {least:.2f}",)

    def _stopping(self, ego: EgoState) -> Trajectory:
        """The stop from there: on the last good way, before whoever was seen in it."""
        way = None
        if self._good is not None:
            way = Course.seen_from(self._good.trajectory, *_since(self._good.ego, ego, ego.stamp_ns))
        return stop(way, ego.speed, self._movers(ego, ego.stamp_ns), self.settings.body, self.settings.stop)

    def _movers(self, ego: EgoState, now_ns: int) -> Movers:
        if self._scene is None:
            return Movers()
        since, age_s = _since(self._scene.ego, ego, now_ns)
        return movers_seen_from(self._scene.agents, since, max(age_s, 0.0))


def _since(then: EgoState, ego: EgoState, now_ns: int) -> tuple[Array, float]:
    """base_link then to base_link now, and the seconds between."""
    return invert(ego.base_to_world) @ then.base_to_world, (now_ns - then.stamp_ns) * 1e-9
