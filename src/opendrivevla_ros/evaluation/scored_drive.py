"""A policy at the wheel in one scenario, and the driver score of every plan that it drives by."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from opendrivevla_ros.core.plan import ThinkingMode
from opendrivevla_ros.core.policy import DrivingPolicy
from opendrivevla_ros.datasets.world_samples import world_observation
from opendrivevla_ros.evaluation.driver_score import driver_score
from opendrivevla_ros.evaluation.world_scenes import SCORED_S, Scene, renderer_for
from opendrivevla_ros.evaluation.world_score import world_scene
from opendrivevla_ros.world.expert import roll_out
from opendrivevla_ros.world.families import make_scenario
from opendrivevla_ros.world.outcome import drive
from opendrivevla_ros.world.policy_driver import PolicyDriver
from opendrivevla_ros.world.simulation import World
from opendrivevla_ros.world.vehicle import EgoCommand

NORMAL_QUANTILE = 1.959964  # of 97.5 %


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval, which is not finite for the mean of a single value."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Interval":
        """Of one or more values."""
        numbers = np.array(values)
        mean = float(numbers.mean())
        half = NORMAL_QUANTILE * float(numbers.std(ddof=1)) / len(numbers) ** 0.5 if len(numbers) > 1 else np.inf
        return cls(mean, mean - half, mean + half)


@dataclass(frozen=True)
class ScoredDrive:
    """score: mean driver score of the plans that were asked for, 0 for one that did not come. passed, collided: how
    the drive went. slow: share of the plans that came after a thought. plan_seconds: of a plan, mean.
    """

    score: float
    passed: bool
    collided: bool
    slow: float
    plan_seconds: float


def score_drive(policy: DrivingPolicy, scene: Scene) -> ScoredDrive:
    """Has a policy drive a scenario to its end."""
    renderer = renderer_for(policy)
    driver = PolicyDriver(policy, lambda world: world_observation(world, renderer))
    scores: list[float] = []
    slow: list[bool] = []

    def scored(world: World) -> EgoCommand:
        plans, calls = driver.plans, len(driver.plan_seconds)
        command = driver(world)
        if driver.plans > plans and driver.plan is not None:
            scene = world_scene(world, roll_out(world))
            scores.append(driver_score(driver.plan.trajectory, scene, horizon_s=SCORED_S).score)
            slow.append(driver.plan.reasoning.actual_mode is ThinkingMode.SLOW)
        elif len(driver.plan_seconds) > calls:
            scores.append(0.0)
        return command

    outcome = drive(World(make_scenario(scene.family, scene.seed)), scored)
    return ScoredDrive(
        score=float(np.mean(scores)),
        passed=outcome.passed,
        collided=outcome.collision is not None,
        slow=float(np.mean(slow)) if slow else 0.0,
        plan_seconds=float(np.mean(driver.plan_seconds)),
    )
