"""The ego motion of a scene: the CAN bus near a keyframe, differences without one, and the published command."""

import json
from pathlib import Path

import numpy as np
import pytest

from opendrivevla_ros.core.ego import Command
from opendrivevla_ros.core.geometry import NUSCENES_LIDAR_TO_BASE, planar_transform
from opendrivevla_ros.datasets.nuscenes_motion import SceneMotion, published_command, read_can_bus

STEP_NS = 500_000_000
START_NS = 1_600_000_000_000_000_000


def can_bus(root: Path, stamps_ns: list[int], speed: float) -> None:
    folder = root / "can_bus"
    folder.mkdir()
    messages = [
        {"utime": stamp // 1000, "vel": [speed, 0, 0], "accel": [0.5, 0, 9.81], "rotation_rate": [0, 0, 0.1]}
        for stamp in stamps_ns
    ]
    (folder / "scene-0001_pose.json").write_text(json.dumps(messages))
    steering = [{"utime": stamp // 1000, "value": 1.5} for stamp in stamps_ns]
    (folder / "scene-0001_steeranglefeedback.json").write_text(json.dumps(steering))


def motion(root: Path, speeds: list[float]) -> SceneMotion:
    """Straight on, each speed held for half a second."""
    along = np.cumsum([0.0, *speeds]) * STEP_NS / 1e9
    stamps = [START_NS + index * STEP_NS for index in range(len(along))]
    return SceneMotion(stamps, np.stack([planar_transform(x, 0, 0) for x in along]), read_can_bus(root, "scene-0001"))


def test_the_can_bus_counts_where_a_message_is_near(tmp_path: Path) -> None:
    can_bus(tmp_path, [START_NS + 30_000_000, START_NS + STEP_NS + 70_000_000], 7.0)
    scene = motion(tmp_path, [5.0, 6.0])
    near, far = scene.ego_state(0), scene.ego_state(1)
    np.testing.assert_allclose(near.velocity, [7, 0, 0])
    np.testing.assert_allclose(near.acceleration, [0.5, 0, 0])
    assert near.steering == pytest.approx(0.1)  # a steering wheel 1.5 rad to the left
    np.testing.assert_allclose(far.velocity, [5, 0, 0])
    assert far.steering == 0.0


def test_differences_look_back_and_never_ahead(tmp_path: Path) -> None:
    scene = motion(tmp_path, [4.0, 6.0, 20.0])
    np.testing.assert_allclose(scene.ego_state(1).velocity, [4, 0, 0])
    np.testing.assert_allclose(scene.ego_state(2).velocity, [6, 0, 0])
    np.testing.assert_allclose(scene.ego_state(2).acceleration, [4, 0, 0])
    np.testing.assert_allclose(scene.ego_state(0).velocity, [4, 0, 0])  # the first has nothing to look back to


def test_history_continues_backwards_what_is_known(tmp_path: Path) -> None:
    scene = motion(tmp_path, [4.0, 6.0])
    ego = scene.ego_state(2)
    assert ego.history_observed == 2
    np.testing.assert_allclose(ego.history[:, 0], [-9.0, -7.0, -5.0, -3.0])


@pytest.mark.parametrize(
    ("left", "command"),
    [
        (2.1, Command.TURN_LEFT),
        (1.9, Command.KEEP_FORWARD),
        (-1.9, Command.KEEP_FORWARD),
        (-2.1, Command.TURN_RIGHT),
    ],
)
def test_the_published_command_is_where_the_last_driven_point_lies(left: float, command: Command) -> None:
    future = np.zeros((6, 3))
    future[:3] = [10.0, left, 0.0]
    mask = np.array([True] * 3 + [False] * 3)
    assert published_command(future, mask, NUSCENES_LIDAR_TO_BASE) is command
    assert published_command(future, np.zeros(6, dtype=bool), NUSCENES_LIDAR_TO_BASE) is Command.KEEP_FORWARD


def test_the_published_command_is_about_the_lidar_which_swings_out_ahead() -> None:
    future = np.tile([5.0, 1.5, 0.8], (6, 1))  # the lidar sits 0.94 m ahead: 1.5 + 0.94 sin 0.8 = 2.18
    assert published_command(future, np.ones(6, dtype=bool), NUSCENES_LIDAR_TO_BASE) is Command.TURN_LEFT
