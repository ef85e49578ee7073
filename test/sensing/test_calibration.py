"""Camera rigs: the calibration file, CameraInfo, and projection held against a real vehicle's raw matrices."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from opendrivevla_ros.core.geometry import apply, box_corners, invert, quaternion
from opendrivevla_ros.core.rig import CAMERA_NAMES, CameraCalibration, CameraRig
from opendrivevla_ros.sensing.calibration import (
    CalibrationError,
    CameraInfo,
    CameraInfoMonitor,
    camera_from_info,
    load_extrinsics,
    load_rig,
    problem_table,
    require_fit,
    rig_from_infos,
    save_rig,
)
from opendrivevla_ros.sensing.refusals import Refusal

EXAMPLE = Path(__file__).parents[2] / "config" / "rig" / "nuscenes.yaml"


@pytest.fixture
def rig() -> CameraRig:
    return load_rig(EXAMPLE)


@pytest.fixture
def document() -> dict[str, Any]:
    return yaml.safe_load(EXAMPLE.read_text())


def infos_of(rig: CameraRig) -> dict[str, CameraInfo]:
    return {camera.name: CameraInfo(camera.width, camera.height, camera.intrinsics.ravel()) for camera in rig.cameras}


def extrinsics_of(rig: CameraRig) -> dict[str, tuple[Any, Any]]:
    return {c.name: (c.camera_to_base[:3, 3], quaternion(c.camera_to_base)) for c in rig.cameras}


def real_rig(frame: dict[str, Any]) -> CameraRig:
    """The rig of frame.json, straight from its matrices."""
    cameras = []
    for name in CAMERA_NAMES:
        camera = frame["cameras"][name.upper()]
        intrinsics, pose = np.array(camera["intrinsic"]), np.array(camera["camera_to_ego"])
        cameras.append(CameraCalibration(name, camera["width"], camera["height"], intrinsics, pose))
    return CameraRig(tuple(cameras), np.array(frame["lidar_to_ego"]))


def test_the_example_fits_the_model(rig: CameraRig) -> None:
    require_fit(rig)
    assert tuple(camera.name for camera in rig.cameras) == CAMERA_NAMES


def test_the_example_is_the_vehicle_of_the_real_keyframe(rig: CameraRig, keyframe_folder: Path) -> None:
    frame = json.loads((keyframe_folder / "frame.json").read_text())
    for camera, real in zip(rig.cameras, real_rig(frame).cameras, strict=True):
        assert (camera.width, camera.height) == (real.width, real.height)
        assert camera.intrinsics == pytest.approx(real.intrinsics, abs=0.006)
        assert camera.camera_to_base == pytest.approx(real.camera_to_base, abs=1e-4)
    assert rig.lidar_to_base == pytest.approx(np.array(frame["lidar_to_ego"]), abs=1e-4)


@pytest.mark.parametrize("source", ["raw matrices", "example file"])
def test_labelled_boxes_land_where_the_raw_matrices_put_them(
    source: str, rig: CameraRig, keyframe_folder: Path
) -> None:
    """`camera_to_ego` holds at each camera's own stamp, as does a calibration file, so both must agree to a pixel."""
    frame = json.loads((keyframe_folder / "frame.json").read_text())
    tested = real_rig(frame) if source == "raw matrices" else rig
    lidar_to_ego, compared = np.array(frame["lidar_to_ego"]), 0
    for name in CAMERA_NAMES:
        raw = frame["cameras"][name.upper()]
        lidar_to_camera = np.linalg.inv(np.array(raw["camera_to_ego"])) @ lidar_to_ego
        for box in (np.array(entry["box"]) for entry in frame["boxes"]):
            corners = box_corners(box[:3], box[3:6], box[6])
            in_camera = np.c_[corners, np.ones(8)] @ lidar_to_camera.T
            if in_camera[:, 2].min() < 1.0:
                continue
            expected = in_camera[:, :3] @ np.array(raw["intrinsic"]).T
            expected = expected[:, :2] / expected[:, 2:]
            inside = ((expected >= 0) & (expected < [1600, 900])).all(axis=1)
            pixels, depth = tested[name].project(apply(tested.lidar_to_base, corners))
            assert np.abs(pixels - expected)[inside].max(initial=0.0) < 1.0
            assert depth == pytest.approx(in_camera[:, 2], abs=0.01)
            compared += int(inside.sum())
    assert compared > 300


def test_with_the_motion_between_the_stamps_the_boxes_land_on_the_images_pixels(
    keyframe_folder: Path,
) -> None:
    """`lidar_to_camera` also holds the ego motion from the lidar's stamp to the camera's.

    That motion is what the rig's static transforms leave over. It must be that of one vehicle: forward, by one speed
    times each camera's time. With it put back, projections agree with the raw matrices to a pixel.
    """
    frame = json.loads((keyframe_folder / "frame.json").read_text())
    tested = real_rig(frame)
    for name in CAMERA_NAMES:
        raw = frame["cameras"][name.upper()]
        lidar_to_camera = np.array(raw["lidar_to_camera"])
        motion = tested[name].camera_to_base @ lidar_to_camera @ invert(tested.lidar_to_base)
        seconds = (raw["timestamp_us"] - frame["timestamp_us"]) / 1e6
        assert motion[:3, :3] == pytest.approx(np.eye(3), abs=0.005)
        assert motion[0, 3] == pytest.approx(-9.0 * seconds, abs=0.03)
        assert motion[1:3, 3] == pytest.approx([0, 0], abs=0.03)
        for box in (np.array(entry["box"]) for entry in frame["boxes"]):
            corners = box_corners(box[:3], box[3:6], box[6])
            in_camera = apply(lidar_to_camera, corners)
            if in_camera[:, 2].min() < 1.0:
                continue
            expected = in_camera @ np.array(raw["intrinsic"]).T
            moved = apply(motion, apply(tested.lidar_to_base, corners))
            pixels, _ = tested[name].project(moved)
            assert pixels == pytest.approx(expected[:, :2] / expected[:, 2:], abs=0.1)


def test_a_written_file_reads_back_as_the_same_rig(rig: CameraRig, tmp_path: Path) -> None:
    save_rig(rig, tmp_path / "rig.yaml", comment="a rig\n\nof two paragraphs")
    again = load_rig(tmp_path / "rig.yaml")
    for camera, read in zip(rig.cameras, again.cameras, strict=True):
        assert read.intrinsics == pytest.approx(camera.intrinsics, abs=0.006)
        assert read.camera_to_base == pytest.approx(camera.camera_to_base, abs=1e-4)
    assert again.lidar_to_base == pytest.approx(rig.lidar_to_base, abs=1e-4)
    assert (tmp_path / "rig.yaml").read_text().startswith("# a rig\n#\n# of two paragraphs\ncameras:\n")


def test_without_a_lidar_the_nuscenes_one_is_assumed(document: dict[str, Any], tmp_path: Path) -> None:
    del document["lidar_to_base"]
    path = tmp_path / "rig.yaml"
    path.write_text(yaml.safe_dump(document))
    assert load_rig(path).lidar_to_base[:3, 3].tolist() == [0.9437, 0.0, 1.8402]


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (["cameras"], None, "cameras must be a mapping"),
        (["cameras", "cam_back"], "delete", "lacks cam_back"),
        (["cameras", "cam_top"], {}, "unknown cam_top"),
        (["cameras", "cam_back", "width"], 0, "cam_back: width must be a whole number of pixels above 0, not 0"),
        (["cameras", "cam_back", "height"], 900.5, "not 900.5"),
        (["cameras", "cam_back", "intrinsics"], [1, 2, 3], r"4 finite numbers \[fx fy cx cy\]"),
        (["cameras", "cam_back", "intrinsics"], [1, 2, 3, ".nan"], "4 finite numbers"),
        (["cameras", "cam_back", "intrinsics"], [1, 2, 3, float("nan")], "4 finite numbers"),
        (["cameras", "cam_back", "skew"], 1, "unknown skew"),
        (["cameras", "cam_back", "camera_to_base", "rotation_xyzw"], [0, 0, 0, 0], "length 0.0000"),
        (["cameras", "cam_back", "camera_to_base", "rotation_xyzw"], [0, 0, 0, 2], "length 2.0000"),
        (["cameras", "cam_back", "camera_to_base", "translation"], [0, 0], "3 finite numbers"),
        (["lidar_to_base", "translation"], "delete", "lacks translation"),
        (["lidar"], {}, "unknown lidar"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_the_key(
    place: list[str], value: Any, words: str, document: dict[str, Any], tmp_path: Path
) -> None:
    parent = document
    for key in place[:-1]:
        parent = parent[key]
    if value == "delete":
        del parent[place[-1]]
    else:
        parent[place[-1]] = value
    path = tmp_path / "rig.yaml"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(CalibrationError, match=words) as caught:
        load_rig(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[1, 2", b"a: b: c", b"\xff\xfe\x00", b"- 1"])
def test_a_file_that_is_no_calibration_is_refused_in_one_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "rig.yaml"
    path.write_bytes(content)
    with pytest.raises(CalibrationError) as caught:
        load_rig(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="cannot read the calibration file"):
        load_rig(tmp_path / "none.yaml")


def test_two_swapped_cameras_are_refused_with_a_table(rig: CameraRig) -> None:
    cameras = {camera.name: camera for camera in rig.cameras}
    swapped = {"cam_front_left": "cam_front_right", "cam_front_right": "cam_front_left"}
    poses = {name: cameras[swapped.get(name, name)].camera_to_base for name in CAMERA_NAMES}
    wrong = CameraRig(tuple(replace(camera, camera_to_base=poses[camera.name]) for camera in rig.cameras))
    with pytest.raises(CalibrationError) as caught:
        require_fit(wrong)
    lines = str(caught.value).splitlines()
    assert lines[1].split() == ["camera", "found", "expected"]
    assert [line.split()[0] for line in lines[2:]] == ["cam_front_right", "cam_front_left"]
    assert "are two cameras swapped?" in lines[2]
    assert "\n".join(lines[1:]) == problem_table(wrong.problems())


def test_camera_infos_and_extrinsics_make_the_same_rig_as_the_file(rig: CameraRig) -> None:
    made = rig_from_infos(infos_of(rig), extrinsics_of(rig), lidar_to_base=rig.lidar_to_base)
    require_fit(made)
    for camera, expected in zip(made.cameras, rig.cameras, strict=True):
        assert camera.camera_to_base == pytest.approx(expected.camera_to_base)
        assert np.array_equal(camera.intrinsics, expected.intrinsics)


def test_a_rig_with_missing_parts_is_refused_by_name(rig: CameraRig) -> None:
    infos, extrinsics = infos_of(rig), extrinsics_of(rig)
    del infos["cam_back"]
    with pytest.raises(CalibrationError, match="no CameraInfo for cam_back"):
        rig_from_infos(infos, extrinsics)
    del extrinsics["cam_front"]
    with pytest.raises(CalibrationError, match="no extrinsics for cam_front"):
        rig_from_infos(infos_of(rig), extrinsics)
    extrinsics["cam_front"] = ((0, 0, np.nan), (0, 0, 0, 1))
    with pytest.raises(CalibrationError, match="cam_front: pose is not finite"):
        rig_from_infos(infos_of(rig), extrinsics)


def test_distorted_pictures_are_refused_unless_they_are_rectified() -> None:
    k = (1000.0, 0, 800, 0, 1000, 450, 0, 0, 1)
    p = (900.0, 0, 790, 0, 0, 900, 440, 0, 0, 0, 1, 0)
    info = CameraInfo(1600, 900, k, d=(-0.3, 0.1, 0, 0, 0), p=p)
    with pytest.raises(CalibrationError, match=r"distorted \(plumb_bob \[-0.3, 0.1, 0, 0, 0\]\).*rectify"):
        camera_from_info("cam_front", info, np.eye(4))
    assert camera_from_info("cam_front", replace(info, d=(0, 0, 0, 0, 0)), np.eye(4)).intrinsics[0, 0] == 1000
    assert camera_from_info("cam_front", info, np.eye(4), rectified=True).intrinsics[0].tolist() == [900, 0, 790]


def test_a_rectifying_rotation_turns_the_camera() -> None:
    turn = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    p = (900.0, 0, 790, 0, 0, 900, 440, 0, 0, 0, 1, 0)
    info = CameraInfo(1600, 900, (1.0, 0, 0, 0, 1, 0, 0, 0, 1), r=turn.ravel(), p=p)
    camera = camera_from_info("cam_front", info, np.eye(4), rectified=True)
    point = np.array([0.3, 0.2, 5.0])
    assert camera.project(point)[0] == pytest.approx((camera.intrinsics @ turn @ point)[:2] / 5.0)


@pytest.mark.parametrize("info", [CameraInfo(1600, 900, (0.0,) * 9), CameraInfo(1600, 900, ())])
def test_an_uncalibrated_camera_is_refused(info: CameraInfo) -> None:
    with pytest.raises(CalibrationError, match="uncalibrated"):
        camera_from_info("cam_front", info, np.eye(4))
    with pytest.raises(CalibrationError, match="rectified pictures need it"):
        camera_from_info("cam_front", replace(info, k=(1.0,) * 9), np.eye(4), rectified=True)


def test_camera_info_that_agrees_with_the_rig_is_accepted_again_and_again(rig: CameraRig) -> None:
    monitor = CameraInfoMonitor(rig)
    for _ in range(2):
        for camera, info in infos_of(rig).items():
            assert monitor.check(camera, info, 7) is None
            assert monitor.problem(camera) == ""


def test_camera_info_that_contradicts_the_rig_is_refused_and_accepted_once_it_agrees(rig: CameraRig) -> None:
    monitor = CameraInfoMonitor(rig)
    good = infos_of(rig)["cam_back"]
    other = np.add(good.k, [0, 0, 3.0, 0, 0, 0, 0, 0, 0])
    for bad, words in (
        (replace(good, width=800, height=450), "800x450 pixels, the calibration 1600x900"),
        (replace(good, k=other), "by 3.00 pixels"),
        (replace(good, k=other * np.nan), "by nan pixels"),
        (replace(good, d=(0.1,)), "distorted"),
    ):
        refused = monitor.check("cam_back", bad, 7)
        assert refused is not None
        assert (refused.reason, refused.source) == (Refusal.BAD_CALIBRATION, "cam_back")
        assert words in refused.message
        assert monitor.problem("cam_back") == refused.message
    assert monitor.check("cam_back", good, 8) is None
    assert monitor.problem("cam_back") == ""


def test_camera_info_that_changes_after_the_start_is_refused(rig: CameraRig) -> None:
    monitor = CameraInfoMonitor(rig)
    good = infos_of(rig)["cam_back"]
    changed = replace(good, k=np.add(good.k, [0.1, 0, 0, 0, 0.1, 0, 0, 0, 0]))
    assert monitor.check("cam_back", good, 1) is None
    refused = monitor.check("cam_back", changed, 2)
    assert refused is not None
    assert "K of camera_info changed" in refused.message
    monitor.reset()
    assert monitor.check("cam_back", changed, 3) is None


def test_extrinsics_come_from_a_file_with_or_without_intrinsics(
    rig: CameraRig, document: dict[str, Any], tmp_path: Path
) -> None:
    bare = tmp_path / "bare.yaml"
    for camera in document["cameras"].values():
        del camera["width"], camera["height"], camera["intrinsics"]
    bare.write_text(yaml.safe_dump(document))
    for path in (EXAMPLE, bare):
        extrinsics, lidar_to_base = load_extrinsics(path)
        again = rig_from_infos(infos_of(rig), extrinsics, lidar_to_base=lidar_to_base)
        for camera, expected in zip(again.cameras, rig.cameras, strict=True):
            np.testing.assert_allclose(camera.camera_to_base, expected.camera_to_base, atol=1e-12)
        np.testing.assert_array_equal(again.lidar_to_base, rig.lidar_to_base)
    with pytest.raises(CalibrationError, match="lacks height, intrinsics, width"):
        load_rig(bare)
