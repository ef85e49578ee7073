"""What perception saw of stored drives comes back from the disk as it was."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from opendrivevla_ros.datasets.drive_store import DriveStore
from opendrivevla_ros.perception.network import PerceptionNetwork
from opendrivevla_ros.policies.opendrivevla.config import OpenDriveVlaConfig, small_perception
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.language_samples import SpokenSample, spoken, true_features
from opendrivevla_ros.training.seen_tokens import load_tokens, see, see_drives
from opendrivevla_ros.training.world_drives import eyes_of, stretches
from opendrivevla_ros.world.seeds import Split

PERCEPTION = small_perception()
CONFIG = replace(OpenDriveVlaConfig(), perception=PERCEPTION, heading_as_trained=False, tells_past=False)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> DriveStore:
    folder = tmp_path_factory.mktemp("drives")
    stretch = next(iter(stretches(6, Split.TRAIN, eyes_of(PERCEPTION.image_size))))  # a stopped lead
    unknown = stretch[-1].sample
    unknown = replace(unknown, future_mask=np.zeros_like(unknown.future_mask))
    DriveStore(folder).write("one", [*stretch[:3], replace(stretch[-1], sample=unknown)])
    DriveStore(folder).write("two", stretch[3:5])
    return DriveStore(folder)


def numbers(sample: SpokenSample) -> list[Tensor | None]:
    """Every number of a sample; features in half precision, as they are kept."""
    plan = sample.plan
    features = [getattr(sample.features, field.name) for field in fields(sample.features)]
    kept = [None if block is None else block.half() for block in features]
    return [*kept, sample.ahead, *([None] if plan is None else [plan.ego, plan.path, plan.known])]


def assert_same(found: list[SpokenSample], wanted: list[SpokenSample]) -> None:
    assert [(one.scene, one.tasks, one.departure) for one in found] == [
        (one.scene, one.tasks, one.departure) for one in wanted
    ]
    for one, other in zip(found, wanted, strict=True):
        for mine, its in zip(numbers(one), numbers(other), strict=True):
            assert (mine is None) == (its is None)
            if mine is not None and its is not None:
                assert mine.dtype == its.dtype
                torch.testing.assert_close(mine, its, rtol=0, atol=0)


@torch.inference_mode()
def test_what_was_seen_comes_back_as_it_was(store: DriveStore, tmp_path: Path):
    torch.manual_seed(0)
    network = PerceptionNetwork(PERCEPTION).eval()
    assert list(see_drives(store, tmp_path, CONFIG, network.state_dict(), processes=1)) == [0.0, 0.5, 1.0]
    wanted = [one for index in range(len(store.names)) for one in see(network, CONFIG, store.read(index))]
    assert any(one.plan is None for one in wanted)
    assert any(one.plan is not None for one in wanted)
    assert_same(load_tokens(tmp_path), wanted)
    assert list(see_drives(store, tmp_path, CONFIG, network.state_dict(), processes=1)) == [1.0]


@torch.inference_mode()
def test_what_other_weights_have_seen_is_not_kept(store: DriveStore, tmp_path: Path):
    first, other = (PerceptionNetwork(PERCEPTION).eval() for _ in range(2))
    list(see_drives(store, tmp_path, CONFIG, first.state_dict(), processes=1))
    assert list(see_drives(store, tmp_path, CONFIG, other.state_dict(), processes=1)) == [0.0, 0.5, 1.0]
    wanted = [one for index in range(len(store.names)) for one in see(other, CONFIG, store.read(index))]
    assert_same(load_tokens(tmp_path), wanted)


def test_so_does_the_truth(store: DriveStore, tmp_path: Path):
    list(see_drives(store, tmp_path, CONFIG, None, processes=1))
    stored = [one for index in range(len(store.names)) for one in store.read(index, cameras=())]
    assert_same(load_tokens(tmp_path), [spoken(one, true_features(one, PERCEPTION), CONFIG) for one in stored])


def test_a_folder_of_nothing_is_told(tmp_path: Path):
    with pytest.raises(TrainingError, match=f"{tmp_path} holds no drives that were seen; look at them first"):
        load_tokens(tmp_path)
