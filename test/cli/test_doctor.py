"""`odv doctor`: what it says of this machine, of topics that are live, and of what is wrong with them."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from opendrivevla_ros.cli.processes import Process
from opendrivevla_ros.core.rig import CAMERA_NAMES
from opendrivevla_ros.ros.live_topics import Finding, Stream, judge
from opendrivevla_ros.sensing.calibration import CameraInfo
from opendrivevla_ros.world.rig import nuscenes_rig

Odv = Callable[..., subprocess.CompletedProcess[str]]
RIG = nuscenes_rig(320, 180)


def healthy() -> dict[str, Stream]:
    """Streams of a system that is well: six cameras at 12 Hz, 5 ms apart, camera_info and odometry."""
    streams = {}
    for index, camera in enumerate(CAMERA_NAMES):
        times = [frame / 12 + index * 0.005 for frame in range(24)]
        k = tuple(float(value) for value in RIG[camera].intrinsics.ravel())
        streams[f"{camera}/image"] = Stream(f"/{camera}", list(times), list(times), [0.02] * 24, 9000, (320, 180))
        info = Stream(f"/{camera}/info", list(times), list(times), [0.02] * 24)
        info.info = CameraInfo(width=320, height=180, k=k)
        streams[f"{camera}/camera_info"] = info
    ticks = [tick / 100 for tick in range(200)]
    streams["odometry"] = Stream("/odom", list(ticks), list(ticks), [0.001] * 200)
    return streams


def finding(streams: dict[str, Stream], name: str, missing: tuple[str, ...] = ()) -> Finding:
    return next(found for found in judge(streams, list(missing), RIG) if found.name == name)


def test_a_healthy_system_has_rates_sizes_and_skews_and_nothing_broken() -> None:
    findings = judge(healthy(), [], RIG)
    assert [found for found in findings if found.state != "ok"] == []
    assert [found.name for found in findings[:2]] == ["cam_front/image", "cam_front/camera_info"]
    assert finding(healthy(), "cam_back/image").found == "12.0 Hz, 320x180, 9 kB, 20 ms old, skew 15 ms"
    assert finding(healthy(), "odometry").found == "100.0 Hz, 1 ms old"


def test_a_missing_topic_is_broken() -> None:
    assert finding(healthy(), "imu", missing=("imu",)).state == "broken"


def test_a_topic_on_which_nothing_comes_is_broken() -> None:
    streams = healthy() | {"cam_back/image": Stream("/cam_back")}
    assert finding(streams, "cam_back/image").found == "/cam_back: nothing came"


def test_a_slow_camera_is_broken() -> None:
    streams = healthy()
    slow = streams["cam_back/image"]
    slow.arrivals, slow.stamps = slow.arrivals[::6], slow.stamps[::6]
    assert finding(streams, "cam_back/image").state == "broken"


def test_a_camera_that_is_out_of_step_is_broken_and_its_skew_named() -> None:
    streams = healthy()
    streams["cam_back/image"].stamps = [stamp + 10.0 for stamp in streams["cam_back/image"].stamps]
    found = finding(streams, "cam_back/image")
    assert found.state == "broken"
    assert "skew 9" in found.found


def test_stamps_that_go_back_are_broken() -> None:
    streams = healthy()
    streams["cam_front/image"].stamps[5] = 0.0
    assert "stamps repeat or go back" in finding(streams, "cam_front/image").found


def test_slow_odometry_is_broken() -> None:
    streams = healthy()
    streams["odometry"].arrivals = streams["odometry"].arrivals[::10]
    assert finding(streams, "odometry").state == "broken"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [({"width": 640}, "but pictures are 320x180"), ({"k": (99.0, 0, 160, 0, 99.0, 90, 0, 0, 1)}, "cam_front")],
)
def test_a_camera_info_that_contradicts_picture_or_rig_is_broken(change: dict, complaint: str) -> None:
    streams = healthy()
    info = streams["cam_front/camera_info"]
    assert info.info is not None
    info.info = CameraInfo(**{"width": 320, "height": 180, "k": info.info.k, **change})
    found = finding(streams, "cam_front/camera_info")
    assert found.state == "broken"
    assert complaint in found.found


def test_the_machine_is_described_and_nothing_is_broken_here(odv: Odv) -> None:
    run = odv("doctor", "--seconds", "0")
    assert run.returncode == 0, run.stdout
    for word in ("Python", "torch", "rosbags", "ROS 2", "GPU", "loopback.xml: 256 MiB", "this machine only"):
        assert word in run.stdout


@pytest.mark.parametrize("arguments", [("--rig", "nothing.yaml")])
def test_a_missing_rig_file_is_broken_with_exit_code_1(odv: Odv, arguments: tuple[str, ...]) -> None:
    run = odv("doctor", "--seconds", "0", *arguments)
    assert run.returncode == 1
    assert "broken: rig file" in run.stdout


def test_a_dds_profile_that_is_not_there_is_broken(odv: Odv) -> None:
    nowhere = {"FASTRTPS_DEFAULT_PROFILES_FILE": "/nowhere.xml", "FASTDDS_DEFAULT_PROFILES_FILE": "/nowhere.xml"}
    run = odv("doctor", "--seconds", "0", **nowhere)
    assert run.returncode == 1
    assert "broken: DDS profile" in run.stdout


def test_live_topics_are_measured(street_bag: Path, odv: Odv, start: Callable[..., Process]) -> None:
    start("cli.main", "play", str(street_bag), "--loop")
    run = odv("doctor", "--seconds", "1.5", "--rig", str(street_bag / "rig.yaml"))
    lines = {line.split()[1]: line for line in run.stdout.splitlines() if len(line.split()) > 3}
    for camera in CAMERA_NAMES:
        assert "320x180" in lines[f"{camera}/image"]
        assert "as in the rig file" in lines[f"{camera}/camera_info"]
    assert "Hz" in lines["odometry"]
    assert "skew" in lines["cam_back/image"]
