"""The loader on an export, and what it says about data sets that are broken."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from opendrivevla_ros.core.ego import Command
from opendrivevla_ros.core.geometry import apply, invert, yaw_of
from opendrivevla_ros.core.rig import CAMERA_NAMES
from opendrivevla_ros.datasets.driving_samples import DrivingSample
from opendrivevla_ros.datasets.nuscenes_export import ExportFrame, ExportScene, export_nuscenes
from opendrivevla_ros.datasets.nuscenes_scenes import NuScenesScenes
from opendrivevla_ros.datasets.nuscenes_tables import DatasetError

VERSION = "v1.0-world"
SIZE = (96, 54)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, make_scene: Callable[..., ExportScene]) -> Path:
    root = tmp_path_factory.mktemp("data") / "set"
    export_nuscenes(root, [make_scene("first", "world_train"), make_scene("second", "world_val")])
    return root


@pytest.fixture(scope="module")
def frames(make_scene: Callable[..., ExportScene]) -> list[ExportFrame]:
    return list(make_scene().frames)


@pytest.fixture(scope="module")
def samples(root: Path) -> list[DrivingSample]:
    return list(next(iter(NuScenesScenes(root, VERSION, image_size=SIZE, split="world_val"))))


def test_scenes_come_in_order_and_by_split(root: Path) -> None:
    scenes = NuScenesScenes(root, VERSION, image_size=SIZE, map_reach=None)
    assert scenes.names == ["scene-2001", "scene-2002"]
    assert [len(scene) for scene in scenes] == [8, 8]
    assert NuScenesScenes(root, VERSION, image_size=SIZE, split="world_val").names == ["scene-2002"]
    with pytest.raises(DatasetError, match="has no split 'world_test'; it and nuScenes have train"):
        NuScenesScenes(root, VERSION, image_size=SIZE, split="world_test")
    with pytest.raises(DatasetError, match=r"scene.json has no scene of the split 'mini_val'"):
        NuScenesScenes(root, VERSION, image_size=SIZE, split="mini_val")


def test_an_observation_comes_back_as_it_was_exported(samples, frames) -> None:
    for index, (sample, frame) in enumerate(zip(samples, frames, strict=True)):
        found, given = sample.observation, frame.observation
        assert sample.index == index
        assert found.stamp_ns == given.stamp_ns
        assert [picture.stamp_ns for picture in found.frames] == [picture.stamp_ns for picture in given.frames]
        assert found.command.command is Command.TURN_LEFT
        for picture, original in zip(found.frames, given.frames, strict=True):
            assert np.abs(picture.image.astype(int) - original.image).mean() < 3
        for camera, original in zip(found.rig.cameras, given.rig.cameras, strict=True):
            np.testing.assert_allclose(camera.intrinsics, original.intrinsics)
            np.testing.assert_allclose(camera.camera_to_base, original.camera_to_base, atol=1e-9)
        for name in ("velocity", "acceleration", "angular_velocity", "steering"):
            np.testing.assert_allclose(getattr(found.ego, name), getattr(given.ego, name), atol=1e-9)
        assert found.ego.history_observed == min(index, 4)
        if index >= 4:
            np.testing.assert_allclose(found.ego.history, given.ego.history, atol=1e-9)


def test_the_keyframes_that_follow_are_those_of_the_data_set_whenever_they_came(tmp_path: Path, root: Path) -> None:
    late = tmp_path / "set"
    shutil.copytree(root, late)
    path = late / VERSION / "sample.json"
    rows = json.loads(path.read_text())
    for row in rows[2:]:
        row["timestamp"] += 30_000  # as a sweep of the lidar more
    path.write_text(json.dumps(rows))
    for where in (root, late):
        scene = next(iter(NuScenesScenes(where, VERSION, image_size=SIZE, map_reach=None)))
        assert [len(scene.following(index)) for index in range(len(scene))] == [6, 6, 5, 4, 3, 2, 1, 0]
        first = scene[0].observation.ego.base_to_world
        for step, following in enumerate(scene.following(0), start=1):
            there = scene[step]
            pose = invert(first) @ there.observation.ego.base_to_world
            np.testing.assert_allclose(following.pose, [*pose[:2, 3], yaw_of(pose)], atol=1e-9)
            assert [agent.track_id for agent in following.agents] == [agent.track_id for agent in there.agents]
            for agent, own in zip(following.agents, there.agents, strict=True):
                np.testing.assert_allclose(agent.position, apply(pose, own.position), atol=1e-9)


def test_a_scenes_fingerprint_changes_with_what_the_tables_say_of_it_alone(tmp_path: Path, root: Path) -> None:
    before = NuScenesScenes(root, VERSION, image_size=SIZE, map_reach=None)
    assert before.fingerprint("scene-2001") != before.fingerprint("scene-2002")
    assert before.sample_tokens("scene-2001") == [sample.token for sample in before["scene-2001"]]
    changed = tmp_path / "set"
    shutil.copytree(root, changed)
    lidar = before.data(before.sample_tokens("scene-2002")[3], "LIDAR_TOP")
    for table, edit in (
        ("sample_annotation", lambda row: row["sample_token"] == lidar["sample_token"] and row.update(size=[1, 1, 1])),
        ("ego_pose", lambda row: row["token"] == lidar["ego_pose_token"] and row["translation"].reverse()),
    ):
        path = changed / VERSION / f"{table}.json"
        rows = json.loads(path.read_text())
        for row in rows:
            edit(row)
        path.write_text(json.dumps(rows))
        after = NuScenesScenes(changed, VERSION, image_size=SIZE, map_reach=None)
        assert after.fingerprint("scene-2001") == before.fingerprint("scene-2001")
        assert after.fingerprint("scene-2002") != before.fingerprint("scene-2002")
        shutil.copy(root / VERSION / f"{table}.json", path)


def test_scenes_of_the_split_that_are_not_there_are_named(tmp_path: Path, root: Path) -> None:
    less = tmp_path / "set"
    shutil.copytree(root, less)
    path = less / VERSION / "splits.json"
    path.write_text(json.dumps({"mine": ["scene-2002", "scene-0009", "scene-0003"]}))
    scenes = NuScenesScenes(less, VERSION, image_size=SIZE, split="mine", map_reach=None)
    assert (scenes.names, scenes.absent) == (["scene-2002"], ("scene-0003", "scene-0009"))


def test_the_future_is_what_was_driven_and_ends_with_the_scene(samples, frames) -> None:
    start = invert(frames[0].observation.ego.base_to_world)
    for step in range(6):
        pose = start @ frames[step + 1].observation.ego.base_to_world
        np.testing.assert_allclose(samples[0].future[step], [*pose[:2, 3], yaw_of(pose)], atol=1e-9)
    assert [int(sample.future_mask.sum()) for sample in samples] == [6, 6, 5, 4, 3, 2, 1, 0]
    assert not samples[6].future[1:].any()


def test_labels_stand_in_base_link_with_their_velocity_and_future(samples, frames) -> None:
    for sample, frame in zip(samples, frames, strict=True):
        to_base = invert(frame.observation.ego.base_to_world)
        for label, box in zip(sample.agents, frame.boxes, strict=True):
            np.testing.assert_allclose(label.position, apply(to_base, box.position), atol=1e-6)
            np.testing.assert_allclose(label.size, box.size)
            assert label.yaw == pytest.approx(box.yaw + yaw_of(to_base), abs=1e-6)
    assert [label.label for label in samples[2].agents] == ["car", "truck", "traffic_cone", "pedestrian"]
    lead, parked, *_ = samples[2].agents
    assert np.hypot(*lead.velocity) == pytest.approx(8.0, abs=0.05)
    np.testing.assert_allclose(parked.velocity, 0, atol=1e-9)
    assert lead.attribute == "vehicle.moving"
    np.testing.assert_allclose(parked.future[:5], np.tile(parked.position[:2], (5, 1)), atol=1e-9)
    assert lead.future_mask.tolist() == [True] * 5 + [False]


def test_tracks_keep_their_number_through_the_scene(samples) -> None:
    for label in ("car", "truck", "pedestrian"):
        numbers = {agent.track_id for sample in samples for agent in sample.agents if agent.label == label}
        assert len(numbers) == 1
    assert len({agent.track_id for agent in samples[5].agents}) == 4


def test_map_elements_lie_around_the_vehicle(samples) -> None:
    elements = samples[2].map_elements
    dividers = [element for element in elements if element.label == "divider"]
    assert len(dividers) == 1
    near = dividers[0].points[np.abs(dividers[0].points[:, 0]).argmin()]
    assert near[1] == pytest.approx(1.75, abs=0.02)  # the middle of a road of two lanes of 3.5 m
    edges = np.concatenate([element.points for element in elements if element.label == "boundary"])
    beside = edges[np.abs(edges[:, 0]) < 1.5][:, 1]
    assert beside.min() == pytest.approx(-1.75, abs=0.05)
    assert beside.max() == pytest.approx(5.25, abs=0.05)
    crossing = next(element for element in elements if element.label == "ped_crossing")
    assert crossing.closed
    np.testing.assert_allclose(crossing.points.mean(axis=0), [5.36, 2.01], atol=0.03)  # where it is half a second on
    assert {element.label for element in elements} == {"divider", "boundary", "ped_crossing", "drivable_area"}
    assert all(np.abs(element.points).max() < 51.3 for element in elements)


def test_without_can_bus_the_twist_follows_from_the_poses(tmp_path: Path, root: Path) -> None:
    bare = copied(root, tmp_path)
    shutil.rmtree(bare / "can_bus")
    (bare / VERSION / "commands.json").unlink()
    samples = list(NuScenesScenes(bare, VERSION, image_size=SIZE, map_reach=None)["scene-2001"])
    for sample in samples:
        ego = sample.observation.ego
        np.testing.assert_allclose(ego.velocity, [8.0, 0, 0], atol=0.01)
        np.testing.assert_allclose(ego.angular_velocity, [0, 0, 0.15], atol=1e-6)
        np.testing.assert_allclose(ego.acceleration, [0, 1.2, 0], atol=0.02)
        assert sample.map_elements is None
    assert samples[0].observation.command.command is Command.TURN_LEFT  # by the published rule
    assert samples[-1].observation.command.command is Command.KEEP_FORWARD  # no future to tell


def test_pictures_are_decoded_no_larger_than_needed(tmp_path: Path, make_scene) -> None:
    export_nuscenes(tmp_path / "set", [make_scene(frames=2, size=(192, 108))])
    sample = NuScenesScenes(tmp_path / "set", VERSION, image_size=(90, 50), map_reach=None)["scene-2001"][0]
    assert sample.observation.frames[0].image.shape == (54, 96, 3)
    assert sample.observation.rig.cameras[0].width == 192


def copied(root: Path, folder: Path) -> Path:
    return Path(shutil.copytree(root, folder / "copy"))


def change(root: Path, table: str, edit: Callable[[list], object]) -> None:
    path = root / VERSION / f"{table}.json"
    rows = json.loads(path.read_text())
    edit(rows)
    path.write_text(json.dumps(rows))


def read_everything(root: Path) -> None:
    for scene in NuScenesScenes(root, VERSION, image_size=SIZE):
        list(scene)


def set_first(column: str, value: object) -> Callable[[list], None]:
    return lambda rows: rows[0].__setitem__(column, value)


@pytest.mark.parametrize(
    ("table", "edit", "message"),
    [
        (
            "sample_annotation",
            set_first("translation", [float("nan"), 0, 0]),
            "sample_annotation.json has translation",
        ),
        ("sample_annotation", set_first("size", [1.0, 0.0, 1.0]), "sample_annotation.json has size"),
        ("sample_annotation", set_first("size", [1.0, "wide", 1.0]), "sample_annotation.json has size"),
        ("sample_annotation", set_first("instance_token", "x"), "instance.json lacks the row 'x'"),
        ("sample_annotation", lambda rows: rows[0].pop("num_lidar_pts"), "without 'num_lidar_pts'"),
        ("ego_pose", set_first("rotation", [0, 0, 0, 0]), "no rotation"),
        ("calibrated_sensor", lambda rows: rows[1].update(camera_intrinsic=[[1, 2], [3]]), "3 x 3 finite numbers"),
        ("calibrated_sensor", lambda rows: rows.pop(), "calibrated_sensor.json lacks the row"),
        ("sample", set_first("next", ""), "does not lead through the 8 samples of scene-2001"),
        ("sample", lambda rows: rows[1].update(timestamp=5), "has stamps in scene-2001 that do not rise"),
        ("sample_data", lambda rows: rows.pop(1), "sample_data.json has no CAM_FRONT for the sample"),
        ("sample_data", lambda rows: rows[1].update(width=100), "96x54 pixels where the tables say 100x54"),
        ("scene", lambda rows: rows.clear(), "scene.json has no scene at all"),
        ("scene", set_first("nbr_samples", 1), "does not lead through the 1 samples of scene-2001"),
        ("log", lambda rows: rows.clear(), "log.json lacks the row"),
        ("commands", lambda rows: rows.update({next(iter(rows)): "U_TURN"}), "has 'U_TURN' for"),
    ],
)
def test_broken_tables_are_named_with_what_is_wrong(tmp_path: Path, root: Path, table, edit, message) -> None:
    broken = copied(root, tmp_path)
    change(broken, table, edit)
    with pytest.raises(DatasetError) as caught:
        read_everything(broken)
    assert message in str(caught.value)
    assert "again" in str(caught.value)  # the remedy


TABLES_THAT_ARE_READ = (
    *("sample", "sample_data", "sample_annotation", "scene", "instance", "attribute", "category"),
    *("calibrated_sensor", "sensor", "ego_pose", "log", "commands", "splits"),
)


@pytest.mark.parametrize("table", TABLES_THAT_ARE_READ)
def test_whatever_stands_in_a_column_the_answer_is_one_sentence(tmp_path: Path, make_scene, table: str) -> None:
    """Every column of a row in turn: left out, or of a kind that does not belong there."""
    root = tmp_path / "set"
    export_nuscenes(root, [make_scene(split="own", frames=2)])
    path = root / VERSION / f"{table}.json"
    whole, said = path.read_text(), []
    content = json.loads(whole)
    for column in content if isinstance(content, dict) else content[1 % len(content)]:
        for value in (None, "x", -1.5, float("nan"), [], {"a": 1}, "left out"):
            content = json.loads(whole)
            row = content if isinstance(content, dict) else content[1 % len(content)]
            row[column] = value
            if value == "left out":
                del row[column]
            path.write_text(json.dumps(content))
            try:
                for scene in NuScenesScenes(root, VERSION, image_size=SIZE, split="own", map_reach=None):
                    list(scene)
            except DatasetError as error:
                said.append(str(error))
    assert len(said) > 5
    assert not any("\n" in sentence for sentence in said)


def test_an_instance_with_two_boxes_in_one_frame_is_named(tmp_path: Path, root: Path) -> None:
    broken = copied(root, tmp_path)
    change(broken, "sample_annotation", lambda rows: rows.append({**rows[0], "token": "twin"}))
    with pytest.raises(DatasetError, match=r"has two rows of the instance '[0-9a-f]{32}' in one sample"):
        read_everything(broken)


def test_an_object_of_instruction_data_is_found_by_its_annotation(root: Path, samples) -> None:
    scenes = NuScenesScenes(root, VERSION, image_size=SIZE, map_reach=None)
    first, second = scenes["scene-2001"], scenes["scene-2002"]
    for sample in samples:
        row = scenes.annotations(sample.token)[0]
        np.testing.assert_allclose(second.object_position(row["token"]), sample.agents[0].position, atol=1e-9)
        with pytest.raises(DatasetError, match="in another scene than scene-2001"):
            first.object_position(row["token"])
    with pytest.raises(DatasetError, match="lacks the row 'nobody'"):
        first.object_position("nobody")


def test_a_scene_of_one_frame_is_refused_by_name(tmp_path: Path, root: Path) -> None:
    broken = copied(root, tmp_path)
    change(broken, "scene", set_first("nbr_samples", 1))
    change(broken, "sample", set_first("next", ""))
    with pytest.raises(DatasetError, match="has scene-2001 with 1 sample: too few for motion and future; remove"):
        read_everything(broken)


def test_missing_pictures_are_counted_before_training_starts(tmp_path: Path, root: Path) -> None:
    broken = copied(root, tmp_path)
    pictures = sorted((broken / "samples" / "CAM_BACK").iterdir())
    for path in pictures[:3]:
        path.unlink()
    with pytest.raises(DatasetError, match=r"3 of 96 pictures of 2 scenes are missing, first .*CAM_BACK") as caught:
        NuScenesScenes(broken, VERSION, image_size=SIZE)
    assert "unpack the missing archives" in str(caught.value)


def test_a_picture_that_is_cut_off_is_named(tmp_path: Path, root: Path) -> None:
    broken = copied(root, tmp_path)
    path = sorted((broken / "samples" / "CAM_FRONT").iterdir())[0]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DatasetError, match=f"{path.name} is no picture"):
        read_everything(broken)


def test_a_picture_that_goes_away_during_training_is_named(tmp_path: Path, root: Path) -> None:
    broken = copied(root, tmp_path)
    scenes = NuScenesScenes(broken, VERSION, image_size=SIZE, map_reach=None)
    path = sorted((broken / "samples" / "CAM_FRONT").iterdir())[0]
    path.unlink()
    with pytest.raises(DatasetError, match=rf"{path.name} cannot be read \(No such file or directory\); unpack"):
        list(scenes["scene-2001"])


@pytest.mark.parametrize("table", ["scene", "sample_data"])
def test_a_table_that_is_missing_or_cut_off_is_named(tmp_path: Path, root: Path, table: str) -> None:
    broken = copied(root, tmp_path)
    path = broken / VERSION / f"{table}.json"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DatasetError, match=f"{table}.json is not whole JSON"):
        read_everything(broken)
    path.unlink()
    with pytest.raises(DatasetError, match=f"{table}.json cannot be read"):
        read_everything(broken)
    path.write_text('{"token": 1}')
    with pytest.raises(DatasetError, match=f"{table}.json is not a list of rows"):
        read_everything(broken)


def test_a_broken_can_bus_and_a_missing_map_are_named(tmp_path: Path, root: Path) -> None:
    broken = copied(root, tmp_path)
    can = broken / "can_bus" / "scene-2001_pose.json"
    can.write_text('[{"utime": 1, "vel": [1, 2]}]')
    with pytest.raises(DatasetError, match=r"scene-2001_pose.json is not a list of messages with vel, accel"):
        read_everything(broken)
    can.write_text('[{"utime": 1, "vel": [1, 2, NaN], "accel": [0, 0, 0], "rotation_rate": [0, 0, 0]}]')
    with pytest.raises(DatasetError, match=r"scene-2001_pose.json holds numbers that are not finite"):
        read_everything(broken)
    can.unlink()
    road = broken / "maps" / "expansion" / "boston-seaport.json"
    road.write_text('{"version": "1.3"}')
    with pytest.raises(DatasetError, match=r"boston-seaport.json is no map that the devkit loads"):
        read_everything(broken)
    road.unlink()
    with pytest.raises(DatasetError, match=r"boston-seaport.json cannot be read .*; unpack nuScenes' map expansion"):
        read_everything(broken)


def test_a_folder_that_is_no_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"cannot be read .*is .* the folder that holds v1.0-mini"):
        NuScenesScenes(tmp_path, "v1.0-mini", image_size=SIZE)


def test_cameras_come_in_the_order_of_the_model(samples) -> None:
    assert tuple(frame.camera for frame in samples[0].observation.frames) == CAMERA_NAMES
