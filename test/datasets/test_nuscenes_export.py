"""The export against the official nuscenes-devkit, unpatched, and its behaviour when it cannot write."""

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from opendrivevla_ros.core.geometry import apply, invert
from opendrivevla_ros.datasets.nuscenes_export import ExportScene, export_nuscenes
from opendrivevla_ros.datasets.nuscenes_tables import DatasetError

VERSION = "v1.0-world"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, make_scene: Callable[..., ExportScene]) -> Path:
    root = tmp_path_factory.mktemp("data") / "set"
    export_nuscenes(root, [make_scene("first", "world_train"), make_scene("second", "world_val")])
    return root


@pytest.fixture(scope="module")
def nusc(root: Path):
    import matplotlib
    from nuscenes import NuScenes

    matplotlib.use("Agg")

    return NuScenes(VERSION, str(root), verbose=False)


def test_the_devkit_loads_every_table(nusc) -> None:
    assert [scene["name"] for scene in nusc.scene] == ["scene-2001", "scene-2002"]
    assert (len(nusc.sample), len(nusc.sample_data), len(nusc.ego_pose)) == (16, 16 * 7, 16 * 7)
    assert len(nusc.category) == 23
    assert len(nusc.sample_annotation) == 2 * (3 * 8 + 6)
    assert {row["channel"] for row in nusc.sensor} == set(nusc.sample[0]["data"])


@pytest.mark.parametrize("table", ["sample", "sample_data", "sample_annotation"])
def test_neighbours_in_time_name_each_other(nusc, table: str) -> None:
    linked = 0
    for row in getattr(nusc, table):
        if row["next"]:
            after = nusc.get(table, row["next"])
            assert after["prev"] == row["token"]
            linked += 1
            if table == "sample_annotation":
                assert after["instance_token"] == row["instance_token"]
            if table == "sample_data":
                assert after["channel"] == row["channel"]
    assert linked > 0


def test_instances_are_followed_from_first_to_last(nusc) -> None:
    for instance in nusc.instance:
        seen, name = [], instance["first_annotation_token"]
        while name:
            seen.append(name)
            name = nusc.get("sample_annotation", name)["next"]
        assert seen[-1] == instance["last_annotation_token"]
        assert len(seen) == instance["nbr_annotations"]


def test_boxes_stand_where_the_source_put_them_in_each_camera(nusc, root: Path, make_scene) -> None:
    frame = list(make_scene().frames)[3]
    for camera, pose in zip(frame.observation.rig.cameras, frame.picture_poses, strict=True):
        _, boxes, intrinsics = nusc.get_sample_data(nusc.sample[3]["data"][camera.name.upper()], box_vis_level=0)
        np.testing.assert_allclose(intrinsics, camera.intrinsics)
        to_camera = invert(pose @ camera.camera_to_base)
        truth = {box.category: apply(to_camera, box.position) for box in frame.boxes}
        for box in boxes:
            np.testing.assert_allclose(box.center, truth[box.name], atol=1e-6)


def test_the_devkit_measures_the_velocity_of_boxes(nusc) -> None:
    lead = next(row for row in nusc.sample_annotation if row["category_name"] == "vehicle.car" and row["prev"])
    speed = np.hypot(*nusc.box_velocity(lead["token"])[:2])
    assert speed == pytest.approx(8.0, abs=0.1)


def test_the_devkit_renders_a_sample_and_the_map(nusc, root: Path, tmp_path: Path) -> None:
    from matplotlib import pyplot

    nusc.render_sample(nusc.sample[0]["token"], out_path=str(tmp_path / "sample.png"), verbose=False)
    nusc.render_egoposes_on_map("boston-seaport", out_path=str(tmp_path / "map.png"))
    pyplot.close("all")
    assert (tmp_path / "sample.png").stat().st_size > 10_000
    assert (tmp_path / "map.png").stat().st_size > 1_000


def test_the_map_mask_is_true_on_the_road_and_false_beside_it(nusc) -> None:
    mask = nusc.map[0]["mask"]
    for sample in nusc.sample:
        data = nusc.get("sample_data", sample["data"]["LIDAR_TOP"])
        x, y, _ = nusc.get("ego_pose", data["ego_pose_token"])["translation"]
        assert mask.is_on_mask(x, y)
        assert not mask.is_on_mask(x, y + 25.0)


def test_the_devkits_map_api_finds_the_layers_where_the_vehicle_is(nusc, root: Path) -> None:
    from nuscenes.map_expansion.map_api import NuScenesMap

    road = NuScenesMap(str(root), "boston-seaport")
    for sample in (nusc.sample[0], nusc.sample[8]):
        data = nusc.get("sample_data", sample["data"]["LIDAR_TOP"])
        x, y, _ = nusc.get("ego_pose", data["ego_pose_token"])["translation"]
        layers = road.layers_on_point(x, y)
        assert layers["drivable_area"]
        assert layers["lane"]
        assert road.get_records_in_radius(x, y, 40, ["ped_crossing"])["ped_crossing"]


def test_the_devkits_can_bus_api_reads_the_motion(root: Path) -> None:
    from nuscenes.can_bus.can_bus_api import NuScenesCanBus

    can = NuScenesCanBus(str(root))
    pose = can.get_messages("scene-2001", "pose")
    assert len(pose) == 8
    assert pose[0]["vel"] == [8.0, 0.0, 0.0]
    assert pose[0]["accel"] == pytest.approx([0.0, 1.2, 9.81])
    assert can.get_messages("scene-2001", "steeranglefeedback")[0]["value"] > 0  # to the left, in nuScenes' sign


def test_perfect_detections_score_one_in_the_official_evaluation(nusc, root: Path, tmp_path: Path) -> None:
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.detection.evaluate import DetectionEval
    from nuscenes.eval.detection.utils import category_to_detection_name

    results = {}
    for sample in nusc.sample[8:]:
        results[sample["token"]] = [
            {
                "sample_token": sample["token"],
                "translation": row["translation"],
                "size": row["size"],
                "rotation": row["rotation"],
                "velocity": nusc.box_velocity(row["token"])[:2].tolist(),
                "detection_name": category_to_detection_name(row["category_name"]),
                "detection_score": 0.9,
                "attribute_name": nusc.get("attribute", row["attribute_tokens"][0])["name"]
                if row["attribute_tokens"]
                else "",
            }
            for row in (nusc.get("sample_annotation", name) for name in sample["anns"])
        ]
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"results": results, "meta": {"use_camera": True}}))
    evaluation = DetectionEval(
        nusc, config_factory("detection_cvpr_2019"), str(path), "world_val", str(tmp_path / "out"), verbose=False
    )
    metrics, _ = evaluation.evaluate()
    for name in ("car", "truck", "pedestrian", "traffic_cone"):
        assert metrics.mean_dist_aps[name] == pytest.approx(1.0, abs=1e-6)
        assert metrics.get_label_tp(name, "trans_err") == pytest.approx(0.0, abs=1e-6)
        assert metrics.get_label_tp(name, "scale_err") == pytest.approx(0.0, abs=1e-6)
    assert metrics.mean_dist_aps["bus"] == 0.0


def test_the_same_scenes_give_the_same_bytes(tmp_path: Path, make_scene) -> None:
    for name in ("a", "b"):
        export_nuscenes(tmp_path / name, [make_scene(frames=2)])
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) > 20
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_full_disk_leaves_nothing_behind_and_says_so(tmp_path: Path, make_scene, monkeypatch) -> None:
    written, write_bytes = [], Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        written.append(path)
        if len(written) > 20:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DatasetError, match=r"cannot be written \(No space left on device\); free space"):
        export_nuscenes(tmp_path / "set", [make_scene()])
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_breaks_leaves_nothing_behind(tmp_path: Path, make_scene) -> None:
    scene = make_scene()

    def frames():
        yield from list(scene.frames)[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_nuscenes(tmp_path / "set", [replace(scene, frames=frames())])
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, make_scene) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"cannot be written \(Not a directory\); check the folder"):
        export_nuscenes(tmp_path / "file" / "set", [make_scene()])


def test_no_scene_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="there is no scene to write"):
        export_nuscenes(tmp_path / "set", [])
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_export_left_is_not_in_the_next_one(tmp_path: Path, make_scene) -> None:
    left = tmp_path / ".set.unfinished" / "samples"
    left.mkdir(parents=True)
    (left / "half.jpg").write_bytes(b"x")
    export_nuscenes(tmp_path / "set", [make_scene(frames=2)])
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert not list(tmp_path.rglob("half.jpg"))


def test_a_data_set_that_is_there_is_not_overwritten(tmp_path: Path, make_scene) -> None:
    (tmp_path / "set").mkdir()
    with pytest.raises(DatasetError, match="is there already"):
        export_nuscenes(tmp_path / "set", [make_scene()])


def changed(scene: ExportScene, **box: object) -> ExportScene:
    """The scene with its first box changed in every frame."""
    frames = [replace(frame, boxes=(replace(frame.boxes[0], **box), *frame.boxes[1:])) for frame in scene.frames]
    return replace(scene, frames=frames)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"category": "car"}, "lead in bend is a 'car'; nuScenes knows animal, "),
        ({"attribute": "vehicle.flying"}, "lead in bend has attribute 'vehicle.flying'"),
        ({"size": np.array([4.0, np.nan, 1.5])}, "lead in bend has the size"),
        ({"position": np.array([np.nan, 0, 0])}, "lead in bend has a pose that is not finite"),
        ({"visibility": 0}, "lead in bend has visibility 0; nuScenes has 1 to 4"),
        ({"instance": "parked"}, "parked in bend has two boxes in the frame"),
        ({"points": -1}, "lead in bend has -1 points"),
        ({"points": 1.5}, "lead in bend has 1.5 points"),
    ],
)
def test_labels_that_nuscenes_cannot_hold_are_refused_by_name(tmp_path: Path, make_scene, change, message) -> None:
    with pytest.raises(DatasetError, match=message.replace("(", r"\(")):
        export_nuscenes(tmp_path / "set", [changed(make_scene(frames=2), **change)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("frames", [0, 1])
def test_a_scene_without_motion_is_refused(tmp_path: Path, make_scene, frames: int) -> None:
    with pytest.raises(DatasetError, match=f"bend has {frames} frames; a scene needs at least 2"):
        export_nuscenes(tmp_path / "set", [make_scene(frames=frames)])


def refused(tmp_path: Path, scene: ExportScene, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        export_nuscenes(tmp_path / "set", [scene])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", [{"velocity": np.array([np.nan, 0.0, 0.0])}, {"steering": np.inf}])
def test_an_ego_state_that_is_not_finite_is_refused(tmp_path: Path, make_scene, change) -> None:
    scene = make_scene(frames=2)
    frame = next(iter(scene.frames))
    ego = replace(frame.observation.ego, **change)
    frame = replace(frame, observation=replace(frame.observation, ego=ego))
    message = "bend has an ego state at 1700000000000000 us that is not finite"
    refused(tmp_path, replace(scene, frames=[frame]), message)


def test_pictures_and_calibrations_that_do_not_fit_are_refused(tmp_path: Path, make_scene) -> None:
    scene = make_scene(frames=2)
    frame = next(iter(scene.frames))
    observation, rig = frame.observation, frame.observation.rig
    blind = replace(rig.cameras[0], intrinsics=np.full((3, 3), np.nan))
    first = observation.frames[0]
    for change, message in (
        ({"rig": replace(rig, cameras=(blind, *rig.cameras[1:]))}, "bend has a rig at .* cam_front: intrinsics"),
        ({"rig": replace(rig, lidar_to_base=np.full((4, 4), np.nan))}, "the lidar's pose is not finite"),
        ({"frames": observation.frames[:5]}, "bend has pictures at .* that are not one of each camera"),
        ({"frames": (replace(first, image=first.image / 2), *observation.frames[1:])}, "CAM_FRONT of float64; give"),
    ):
        broken = replace(frame, observation=replace(observation, **change))
        refused(tmp_path, replace(scene, frames=[broken]), message)
    refused(tmp_path, replace(scene, frames=[replace(frame, picture_poses=frame.picture_poses[:5])]), "poses of shape")


def test_a_road_that_is_not_finite_is_refused(tmp_path: Path, make_scene) -> None:
    scene = make_scene(frames=2)
    for change in ({"drivable": ()}, {"lane_dividers": (np.full((3, 2), np.nan),)}):
        refused(tmp_path, replace(scene, road=replace(scene.road, **change)), "has no drivable area, or a road with")


def test_stamps_that_do_not_rise_are_refused(tmp_path: Path, make_scene) -> None:
    scene = make_scene(frames=2)
    frames = list(scene.frames)[::-1]
    with pytest.raises(DatasetError, match="stamps must rise"):
        export_nuscenes(tmp_path / "set", [replace(scene, frames=frames)])
