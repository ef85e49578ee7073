"""The world in motion: traffic and ego step by step, what is true now, and what has gone wrong."""

from dataclasses import dataclass

import numpy as np

from opendrivevla_ros.core.boxes import overlaps
from opendrivevla_ros.core.ego import HISTORY_POINTS, HISTORY_STEP_NS, Command, EgoState, kinematic_steering
from opendrivevla_ros.core.geometry import Array, wrap_angle
from opendrivevla_ros.world.scenario import Scenario
from opendrivevla_ros.world.state import EGO_CENTRE_AHEAD, Actor, Ego, WorldState
from opendrivevla_ros.world.traffic import Traffic
from opendrivevla_ros.world.vehicle import EgoCommand, ego_box, step_ego

WORLD_FRAME = "map"


@dataclass(frozen=True)
class StartError:
    """How far from the expert's place the ego starts: metres left, radians left, m/s faster."""

    lateral: float = 0.0
    yaw: float = 0.0
    speed: float = 0.0

    @classmethod
    def drawn(cls, random: np.random.Generator) -> "StartError":
        """A perturbed start: normal with 0.35 m, 0.04 rad and 0.8 m/s, cut at 1.5 times that: on the road still."""
        lateral, yaw, speed = np.clip(random.standard_normal(3), -1.5, 1.5) * (0.35, 0.04, 0.8)
        return cls(float(lateral), float(yaw), float(speed))


class World:
    """One scenario being driven. The ego's driver, expert or policy, is outside: it gives a command for every step."""

    def __init__(self, scenario: Scenario, start_error: StartError | None = None) -> None:
        self.scenario = scenario
        self.time_ns = 0
        error = start_error or StartError()
        x, y, yaw = scenario.route.path.pose(scenario.start_s, error.lateral)
        speed = max(0.0, scenario.start_speed + error.speed)
        self.ego = Ego(x, y, float(wrap_angle(yaw + error.yaw)), speed)
        self.traffic = Traffic(scenario.stage, self.ego)
        self._trail: tuple[tuple[int, float, float, float], ...] = ((0, self.ego.x, self.ego.y, self.ego.yaw),)

    def step(self, dt: float, command: EgoCommand) -> None:
        """Moves everything by `dt` seconds (0.1 is what the rules of traffic are made for)."""
        ego = step_ego(self.ego, command, dt)
        self.traffic.step(dt)
        self.traffic.set_ego(ego)
        self.ego = ego
        self.time_ns += round(dt * 1e9)
        oldest = self.time_ns - (HISTORY_POINTS + 1) * HISTORY_STEP_NS
        kept = self._trail[1:] if self._trail[0][0] < oldest else self._trail
        self._trail = (*kept, (self.time_ns, ego.x, ego.y, ego.yaw))

    def copy(self) -> "World":
        """An independent world in the same state; the scenario is shared."""
        twin = object.__new__(World)
        twin.__dict__.update(self.__dict__)
        twin.traffic = self.traffic.copy()
        return twin

    @property
    def state(self) -> WorldState:
        """What is true now."""
        scenario = self.scenario
        return WorldState(
            self.time_ns, self.ego, self.traffic.actors(), scenario.road, scenario.appearance, self.command
        )

    @property
    def progress(self) -> float:
        """Metres along the route that base_link has come."""
        return float(self.traffic.view.s[0, -1]) - EGO_CENTRE_AHEAD

    @property
    def lateral(self) -> float:
        """Metres that the ego's middle is left of its route."""
        return float(self.traffic.view.lateral[0, -1])

    @property
    def command(self) -> Command:
        """The navigation command that holds now."""
        return self.scenario.route.command_at(self.progress)

    @property
    def finished(self) -> bool:
        """Whether the end of the route has been reached."""
        return self.progress >= self.scenario.goal_s

    def collision(self) -> Actor | None:
        """The actor that the ego touches now, if any."""
        hit = np.flatnonzero(overlaps(ego_box(self.ego), self.traffic.boxes()))
        return next((actor for actor in self.traffic.actors() if len(hit) and actor.id == hit[0]), None)

    def off_road(self) -> bool:
        """Whether a corner of the ego is off the drivable area."""
        return not self.scenario.queries.box_on_road(ego_box(self.ego))

    def ego_state(self) -> EgoState:
        """What odometry tells a policy, which holds no steering.

        Before the start the ego came as it goes now, which is not called observed.
        """
        ego = self.ego
        lateral = ego.speed * ego.yaw_rate
        return EgoState(
            stamp_ns=self.time_ns,
            base_to_world=ego.base_to_world,
            velocity=np.array([ego.speed, 0.0, 0.0]),
            acceleration=np.array([ego.acceleration, lateral, 0.0]),
            angular_velocity=np.array([0.0, 0.0, ego.yaw_rate]),
            history=self._history(),
            history_observed=min(HISTORY_POINTS, self.time_ns // HISTORY_STEP_NS),
            steering=kinematic_steering(ego.speed, ego.yaw_rate),
            world_frame=WORLD_FRAME,
        )

    def _history(self) -> Array:
        """[4, 3] x, y, yaw 2.0, 1.5, 1.0, 0.5 s ago in base_link now."""
        trail = np.array(self._trail)
        trail[:, 3] = np.unwrap(trail[:, 3])
        times = self.time_ns - HISTORY_STEP_NS * np.arange(HISTORY_POINTS, 0, -1)
        x, y, yaw = (np.interp(times, trail[:, 0], trail[:, k]) for k in (1, 2, 3))
        before = np.maximum(0.0, (trail[0, 0] - times) * 1e-9) * self.scenario.start_speed
        x, y = x - before * np.cos(yaw), y - before * np.sin(yaw)
        cosine, sine = np.cos(self.ego.yaw), np.sin(self.ego.yaw)
        dx, dy = x - self.ego.x, y - self.ego.y
        return np.column_stack([dx * cosine + dy * sine, dy * cosine - dx * sine, wrap_angle(yaw - self.ego.yaw)])
