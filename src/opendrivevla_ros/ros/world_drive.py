"""One scenario driven on plans that come over ROS: what the vehicle does between messages. No node, no clock.

Times are of the world: nanoseconds since the start of the scenario.
"""

from collections import deque
from dataclasses import dataclass
from enum import Enum

from opendrivevla_ros.msg import PlannedTrajectory, WorldStatus
from opendrivevla_ros.ros.conversions import nanoseconds
from opendrivevla_ros.ros.received import trajectory_of
from opendrivevla_ros.world.expert import expert_command
from opendrivevla_ros.world.outcome import STEP_S
from opendrivevla_ros.world.scenario import Scenario
from opendrivevla_ros.world.simulation import World
from opendrivevla_ros.world.state import Ego
from opendrivevla_ros.world.tracking import STOPPING_DECELERATION, TrajectoryTracker
from opendrivevla_ros.world.vehicle import EgoCommand, step_ego

STEP_NS = round(STEP_S * 1e9)  # of traffic, and of the controls
TICK_NS = STEP_NS // 5  # of odometry and the clock
MEMORY_TICKS = 500  # 10 s: a plan that is older has no known start
WORLD_FRAME = "odom"  # the world's own frame, under the name that vehicles give theirs


class State(Enum):
    """Who drives, or how the drive ended; the values are those of msg/WorldStatus."""

    LEAD_IN = WorldStatus.LEAD_IN
    DRIVING = WorldStatus.DRIVING
    ARRIVED = WorldStatus.ARRIVED
    COLLIDED = WorldStatus.COLLIDED
    OUT_OF_TIME = WorldStatus.OUT_OF_TIME

    @property
    def is_end(self) -> bool:
        return self not in (State.LEAD_IN, State.DRIVING)


@dataclass(frozen=True)
class _Moment:
    """Where the vehicle was at a tick."""

    time_ns: int
    ego: Ego


class WorldDrive:
    """A drive from its start to its end, tick by tick.

    lead_in_s: so long the world's expert drives, as a driver does before he hands over. plan_timeout_s: a plan this
    long after its stamp is stale. Without a plan, or with a stale one, the vehicle brakes to a stop, along the old
    plan where there is one. time_limit_s: 0 for the scenario's own.
    """

    def __init__(
        self, scenario: Scenario, *, lead_in_s: float = 0.0, plan_timeout_s: float = 2.0, time_limit_s: float = 0.0
    ) -> None:
        self.world = World(scenario)
        self.time_limit_s = min(time_limit_s or scenario.time_limit_s, scenario.time_limit_s)
        self.time_ns = 0
        self.ego = self.world.ego
        self.state = State.LEAD_IN if lead_in_s > 0 else State.DRIVING
        self.collision = ""
        self.off_road = False
        self.plans = self.refusals = 0
        self.refusal = ""
        self._lead_in_ns, self._timeout_ns = round(lead_in_s * 1e9), round(plan_timeout_s * 1e9)
        self._tracker: TrajectoryTracker | None = None
        self._plan_ns = 0
        self._before, self._command = self.ego, EgoCommand(0.0, 0.0)
        self._memory = deque([_Moment(0, self.ego)], maxlen=MEMORY_TICKS)

    @property
    def at_step(self) -> bool:
        """Whether `world.state` is true now: traffic moves in steps, the vehicle goes on between them."""
        return self.time_ns == self.world.time_ns

    @property
    def completion(self) -> float:
        """The share of the route that was driven, 0 to 1; that of the last step."""
        scenario = self.world.scenario
        done = (self.world.progress - scenario.start_s) / (scenario.goal_s - scenario.start_s)
        return min(max(done, 0.0), 1.0)

    @property
    def complaint(self) -> str:
        """Why the vehicle brakes where no plan says so; empty while a plan is followed."""
        if self.state is not State.DRIVING:
            return ""
        if self._tracker is None:
            return "no plan has come: the vehicle brakes"
        age_ns = self.time_ns - self._plan_ns
        if age_ns > self._timeout_ns:
            return f"the newest plan is {age_ns * 1e-9:.1f} s old: the vehicle brakes"
        return ""

    def tick(self) -> None:
        """Lets TICK_NS pass. At the start of a step the controls are set for the whole of it."""
        if self.at_step:
            self._before, self._command = self.ego, self._controls()
            self.world.step(STEP_S, self._command)
        self.time_ns += TICK_NS
        if self.at_step:
            self.ego = self.world.ego
            self._judge()
        else:
            since = (self.time_ns - self.world.time_ns + STEP_NS) * 1e-9
            self.ego = step_ego(self._before, self._command, since)
        self._memory.append(_Moment(self.time_ns, self.ego))

    def follow(self, message: PlannedTrajectory, epoch_ns: int) -> bool:
        """Takes a plan in place of the one before; False, with the reason in `refusal`, for one that cannot be.

        epoch_ns: the stamp at which the world's time is 0.
        """
        stamp_ns = nanoseconds(message.header.stamp) - epoch_ns
        start = next((moment for moment in reversed(self._memory) if moment.time_ns <= stamp_ns), None)
        frame = message.header.frame_id
        problem = ""
        if frame != WORLD_FRAME:
            problem = f"a plan in frame {frame!r}; the vehicle takes plans in {WORLD_FRAME!r}, the odometry's frame"
        elif start is None or stamp_ns > self.time_ns:
            stamp, now = stamp_ns * 1e-9, self.time_ns * 1e-9
            problem = f"a plan stamped {stamp:.2f} s at {now:.2f} s; stamps are those of pictures not long ago"
        elif self._tracker is not None and stamp_ns < self._plan_ns:
            problem = f"a plan {(self._plan_ns - stamp_ns) * 1e-9:.2f} s older than the one that is followed"
        else:
            try:
                trajectory = trajectory_of(message, start.ego.base_to_world, start.ego.speed)
            except ValueError as error:
                problem = f"a plan that is none: {error}"
            else:
                self._tracker = TrajectoryTracker(trajectory, start.ego.base_to_world, stamp_ns)
                self._plan_ns = stamp_ns
                self.plans += 1
        if problem:
            self.refusals += 1
            self.refusal = problem
        return not problem

    def _controls(self) -> EgoCommand:
        if self.state is State.LEAD_IN:
            return expert_command(self.world)
        command = EgoCommand(0.0, self.ego.steering)
        if self._tracker is not None:
            command = self._tracker.command(self.ego, self.time_ns)
        if not self.complaint:
            return command
        return EgoCommand(min(command.acceleration, -STOPPING_DECELERATION), command.steering)

    def _judge(self) -> None:
        """What has become of the drive at the end of a step."""
        self.off_road = self.off_road or self.world.off_road()
        hit = self.world.collision()
        if hit is not None:
            self.state, self.collision = State.COLLIDED, hit.category.detection_name
        elif self.world.finished:
            self.state = State.ARRIVED
        elif self.time_ns >= self.time_limit_s * 1e9:
            self.state = State.OUT_OF_TIME
        elif self.state is State.LEAD_IN and self.time_ns >= self._lead_in_ns:
            self.state = State.DRIVING
