"""Samples for the ego-state-only policy, and its training."""

from pathlib import Path

import numpy as np
import pytest

from opendrivevla_ros.core.ego import DrivingCommand
from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.rig import CameraRig
from opendrivevla_ros.policies.baselines import TIMES, continued_arc
from opendrivevla_ros.policies.registry import load_policy
from opendrivevla_ros.training.ego_state import (
    DRIVE_SAMPLES,
    EgoSample,
    draw_ego_samples,
    drive_samples,
    train_ego_state,
)
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.world.expert import expert_command, roll_out
from opendrivevla_ros.world.families import make_scenario
from opendrivevla_ros.world.simulation import StartError, World


@pytest.fixture(scope="module")
def samples() -> list[EgoSample]:
    return list(draw_ego_samples(400))


def test_the_future_of_a_sample_is_the_experts_from_there() -> None:
    error = StartError(0.3, 0.02, -0.5)
    drawn = drive_samples(World(make_scenario("junction_left", 3), error))
    assert 0 < len(drawn) <= DRIVE_SAMPLES
    world = World(make_scenario("junction_left", 3), error)
    for sample in drawn[:8]:
        np.testing.assert_allclose(sample.future, roll_out(world).ego_in_base, atol=1e-9)
        assert sample.command is world.command
        assert sample.ego.stamp_ns == world.time_ns
        for _ in range(5):
            world.step(0.1, expert_command(world))


def test_samples_are_the_same_for_the_same_seed_which_draws_the_start_errors(samples) -> None:
    again = list(draw_ego_samples(60))
    for one, other in zip(samples, again, strict=False):
        np.testing.assert_array_equal(one.future, other.future)
    other = list(draw_ego_samples(60, seed=1))
    differs = [not np.array_equal(one.future, two.future) for one, two in zip(samples, other, strict=False)]
    assert any(differs)
    assert not all(differs)
    assert len(samples) == 400


def test_a_trained_policy_beats_constant_velocity_on_what_it_saw(samples, tmp_path: Path) -> None:
    error = train_ego_state(samples, tmp_path / "ego", steps=300)
    policy = load_policy(tmp_path / "ego")
    assert "400 samples" in (tmp_path / "ego" / "README.md").read_text()
    distances = []
    for sample in samples:
        observation = Observation(0, (), CameraRig(()), sample.ego, DrivingCommand(sample.command, "", False))
        plan = policy.plan(observation).trajectory.xy
        arc = continued_arc(sample.ego, TIMES)
        distances.append([np.hypot(*(path - sample.future[:, :2]).T).mean() for path in (plan, arc)])
    own, straight = np.mean(distances, axis=0)
    assert own < 0.7 * straight
    assert error == pytest.approx(own, rel=0.5)


def test_training_again_gives_the_same_weights(samples, tmp_path: Path) -> None:
    for name in ("a", "b"):
        train_ego_state(samples[:50], tmp_path / name, steps=20, seed=4)
    train_ego_state(samples[:50], tmp_path / "c", steps=20, seed=5)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b", "c")]
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


def test_nothing_to_learn_from_is_refused(samples, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="there are no samples"):
        train_ego_state([], tmp_path / "ego")
    broken = samples[0]._replace(future=np.full((6, 3), np.nan))
    with pytest.raises(TrainingError, match="not finite"):
        train_ego_state([samples[1], broken], tmp_path / "ego")
    assert not (tmp_path / "ego").exists()
