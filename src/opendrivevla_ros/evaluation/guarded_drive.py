"""A drive in the world through the guard, with a fault on the way: model, guard and vehicle, and what is between them.

The model is the expert, so that whatever goes wrong is the fault's doing: twice a second it tells its plan and
everyone who is there, LATENCY_S after the picture. The guard runs as its node runs it, at 20 Hz, on odometry of 20 Hz;
the vehicle follows what the guard sends, and brakes when that gets old. Time is the world's: a process that is killed
or stopped is one from which nothing comes.
"""

from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np

from opendrivevla_ros.core.ego import EgoState
from opendrivevla_ros.core.geometry import Array, apply, invert, wrap_angle
from opendrivevla_ros.core.plan import Agent, MapElement
from opendrivevla_ros.core.trajectory import Trajectory
from opendrivevla_ros.evaluation.faults import HEARTBEAT_TIMEOUT_S, Fault, Odometry
from opendrivevla_ros.safety.course import Course
from opendrivevla_ros.safety.guard import Decision, Guard, GuardSettings, PlacedTrajectory, Scene
from opendrivevla_ros.safety.heartbeat import Heartbeat, findings
from opendrivevla_ros.safety.plan_checks import Surroundings, check_plan
from opendrivevla_ros.safety.road_users import Body
from opendrivevla_ros.safety.supervisor import SENT, Source, State
from opendrivevla_ros.safety.surroundings import boundaries_seen_from, movers_seen_from
from opendrivevla_ros.sensing.odometry import OdometryBuffer, OdometrySettings
from opendrivevla_ros.sensing.refusals import ObservationError
from opendrivevla_ros.world.conflict import at_fault
from opendrivevla_ros.world.expert import Future, expert_command, roll_out
from opendrivevla_ros.world.outcome import STEP_S
from opendrivevla_ros.world.scenario import Scenario
from opendrivevla_ros.world.simulation import WORLD_FRAME, World
from opendrivevla_ros.world.tracking import STOPPING_DECELERATION, TrajectoryTracker
from opendrivevla_ros.world.vehicle import EgoCommand, step_ego

TICK_NS = 50_000_000  # of the guard and of odometry
STEP_NS, PLAN_NS, BEAT_NS = round(STEP_S * 1e9), 500_000_000, 100_000_000
LATENCY_S = 0.2
EPOCH_NS = 1_700_000_000_000_000_000
LEAD_IN_NS = 2_000_000_000  # so long the expert drives, before the guard is armed
STALE_NS = 2_000_000_000  # the vehicle brakes without anything newer
REACH_METRES = 60.0  # of what the model tells
THROUGH_S = 1.5  # a plan through a road user is where that will be after so long, and goes on
STANDS_NS = 3_000_000_000  # a vehicle that stands so long after a fault will not go on
BODY = Body(front=3.414, rear=0.67, half_width=0.865)


@dataclass(frozen=True)
class GuardedDrive:
    """How a drive went.

    fault: "" for none; fault_s: when it was there to be seen, None where it never was. nominal: whether all was well
    until then. reaction_s: from then to the first cycle that is not NOMINAL, None for none. answer: why. collided,
    at_fault: whether the drive ended in a collision, and by the vehicle's own doing. cycles, alarms: since arming, and
    those of them not NOMINAL before there was a fault to be seen. alarmed: why, the first time. sent: plans of the
    model that were sent on; spoiled: those that the fault had made wrong; unsafe: those that do not pass the checks
    against the truth. standing: whether the vehicle ended standing. completion: share of the route.
    """

    family: str
    seed: int
    fault: str
    fault_s: float | None
    nominal: bool
    reaction_s: float | None
    answer: str
    collided: bool
    at_fault: bool
    cycles: int
    alarms: int
    alarmed: str
    sent: int
    spoiled: int
    unsafe: int
    standing: bool
    completion: float


@dataclass(frozen=True)
class _Message:
    """A plan and what was seen, on their way; `spoiled` by the fault."""

    due_ns: int
    stamp_ns: int  # on the clock, which may jump
    trajectory: Trajectory
    agents: tuple[Agent, ...]
    boundaries: tuple[MapElement, ...]
    spoiled: bool


@dataclass
class _Counts:
    fault_s: float | None = None
    nominal: bool = False
    reaction_s: float | None = None
    answer: str = ""
    cycles: int = 0
    alarms: int = 0
    alarmed: str = ""
    sent: int = 0
    spoiled: int = 0
    unsafe: int = 0


def drive_guarded(scenario: Scenario, fault: Fault | None = None, fault_s: float = 5.0) -> GuardedDrive:
    """Drives a scenario to its goal, its time limit, a collision, or a lasting stop after the fault at `fault_s`."""
    drive = _Drive(scenario, fault, round(fault_s * 1e9))
    drive.run()
    world, counts = drive.world, drive.counts
    hit = world.collision()
    done = (world.progress - scenario.start_s) / (scenario.goal_s - scenario.start_s)
    return GuardedDrive(
        family=scenario.family,
        seed=scenario.seed,
        fault=fault.name if fault else "",
        collided=hit is not None,
        at_fault=hit is not None and at_fault(world, hit),
        standing=drive.ego.speed < 0.1,
        completion=min(max(done, 0.0), 1.0),
        **vars(counts),
    )


@dataclass
class _Drive:
    scenario: Scenario
    fault: Fault | None
    fault_ns: int
    counts: _Counts = field(default_factory=_Counts)

    def __post_init__(self) -> None:
        self.world = World(self.scenario)
        self.time_ns = 0
        self.ego = self.world.ego
        self._before, self._command = self.ego, EgoCommand(0.0, 0.0)
        self._clock_ns = EPOCH_NS  # what the clock shows at the world's time 0
        self._messages: deque[_Message] = deque()
        self._heartbeat: Heartbeat | None = None
        self._heartbeat_ns = self._planned_ns = 0
        self._candidate: _Message | None = None
        self._tracker: TrajectoryTracker | None = None
        self._tracked_ns = 0
        self._standing_ns = 0
        self._start_guard()

    def run(self) -> None:
        """Ticks to the end."""
        limit_ns = self.scenario.time_limit_s * 1e9
        while self.time_ns < limit_ns and not self.world.finished and self.world.collision() is None:
            self._jump_clock()
            self._tell_odometry()
            self._plan()
            self._beat()
            self._deliver()
            self._guard()
            self._move()
            self._standing_ns = self._standing_ns + TICK_NS if self.ego.speed < 0.05 else 0
            if self.counts.fault_s is not None and self._standing_ns >= STANDS_NS and not self._may_go_on:
                return

    # What happens, in the order of a tick

    @property
    def _holds(self) -> bool:
        """Whether the fault holds now."""
        fault = self.fault
        return fault is not None and 0 <= self.time_ns - self.fault_ns < fault.lasts_s * 1e9

    @property
    def _may_go_on(self) -> bool:
        return SENT[self._guarding.supervisor.state] is Source.MODEL

    @property
    def _now_ns(self) -> int:
        return self._clock_ns + self.time_ns

    def _jump_clock(self) -> None:
        if self.fault and self.fault.clock_s and self.time_ns == self.fault_ns:
            self._clock_ns += round(self.fault.clock_s * 1e9)
            self._odometry.clear()
            self._guarding.forget()

    def _tell_odometry(self) -> None:
        state = self.fault.odometry if self.fault and self._holds else Odometry.GOOD
        if state is Odometry.DEAD:
            return
        ego, half = self.ego, self.ego.yaw / 2
        speed = ego.speed if state is Odometry.GOOD else float("nan")
        self._odometry.add(
            self._now_ns,
            position=(ego.x, ego.y, 0.0),
            quaternion_xyzw=(0.0, 0.0, float(np.sin(half)), float(np.cos(half))),
            linear=(speed, 0.0, 0.0),
            angular=(0.0, 0.0, ego.yaw_rate),
            frame_id=WORLD_FRAME,
            child_frame_id="base_link",
        )

    def _plan(self) -> None:
        """The model looks and plans; what it says is due later."""
        if self.time_ns % PLAN_NS:
            return
        fault = self.fault if self._holds else None
        if fault and (fault.no_plans or (fault.gone and not fault.late)):
            return
        world, to_base = self.world, invert(self.ego.base_to_world)
        future = roll_out(world)
        trajectory, agents = future.trajectory, _agents(world, future, to_base)
        spoiled = trajectory if fault is None else _spoil(trajectory, agents, self.ego.speed, fault)
        delay_s = LATENCY_S + (fault.delay_s if fault else 0.0)
        due_ns = self.time_ns + round(delay_s * 1e9)
        if fault and fault.late:  # a process that was stopped finishes when it goes on
            due_ns = max(due_ns, self.fault_ns + round(fault.lasts_s * 1e9))
        boundaries = tuple(
            MapElement("boundary", 1.0, line[near])
            for line in (
                apply(to_base, np.pad(line, ((0, 0), (0, 1))))[:, :2] for line in world.scenario.road.boundaries
            )
            if (near := np.hypot(*line.T) < REACH_METRES).sum() > 1
        )
        self._messages.append(_Message(due_ns, self._now_ns, spoiled, agents, boundaries, spoiled is not trajectory))

    def _beat(self) -> None:
        fault = self.fault if self._holds else None
        if self.time_ns % BEAT_NS or (fault and fault.gone):
            return
        overdue = self.time_ns - self._planned_ns > STALE_NS
        if fault and fault.no_plans and overdue:
            self._heartbeat = Heartbeat(False, fault.no_plans)
        else:
            self._heartbeat = Heartbeat(True, fault.degraded if fault and self._planned_ns > self.fault_ns else "")
        self._heartbeat_ns = self.time_ns

    def _deliver(self) -> None:
        """What is due reaches the guard, where there is one."""
        due = [message for message in self._messages if message.due_ns <= self.time_ns]
        self._messages = deque(message for message in self._messages if message.due_ns > self.time_ns)
        for message in due:
            self._planned_ns = self.time_ns
            if self.fault and self.fault.spoils_plans and message.spoiled and self.counts.fault_s is None:
                self._see_fault()
            if self.fault and self.fault.guard_gone and self._holds:
                continue
            self._take(message)

    def _take(self, message: _Message) -> None:
        ego = self._ego_at(message.stamp_ns)
        if ego is None:
            return
        if not np.isfinite(message.trajectory.xy).all():
            self._guarding.refuse("waypoints must be finite")
            return
        self._candidate = message
        self._guarding.take(PlacedTrajectory(message.trajectory, ego))
        self._guarding.see(Scene(ego, message.agents, message.boundaries))

    def _guard(self) -> None:
        """One cycle of the guard, and what the vehicle makes of it."""
        fault = self.fault
        if fault and self._holds and self.counts.fault_s is None and not fault.spoils_plans:
            self._see_fault()
        if fault and fault.guard_gone and self._holds:
            self._start_guard()  # it comes back as a new process, disarmed
            return
        guard, ego = self._guarding, self._ego_at(self._now_ns)
        silent_s = (self.time_ns - self._heartbeat_ns) * 1e-9
        model = findings(self._heartbeat, silent_s, HEARTBEAT_TIMEOUT_S)
        decision = guard.cycle(self._now_ns, ego, faults=model.faults, degraded=model.degraded)
        if guard.supervisor.state is State.DISARMED and LEAD_IN_NS <= self.time_ns < self.fault_ns:
            guard.supervisor.arm()
        self._count(decision)
        self._follow(decision)

    def _follow(self, decision: Decision) -> None:
        sent = decision.forward or decision.stop
        if sent is not None:
            self._tracker = TrajectoryTracker(
                sent.trajectory, sent.ego.base_to_world, sent.ego.stamp_ns - self._clock_ns
            )
            self._tracked_ns = self.time_ns

    def _move(self) -> None:
        if self.time_ns == self.world.time_ns:
            self._before, self._command = self.ego, self._controls()
            self.world.step(STEP_S, self._command)
        self.time_ns += TICK_NS
        if self.time_ns == self.world.time_ns:
            self.ego = self.world.ego
        else:
            since_s = (self.time_ns - self.world.time_ns + STEP_NS) * 1e-9
            self.ego = step_ego(self._before, self._command, since_s)

    def _controls(self) -> EgoCommand:
        if self.time_ns < LEAD_IN_NS + 2 * PLAN_NS and self._tracker is None:
            return expert_command(self.world)
        if self._tracker is None:
            return EgoCommand(-STOPPING_DECELERATION, self.ego.steering)
        command = self._tracker.command(self.ego, self.time_ns)
        if self.time_ns - self._tracked_ns <= STALE_NS:
            return command
        return EgoCommand(min(command.acceleration, -STOPPING_DECELERATION), command.steering)

    # What is measured

    def _see_fault(self) -> None:
        self.counts.fault_s = self.time_ns * 1e-9
        self.counts.nominal = self._guarding.supervisor.state is State.NOMINAL

    def _count(self, decision: Decision) -> None:
        counts = self.counts
        if decision.state is State.DISARMED and counts.fault_s is None:
            return
        counts.cycles += 1
        if decision.state is not State.NOMINAL:
            reasons = "; ".join(decision.reasons)
            if counts.fault_s is None:
                counts.alarms += 1
                counts.alarmed = counts.alarmed or f"{self.time_ns * 1e-9:.2f} s: {reasons}"
            elif counts.reaction_s is None:
                counts.reaction_s = self.time_ns * 1e-9 - counts.fault_s
                counts.answer = reasons
        if decision.forward is not None and self._candidate is not None:
            counts.sent += 1
            counts.spoiled += self._candidate.spoiled
            counts.unsafe += not self._is_safe(decision.forward)

    def _is_safe(self, sent: PlacedTrajectory) -> bool:
        """Whether a plan that is sent passes the checks against what is true now."""
        now, settings = self.ego, self._guarding.settings
        since = invert(now.base_to_world) @ sent.ego.base_to_world
        age_s = (self._now_ns - sent.ego.stamp_ns) * 1e-9
        to_base = invert(now.base_to_world)
        around = Surroundings(
            speed=now.speed,
            age=age_s,
            body=BODY,
            movers=movers_seen_from(_agents(self.world, roll_out(self.world), to_base), np.eye(4), 0.0),
            boundaries=boundaries_seen_from(self._candidate.boundaries if self._candidate else (), since),
        )
        return all(
            check.ok for check in check_plan(Course.seen_from(sent.trajectory, since, age_s), around, settings.plan)
        )

    # The guard's process

    def _start_guard(self) -> None:
        self._guarding = Guard(GuardSettings(BODY))
        self._odometry = OdometryBuffer(
            OdometrySettings(world_frame=WORLD_FRAME, extrapolation_s=0.15, max_gap_s=0.15, gap_limit_s=2.0)
        )

    def _ego_at(self, stamp_ns: int) -> EgoState | None:
        try:
            return self._odometry.state_at(stamp_ns)
        except ObservationError:
            return None


def _agents(world: World, future: Future, to_base: Array) -> tuple[Agent, ...]:
    """Everyone near, in base_link, and where they will be, as a perfect model would tell them."""
    found = []
    yaw = float(np.arctan2(to_base[1, 0], to_base[0, 0]))
    for actor in world.traffic.actors():
        position = apply(to_base, [actor.x, actor.y, actor.size[2] / 2])
        if np.hypot(*position[:2]) < REACH_METRES:
            velocity = (to_base[:3, :3] @ [*actor.velocity, 0.0])[:2]
            heading = float(wrap_angle(actor.yaw + yaw))
            label = actor.category.detection_name
            stays = int(np.append(~future.present[:, actor.id], True).argmax())
            way = np.pad(future.actors[:stays, actor.id, :2], ((0, 0), (0, 1)))
            predicted = apply(to_base, way)[:, :2]
            found.append(Agent(actor.id, label, 1.0, position, np.array(actor.size), heading, velocity, predicted))
    return tuple(found)


def _spoil(trajectory: Trajectory, agents: tuple[Agent, ...], speed: float, fault: Fault) -> Trajectory:
    """The plan as the fault has it; the same object where it cannot touch this one."""
    if fault.not_finite:
        return replace(trajectory, xy=np.full_like(trajectory.xy, np.nan))
    if fault.aside_m:
        return Trajectory.from_waypoints(trajectory.times, trajectory.xy + np.array([0.0, fault.aside_m]), speed)
    if fault.into_agent:
        ahead = [agent for agent in agents if 6.0 < agent.position[0] < 3.0 * max(speed, 3.0)]
        if ahead:
            nearest = min(ahead, key=lambda agent: float(np.hypot(*agent.position[:2])))
            there = nearest.position[:2] + THROUGH_S * nearest.velocity
            return Trajectory.from_waypoints(trajectory.times, np.outer(trajectory.times / THROUGH_S, there), speed)
    return trajectory
