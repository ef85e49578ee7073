"""A policy at the wheel: it plans from what it sees twice a second, and a tracking controller follows the plan."""

import time
from collections import Counter
from collections.abc import Callable

import numpy as np

from opendrivevla_ros.core.geometry import Array, apply
from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.plan import Plan, PlanError
from opendrivevla_ros.core.policy import DrivingPolicy
from opendrivevla_ros.world.simulation import World
from opendrivevla_ros.world.tracking import STOPPING_DECELERATION, TrajectoryTracker
from opendrivevla_ros.world.vehicle import EgoCommand

REPLAN_NS = 500_000_000


class PolicyDriver:
    """The commands of a policy's plans; make one for each drive.

    The policy sees nothing but its observations. It drives from the first instant, when it has one set of pictures
    and a motion history that `EgoState.history_observed` calls unobserved: there is no warm-up, as a vehicle that
    switches it on gives none. The world waits while it plans. Without a new plan the last one goes on and is braked
    to a stop past its end; before there is any, the ego brakes.
    """

    def __init__(self, policy: DrivingPolicy, observe: Callable[[World], Observation]) -> None:
        self._policy, self._observe = policy, observe
        self._tracker: TrajectoryTracker | None = None
        self.plans = 0
        self.failures: Counter[str] = Counter()
        self.plan_seconds: list[float] = []
        self.last_plan: Array | None = None
        self.plan: Plan | None = None  # the last one
        policy.reset()

    def __call__(self, world: World) -> EgoCommand:
        """The command at this instant."""
        if world.time_ns % REPLAN_NS == 0:
            self._replan(world)
        if self._tracker is None:
            return EgoCommand(-STOPPING_DECELERATION, world.ego.steering)
        return self._tracker.command(world.ego, world.time_ns)

    def _replan(self, world: World) -> None:
        observation = self._observe(world)
        started = time.perf_counter()
        try:
            self.plan = plan = self._policy.plan(observation)
        except PlanError as error:
            self.failures[error.failure.name.lower()] += 1
            return
        finally:
            self.plan_seconds.append(time.perf_counter() - started)
        self.plans += 1
        pose = world.ego.base_to_world
        trajectory = plan.trajectory
        self._tracker = TrajectoryTracker(trajectory, pose, world.time_ns)
        self.last_plan = apply(pose, np.column_stack([trajectory.xy, np.zeros(len(trajectory))]))[:, :2]
