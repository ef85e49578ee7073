"""The guard in a vehicle that follows what it sends: what it does when plans are good, bad, late or gone."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from safety.courses import BODY, TIMES, straight

from opendrivevla_ros.core.ego import EgoState
from opendrivevla_ros.core.geometry import Array, invert, planar_transform
from opendrivevla_ros.core.plan import Agent, MapElement
from opendrivevla_ros.core.trajectory import Trajectory
from opendrivevla_ros.safety.course import Course
from opendrivevla_ros.safety.guard import Decision, Guard, GuardSettings, PlacedTrajectory, Scene
from opendrivevla_ros.safety.supervisor import Patience, State, Transition

PERIOD_NS = 50_000_000
SETTINGS = GuardSettings(BODY, patience=Patience(healthy=5, recovered=5, fallback=200))
NO_MOTION = np.zeros(3)


@dataclass
class Drive:
    """A vehicle on a straight road, the guard's cycles, and a plan every half second."""

    speed: float = 8.0
    x: float = 0.0
    now_ns: int = 1_000_000_000
    guard: Guard = field(default_factory=lambda: Guard(SETTINGS))
    agents: tuple[Agent, ...] = ()
    map_elements: tuple[MapElement, ...] = ()
    plans: bool = True
    sees_itself: bool = True
    decisions: list[Decision] = field(default_factory=list)

    @property
    def ego(self) -> EgoState:
        velocity = np.array([self.speed, 0.0, 0.0])
        return EgoState(
            self.now_ns, planar_transform(self.x, 0.0, 0.0), velocity, NO_MOTION, NO_MOTION, np.zeros((4, 3))
        )

    def candidate(self, xy: Array | None = None) -> PlacedTrajectory:
        waypoints = straight(self.speed) if xy is None else xy
        return PlacedTrajectory(Trajectory.from_waypoints(TIMES, waypoints, self.speed), self.ego)

    def scene(self) -> Scene:
        seen = [replace(agent, position=agent.position - [self.x, 0, 0]) for agent in self.agents]
        return Scene(self.ego, tuple(seen), self.map_elements)

    def go(self, seconds: float) -> list[Decision]:
        """Lets time pass; the vehicle keeps its speed, or does what a stop says. Returns the new decisions."""
        first = len(self.decisions)
        for _ in range(round(seconds / (PERIOD_NS * 1e-9))):
            if self.plans and self.now_ns % 500_000_000 == 0:
                self.guard.take(self.candidate())
                self.guard.see(self.scene())
            decision = self.guard.cycle(self.now_ns, self.ego if self.sees_itself else None)
            self.decisions.append(decision)
            self._move(decision)
        return self.decisions[first:]

    def _move(self, decision: Decision) -> None:
        step = PERIOD_NS * 1e-9
        if decision.stop is not None:
            since = (self.now_ns - decision.stop.ego.stamp_ns) * 1e-9
            course = Course.seen_from(decision.stop.trajectory, np.eye(4), 0.0)
            before, after = course.at(np.array([since, since + step]))[:, 0]
            self.speed = float(after - before) / step
        self.x += self.speed * step
        self.now_ns += PERIOD_NS

    def arm(self) -> None:
        self.go(1.0)
        assert isinstance(self.guard.supervisor.arm(), Transition)


@pytest.fixture
def drive() -> Drive:
    drive = Drive()
    drive.arm()
    return drive


def test_good_plans_go_on_once_each_and_nothing_else_is_sent(drive: Drive) -> None:
    decisions = drive.go(5.0)
    assert {decision.state for decision in decisions} == {State.NOMINAL}
    sent = [decision.forward for decision in decisions if decision.forward is not None]
    assert len(sent) == 10
    assert len({candidate.ego.stamp_ns for candidate in sent}) == 10
    assert all(decision.stop is None for decision in decisions)


class LongPlans(Drive):
    """With plans of ten points, five seconds."""

    def candidate(self, xy: Array | None = None) -> PlacedTrajectory:
        times = np.arange(1, 11) * 0.5
        waypoints = np.column_stack([self.speed * times, np.zeros(10)])
        return PlacedTrajectory(Trajectory.from_waypoints(times, waypoints, self.speed), self.ego)


def test_plans_of_ten_points_go_on_and_are_stopped_along() -> None:
    drive = LongPlans()
    drive.arm()
    decisions = drive.go(2.0)
    assert {decision.state for decision in decisions} == {State.NOMINAL}
    assert all(len(one.forward.trajectory) == 10 for one in decisions if one.forward is not None)
    drive.plans = False
    states = [decision.state for decision in drive.go(8.0)]
    assert State.FALLBACK in states
    assert State.TAKEOVER not in states
    assert drive.speed == pytest.approx(0.0, abs=1e-6)


def test_nothing_is_sent_before_it_is_armed() -> None:
    drive = Drive()
    for decision in drive.go(2.0):
        assert decision.state is State.DISARMED
        assert decision.forward is None
        assert decision.stop is None


def test_a_bad_plan_is_not_sent_and_answered_in_the_same_cycle(drive: Drive) -> None:
    drive.plans = False
    drive.guard.take(drive.candidate(straight(8.0) + np.array([0.0, 7.0])))
    (decision,) = drive.go(0.05)
    assert decision.state is State.FALLBACK
    assert decision.forward is None
    assert decision.stop is not None
    assert any("jump" in reason for reason in decision.reasons)


def test_without_plans_it_stops_on_its_way_and_stays_there(drive: Drive) -> None:
    drive.plans = False
    decisions = drive.go(8.0)
    states = [decision.state for decision in decisions]
    assert states[:10] == [State.NOMINAL] * 10
    late = states.index(State.FALLBACK) * PERIOD_NS * 1e-9
    assert late <= SETTINGS.plan.age + 0.1
    assert State.TAKEOVER not in states
    assert drive.speed == pytest.approx(0.0, abs=1e-6)
    stopped = drive.x
    drive.go(1.0)
    assert drive.x == pytest.approx(stopped, abs=1e-3)


def test_plans_that_come_back_are_sent_again_after_a_while(drive: Drive) -> None:
    drive.plans = False
    drive.go(2.0)
    assert drive.decisions[-1].state is State.FALLBACK
    drive.plans = True
    decisions = drive.go(1.5)
    assert decisions[-1].state is State.NOMINAL
    assert any(decision.forward is not None for decision in decisions)


def test_after_too_long_a_fallback_somebody_must_take_over(drive: Drive) -> None:
    drive.plans = False
    drive.go(14.0)
    assert drive.decisions[-1].state is State.TAKEOVER
    drive.plans = True
    drive.go(2.0)
    assert drive.decisions[-1].state is State.TAKEOVER
    assert drive.decisions[-1].stop is not None
    drive.guard.supervisor.reset()
    assert drive.go(0.05)[-1].state is State.DISARMED


def test_blind_it_sends_the_stop_from_where_it_last_knew_itself(drive: Drive) -> None:
    known = drive.x
    drive.sees_itself = False
    decisions = drive.go(0.5)
    assert {decision.state for decision in decisions} == {State.TAKEOVER}
    stops = [decision.stop for decision in decisions]
    assert all(found is not None and found.ego is stops[0].ego for found in stops)  # type: ignore[union-attr]
    assert stops[0] is not None
    assert stops[0].ego.base_to_world[0, 3] == pytest.approx(known, abs=0.5)


def test_a_plan_into_a_standing_car_is_answered_by_a_stop_before_it(drive: Drive) -> None:
    car = np.array([drive.x + 22.0, 0.0, 0.8])
    drive.agents = (Agent(1, "car", 0.9, car, np.array([4.5, 1.9, 1.6]), 0.0, np.zeros(2)),)
    states = [decision.state for decision in drive.go(7.0)]
    assert State.FALLBACK in states
    assert states[-1] is State.NOMINAL  # it stands, and to stay there is a good plan
    bumper = drive.x + BODY.front
    assert bumper < car[0] - 2.25
    assert drive.speed == pytest.approx(0.0, abs=1e-6)


def test_a_plan_over_a_boundary_is_not_sent(drive: Drive) -> None:
    kerb = np.array([[-5.0, -6.0], [30.0, 8.0]])
    drive.map_elements = (MapElement("boundary", 0.9, kerb),)
    drive.now_ns += -drive.now_ns % 500_000_000
    decision = drive.go(0.05)[-1]
    assert decision.state is State.FALLBACK
    assert any("boundary" in reason for reason in decision.reasons)


def test_what_is_no_plan_is_answered_in_the_same_cycle_and_until_a_plan_comes(drive: Drive) -> None:
    drive.plans = False
    drive.guard.refuse("waypoints must be finite")
    decisions = drive.go(0.5)
    assert {decision.reasons for decision in decisions} == {("waypoints must be finite",)}
    assert all(decision.stop is not None for decision in decisions)
    drive.guard.take(drive.candidate())
    drive.guard.see(drive.scene())
    assert drive.go(0.4)[-1].state is State.NOMINAL


def test_plans_that_jumped_and_then_agree_are_sent_again(drive: Drive) -> None:
    drive.plans = False
    slower = straight(2.0)
    drive.guard.take(drive.candidate(slower))
    assert drive.go(0.05)[-1].state is State.FALLBACK
    states = []
    for _ in range(8):  # 0.4 s, much less than the old plan goes on for
        drive.guard.take(drive.candidate(straight(drive.speed)))
        states.append(drive.go(0.05)[-1].state)
    assert states[-1] is State.NOMINAL


def test_road_users_that_were_seen_must_be_seen_again(drive: Drive) -> None:
    car = Agent(1, "car", 0.9, np.array([80.0, 0.0, 0.8]), np.array([4.5, 1.9, 1.6]), 0.0, np.zeros(2))
    drive.agents = (car,)
    drive.now_ns += -drive.now_ns % 500_000_000
    drive.go(0.5)
    drive.plans = False
    seen_ns = drive.now_ns - 500_000_000
    while drive.now_ns - seen_ns < 1.5e9:  # plans go on, and nobody tells what is around
        drive.guard.take(drive.candidate())
        drive.go(0.05)
    assert drive.decisions[-1].state is State.FALLBACK
    assert any("last seen" in reason for reason in drive.decisions[-1].reasons)


def test_plans_that_are_unsure_in_a_row_ask_for_a_take_over(drive: Drive) -> None:
    drive.guard.settings = replace(SETTINGS, least_confidence=0.3, unsure_plans=3)
    drive.plans = False
    for confidence, state in ((0.2, State.NOMINAL), (0.1, State.NOMINAL), (0.5, State.NOMINAL), (0.2, State.NOMINAL)):
        drive.guard.take(replace(drive.candidate(), confidence=confidence))
        assert drive.go(0.05)[-1].state is state
    for confidence in (0.2, 0.29):
        drive.guard.take(replace(drive.candidate(), confidence=confidence))
        decision = drive.go(0.05)[-1]
    assert decision.state is State.TAKEOVER
    assert decision.forward is None
    assert "confidence 0.29, the least is 0.30" in decision.reasons[0]


def test_what_was_planned_before_a_jump_of_the_clock_is_forgotten(drive: Drive) -> None:
    drive.guard.forget()
    drive.plans = False
    decision = drive.go(0.05)[-1]
    assert decision.reasons == ("no plan has come",)
    assert decision.stop is not None
    np.testing.assert_allclose((invert(drive.ego.base_to_world) @ decision.stop.ego.base_to_world)[1, 3], 0.0)
