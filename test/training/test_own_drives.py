"""Drives for a policy to learn from: what it met, and what the expert would have done there."""

from itertools import pairwise
from pathlib import Path

import numpy as np

from opendrivevla_ros.core.geometry import invert
from opendrivevla_ros.datasets.drive_store import DriveStore
from opendrivevla_ros.datasets.world_samples import NoPictures
from opendrivevla_ros.policies.registry import load_policy
from opendrivevla_ros.training.own_drives import EXPERT_SAMPLES, draw_own_drives, own_drive
from opendrivevla_ros.training.world_drives import eyes_of
from opendrivevla_ros.world.rig import nuscenes_rig

IMAGE_SIZE = (96, 54)
NUMBER = 9  # a crossing pedestrian, whom constant velocity does not see


def test_what_a_policy_meets_is_kept_with_what_the_expert_would_do_there():
    found = own_drive(NUMBER, load_policy("constant_velocity"), eyes_of(IMAGE_SIZE))
    speeds = [one.sample.observation.ego.speed for one in found]
    assert speeds[-1] > 0.8 * speeds[0]
    assert min(np.abs(one.sample.future[-1]).max() / max(speeds[0], 0.1) for one in found[-5:]) < 2.0  # it brakes
    assert all(len(one.sample.observation.frames) == 6 for one in found)


def test_a_drive_without_pictures_is_the_same_drive():
    policy = load_policy("constant_velocity")
    seen = own_drive(NUMBER, policy, eyes_of(IMAGE_SIZE))
    unseen = own_drive(NUMBER, policy, NoPictures(nuscenes_rig(*IMAGE_SIZE)))
    assert len(seen) == len(unseen) > 1
    for one, other in zip(seen, unseen, strict=True):
        assert other.sample.observation.frames == ()
        assert one.words == other.words
        np.testing.assert_array_equal(one.sample.future, other.sample.future)


def test_the_experts_own_drive_goes_where_its_future_said(tmp_path: Path):
    assert list(draw_own_drives(tmp_path, None, [4], image_size=None, processes=1)) == [0.0, 1.0]
    found = [stored.sample for stored in DriveStore(tmp_path).read(0, cameras=())]
    assert [one.index for one in found] == list(range(len(found)))
    assert 10 < len(found) <= EXPERT_SAMPLES
    for before, after in pairwise(found):
        moved = invert(before.observation.ego.base_to_world) @ after.observation.ego.base_to_world
        np.testing.assert_allclose(moved[:2, 3], before.future[0, :2], atol=1e-6)
