"""A learner that reads the truth: what it learns from, and what it does at the wheel."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from opendrivevla_ros.core.geometry import invert
from opendrivevla_ros.datasets.drive_store import DriveStore
from opendrivevla_ros.datasets.world_samples import NoPictures
from opendrivevla_ros.policies.opendrivevla.config import small_perception
from opendrivevla_ros.training.frame_labels import plan_label
from opendrivevla_ros.training.language_samples import true_features
from opendrivevla_ros.training.learner import Learner, LearnerPolicy, load_learner
from opendrivevla_ros.training.moments import Moment
from opendrivevla_ros.training.own_drives import EXPERT_SAMPLES, draw_own_drives, own_drive
from opendrivevla_ros.training.world_drives import eyes_of, stretches
from opendrivevla_ros.world.rig import nuscenes_rig
from opendrivevla_ros.world.seeds import Split

CONFIG = small_perception()
IMAGE_SIZE = (96, 54)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> DriveStore:
    folder = tmp_path_factory.mktemp("drives")
    for part, found in enumerate(stretches(6, Split.TRAIN, eyes_of(IMAGE_SIZE))):  # a stopped lead
        DriveStore(folder).write(f"train000006-{part}", found)
    return DriveStore(folder)


def moments_of(store: DriveStore) -> list[Moment]:
    stored = [one for index in range(len(store.names)) for one in store.read(index, pictures=False)]
    return [Moment(true_features(one, CONFIG), plan_label(one.sample)) for one in stored]


def test_it_learns_what_the_expert_did(store: DriveStore):
    moments = moments_of(store)
    torch.manual_seed(0)
    learner = Learner(CONFIG)
    optimiser = torch.optim.Adam(learner.parameters(), 3e-3)
    batch = [moments[index] for index in range(len(moments))]
    first = None
    for _ in range(60):
        loss = learner(batch)["plan"]
        first = first or loss.item()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < first / 4


def test_its_plan_does_not_depend_on_who_else_is_asked(store: DriveStore):
    moments = moments_of(store)
    learner = Learner(CONFIG).eval()
    alone = learner.path(moments[2])
    with torch.no_grad():
        together = learner([moments[0], moments[2]])["plan"], learner([moments[2], moments[0]])["plan"]
    assert together[0].item() == pytest.approx(together[1].item(), rel=1e-5)
    np.testing.assert_allclose(alone, learner.path(moments[2]))


def test_at_the_wheel_it_reads_the_recorded_truth_and_all_it_meets_is_kept(tmp_path: Path):
    learner = Learner(CONFIG)
    for layer in (learner.query.plan.path, learner.query.plan.going_on[-1]):  # it plans to stand
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    read = []

    class Reading(LearnerPolicy):
        def waypoints(self, observation):
            read.append(self._record[-1].sample.observation is observation)
            return super().waypoints(observation)

    found = own_drive(4, lambda record: Reading(learner, record), eyes_of(IMAGE_SIZE))
    assert read == [True] * len(found)
    assert found[-1].sample.observation.ego.speed < 0.5
    assert max(np.abs(one.sample.future).max() for one in found[-5:]) > 1.0  # the expert would drive on


def test_a_learners_drives_are_drawn_from_its_weights(tmp_path: Path):
    torch.manual_seed(2)
    torch.save(Learner(CONFIG).state_dict(), weights := tmp_path / "weights.pt")
    assert isinstance(load_learner(weights, CONFIG), Learner)
    folder = tmp_path / "own"
    shares = draw_own_drives(
        folder, weights, first=4, scenarios=1, image_size=IMAGE_SIZE, processes=1, stage="learner"
    )
    assert list(shares) == [0.0, 1.0]
    (length,) = DriveStore(folder).lengths
    assert length > 1


def test_a_drive_without_pictures_is_the_same_drive(tmp_path: Path):
    torch.manual_seed(2)
    learner = Learner(CONFIG)
    seen = own_drive(4, lambda record: LearnerPolicy(learner, record), eyes_of(IMAGE_SIZE))
    unseen = own_drive(4, lambda record: LearnerPolicy(learner, record), NoPictures(nuscenes_rig(*IMAGE_SIZE)))
    assert len(seen) == len(unseen) > 1
    for one, other in zip(seen, unseen, strict=True):
        assert len(one.sample.observation.frames) == 6
        assert other.sample.observation.frames == ()
        assert one.words == other.words
        np.testing.assert_array_equal(one.sample.future, other.sample.future)
        truths = true_features(one, CONFIG), true_features(other, CONFIG)
        for name in ("agents", "map_elements"):
            assert torch.equal(*(getattr(truth, name) for truth in truths))


def test_the_experts_own_drive_goes_where_its_future_said(tmp_path: Path):
    assert list(draw_own_drives(tmp_path, None, first=4, scenarios=1, image_size=None, processes=1)) == [0.0, 1.0]
    found = [stored.sample for stored in DriveStore(tmp_path).read(0, pictures=False)]
    assert [one.index for one in found] == list(range(len(found)))
    assert 10 < len(found) <= EXPERT_SAMPLES
    for before, after in pairwise(found):
        moved = invert(before.observation.ego.base_to_world) @ after.observation.ego.base_to_world
        np.testing.assert_allclose(moved[:2, 3], before.future[0, :2], atol=1e-6)
