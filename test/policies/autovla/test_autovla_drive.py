"""The whole chain: a tiny random AutoVLA at the wheel of the world. It plans; where it goes is chance."""

from collections.abc import Iterator

import numpy as np
import pytest
from policies.autovla.tiny import tiny_model, tiny_policy

from opendrivevla_ros.core.plan import ThinkingMode
from opendrivevla_ros.core.policy import ThinkingLimits
from opendrivevla_ros.datasets.world_samples import WorldSampler
from opendrivevla_ros.evaluation.confidence import record_confidence
from opendrivevla_ros.evaluation.world_open_loop import open_loop_result
from opendrivevla_ros.evaluation.world_scenes import Scene, record_scene
from opendrivevla_ros.world.families import make_scenario
from opendrivevla_ros.world.outcome import STEP_S
from opendrivevla_ros.world.policy_driver import PolicyDriver
from opendrivevla_ros.world.renderer import Renderer
from opendrivevla_ros.world.rig import nuscenes_rig
from opendrivevla_ros.world.simulation import World

SECONDS = 3.0


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    return Renderer(nuscenes_rig(112, 63))


@pytest.mark.parametrize("mode", ThinkingMode)
def test_it_drives_a_few_seconds_on_its_own_plans(renderer: Renderer, mode: ThinkingMode) -> None:
    scenario = make_scenario("oncoming", 9)
    sampler, world = WorldSampler(scenario, renderer), World(scenario)
    policy = tiny_policy(tiny_model(seed=1), thinking=ThinkingLimits(max_tokens=8))
    policy.set_thinking_mode(mode)
    driver = PolicyDriver(policy, lambda now: sampler.sample(now, 0).observation)
    start = np.array([world.ego.x, world.ego.y])
    for _ in range(round(SECONDS / STEP_S)):
        if world.finished:
            break
        world.step(STEP_S, driver(world))
    assert driver.failures == {}
    assert driver.plans >= 2
    assert driver.last_plan.shape == (10, 2)
    assert np.hypot(*(np.array([world.ego.x, world.ego.y]) - start)) > 0.5


def test_its_plans_are_scored_in_open_loop_and_for_their_confidence(renderer: Renderer) -> None:
    scene = Scene("oncoming", 109)
    policy = tiny_policy()
    record = record_scene(scene, {"autovla": policy}, renderer, samples=2)
    scores = open_loop_result([record], "autovla").policies["autovla"]
    assert (scores.samples, scores.failures) == (2, 0)
    assert scores.mean_displacement > 0.0
    found = record_confidence(scene, policy)
    assert len(found) >= 10
    assert all(plan.doubt.spread is not None for plan in found)
