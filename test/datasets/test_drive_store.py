"""A store gives back what was written, whole or with a sentence."""

from pathlib import Path

import numpy as np
import pytest

from opendrivevla_ros.datasets.drive_store import DriveStore, StoredSample, Words
from opendrivevla_ros.datasets.nuscenes_tables import DatasetError
from opendrivevla_ros.datasets.world_samples import WorldSampler
from opendrivevla_ros.world.families import make_scenario
from opendrivevla_ros.world.renderer import Renderer
from opendrivevla_ros.world.rig import nuscenes_rig

WORDS = Words((("scene", "What is there?", "A street."),), (("count", "How many cars?", "0."),))


@pytest.fixture(scope="module")
def stretch() -> list[StoredSample]:
    sampler = WorldSampler(make_scenario("free_road", 3), Renderer(nuscenes_rig(96, 54)))
    return [StoredSample(sample, WORDS) for sample in sampler.drive(3)]


def test_what_was_written_comes_back_with_pictures_as_jpeg_shows_them(stretch: list[StoredSample], tmp_path: Path):
    DriveStore(tmp_path).write("drive", stretch)
    store = DriveStore(tmp_path)
    assert (store.names, store.lengths) == (["drive-3"], [3])
    found = store.read(0)
    assert [one.words for one in found] == [WORDS] * 3
    for before, after in zip(stretch, found, strict=True):
        assert (before.sample.token, before.sample.index) == (after.sample.token, after.sample.index)
        np.testing.assert_array_equal(before.sample.future, after.sample.future)
        for old, new in zip(before.sample.observation.frames, after.sample.observation.frames, strict=True):
            assert new.image.shape == old.image.shape
            assert np.abs(new.image.astype(int) - old.image).mean() < 4


def test_a_part_of_a_stretch_is_read_and_pictures_only_where_wanted(stretch: list[StoredSample], tmp_path: Path):
    DriveStore(tmp_path).write("drive", stretch)
    (only,) = DriveStore(tmp_path).read(0, 1, 2, cameras=())
    assert only.sample.token == stretch[1].sample.token
    assert only.sample.observation.frames == ()
    (only,) = DriveStore(tmp_path).read(0, 1, 2, cameras=("cam_back", "cam_front"))
    assert {frame.camera for frame in only.sample.observation.frames} == {"cam_back", "cam_front"}


def test_stretches_come_by_name(stretch: list[StoredSample], tmp_path: Path):
    for name in ("b", "a", "c"):
        DriveStore(tmp_path).write(name, stretch[:1])
    assert DriveStore(tmp_path).names == ["a-1", "b-1", "c-1"]


def test_a_cut_off_stretch_is_named_with_what_to_do(stretch: list[StoredSample], tmp_path: Path):
    DriveStore(tmp_path).write("drive", stretch)
    path = tmp_path / "drive-3.drive"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DatasetError, match=r"drive-3\.drive is no whole drive; delete it and draw it anew"):
        DriveStore(tmp_path).read(0)


def test_a_disk_that_fills_leaves_nothing_half_written(
    stretch: list[StoredSample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(path: Path, data: bytes) -> int:
        path.open("wb").write(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DatasetError, match=r"drive drive cannot be written to .* \(No space left on device\)"):
        DriveStore(tmp_path).write("drive", stretch)
    assert list(tmp_path.iterdir()) == []
