"""The ego-state-only policy: what it learns from, and that it does."""

import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from training.blind_samples import blind_samples

from opendrivevla_ros.core.trajectory import FUTURE_TIMES_S
from opendrivevla_ros.datasets.drive_store import DriveStore, StoredSample, Words
from opendrivevla_ros.datasets.driving_samples import DrivingSample
from opendrivevla_ros.policies.baselines import continued_arc
from opendrivevla_ros.policies.registry import load_policy
from opendrivevla_ros.training.ego_state import ego_samples, train_ego_state
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.world_drives import draw_drives
from opendrivevla_ros.world.seeds import Split


@pytest.fixture(scope="module")
def samples() -> list[DrivingSample]:
    return blind_samples(400)


def test_it_learns_from_the_very_drives_that_others_learn_from(tmp_path: Path) -> None:
    for name, size in (("with", (64, 36)), ("without", None)):
        list(draw_drives(tmp_path / name, scenarios=2, split=Split.TRAIN, image_size=size, processes=1))
    seen, blind = (list(ego_samples(DriveStore(tmp_path / name))) for name in ("with", "without"))
    assert len(blind) > 12
    for one, other in zip(seen, blind, strict=True):
        assert one.token == other.token
        np.testing.assert_array_equal(one.future, other.future)
        np.testing.assert_array_equal(one.observation.ego.history, other.observation.ego.history)
        assert one.observation.command == other.observation.command


def test_a_moment_whose_future_is_not_wholly_known_is_left_out(samples, tmp_path: Path) -> None:
    cut = replace(samples[1], future_mask=np.arange(6) < 5)
    DriveStore(tmp_path).write("some", [StoredSample(one, Words()) for one in (samples[0], cut, samples[2])])
    found = ego_samples(DriveStore(tmp_path))
    assert [one.token for one in found] == [samples[0].token, samples[2].token]


def test_a_trained_policy_beats_constant_velocity_on_what_it_saw(samples, tmp_path: Path) -> None:
    error = train_ego_state(samples, tmp_path / "ego", source="train", steps=300)
    policy = load_policy(tmp_path / "ego")
    assert "400 samples" in (tmp_path / "ego" / "README.md").read_text()
    distances = []
    for sample in samples:
        plan = policy.plan(sample.observation).trajectory.xy
        arc = continued_arc(sample.observation.ego, FUTURE_TIMES_S)
        distances.append([np.hypot(*(path - sample.future[:, :2]).T).mean() for path in (plan, arc)])
    own, straight = np.mean(distances, axis=0)
    assert own < 0.7 * straight
    assert error == pytest.approx(own, rel=0.5)


def test_samples_are_let_go_as_they_are_read(samples, tmp_path: Path) -> None:
    given: list[weakref.ref[DrivingSample]] = []

    def read() -> Iterator[DrivingSample]:
        for sample in samples[:8]:
            copy = replace(sample)
            given.append(weakref.ref(copy))
            yield copy
            del copy
            assert sum(one() is not None for one in given) <= 1

    train_ego_state(read(), tmp_path / "ego", source="train", steps=1)
    assert len(given) == 8


def test_training_again_gives_the_same_weights(samples, tmp_path: Path) -> None:
    for name in ("a", "b"):
        train_ego_state(samples[:50], tmp_path / name, source="train", steps=20, seed=4)
    train_ego_state(samples[:50], tmp_path / "c", source="train", steps=20, seed=5)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b", "c")]
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


def test_nothing_to_learn_from_is_refused(samples, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="there are no samples"):
        train_ego_state([], tmp_path / "ego", source="train")
    broken = replace(samples[0], future=np.full((6, 3), np.nan))
    with pytest.raises(TrainingError, match="not finite"):
        train_ego_state([samples[1], broken], tmp_path / "ego", source="train")
    assert not (tmp_path / "ego").exists()
