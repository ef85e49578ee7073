"""From a set of undecoded pictures, odometry and a command to an Observation, and back to the reason where not."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from opendrivevla_ros.core.ego import Command, DrivingCommand
from opendrivevla_ros.core.rig import CAMERA_NAMES, CameraRig
from opendrivevla_ros.sensing.assembler import CommandKeeper, ObservationAssembler
from opendrivevla_ros.sensing.calibration import load_rig
from opendrivevla_ros.sensing.images import CompressedImage, EncodedImage, RawImage
from opendrivevla_ros.sensing.odometry import OdometryBuffer
from opendrivevla_ros.sensing.refusals import ObservationError, ObservationFailure, Refusal
from opendrivevla_ros.sensing.synchronizer import FrameSet, SyncedFrame, Synchronizer, SynchronizerSettings

SECOND = 1_000_000_000
STAMP = 1_600_000_000 * SECOND
EXAMPLE = Path(__file__).parents[2] / "config" / "rig" / "nuscenes.yaml"
COMMAND = DrivingCommand(Command.TURN_LEFT, "left, please", is_default=False)


@pytest.fixture(scope="module")
def rig() -> CameraRig:
    """The example rig with pictures of 160x96 pixels."""
    scale = np.diag([0.1, 96 / 900, 1.0])
    example = load_rig(EXAMPLE)
    small = (replace(c, width=160, height=96, intrinsics=scale @ c.intrinsics) for c in example.cameras)
    return CameraRig(tuple(small), example.lidar_to_base)


@pytest.fixture(scope="module")
def assembler(rig: CameraRig):
    assembler = ObservationAssembler(rig, image_size=(80, 48))
    yield assembler
    assembler.close()


@pytest.fixture
def odometry() -> OdometryBuffer:
    buffer = OdometryBuffer()
    add_odometry(buffer, STAMP - SECOND, STAMP + SECOND)
    return buffer


def add_odometry(buffer: OdometryBuffer, first_ns: int, last_ns: int) -> None:
    for stamp in range(first_ns, last_ns, 10_000_000):
        position = (5.0 * (stamp - STAMP) / SECOND, 0.0, 0.0)
        rotation, still = (0.0, 0.0, 0.0, 1.0), (0.0, 0.0, 0.0)
        refused = buffer.add(
            stamp,
            position=position,
            quaternion_xyzw=rotation,
            linear=(5.0, 0.0, 0.0),
            angular=still,
            frame_id="odom",
            child_frame_id="base_link",
        )
        assert refused is None


def jpeg(shade: int, width: int = 160, height: int = 96) -> CompressedImage:
    return CompressedImage(cv2.imencode(".jpg", np.full((height, width, 3), shade, np.uint8))[1].tobytes())


def raw(shade: int, width: int = 160, height: int = 96) -> RawImage:
    return RawImage("bgr8", width, height, width * 3, False, bytes([shade]) * (width * height * 3))


def frame_set(**changes: SyncedFrame) -> FrameSet:
    """A whole set whose picture of camera k has the shade 20 (k + 1), with some frames replaced."""
    frames = {
        name: SyncedFrame(name, STAMP + index, jpeg(20 * (index + 1))) for index, name in enumerate(CAMERA_NAMES)
    }
    return FrameSet(STAMP, {**frames, **changes})


def test_a_set_becomes_an_observation_in_the_order_of_the_rig(
    assembler: ObservationAssembler, odometry: OdometryBuffer, rig: CameraRig
) -> None:
    shuffled = FrameSet(
        STAMP, dict(reversed(frame_set(cam_back=SyncedFrame("cam_back", STAMP + 3, raw(80))).frames.items()))
    )
    observation = assembler.assemble(shuffled, odometry, COMMAND)
    assert [frame.camera for frame in observation.frames] == list(CAMERA_NAMES)
    assert [round(frame.image.mean()) for frame in observation.frames] == pytest.approx(
        [20, 40, 60, 80, 100, 120], abs=1
    )
    assert (observation.stamp_ns, observation.skew_ns, observation.degraded) == (STAMP, 5, ())
    assert observation.ego.velocity.tolist() == [5.0, 0.0, 0.0]
    assert observation.command is COMMAND
    assert observation.rig is rig


def test_jpegs_come_at_the_reduced_size_and_raw_pictures_whole(
    assembler: ObservationAssembler, odometry: OdometryBuffer
) -> None:
    mixed = frame_set(cam_back=SyncedFrame("cam_back", STAMP, raw(80)))
    shapes = {frame.camera: frame.image.shape for frame in assembler.assemble(mixed, odometry, COMMAND).frames}
    assert shapes["cam_front"] == (48, 80, 3)
    assert shapes["cam_back"] == (96, 160, 3)


def test_held_and_blank_frames_are_marked_and_blank_ones_black(
    assembler: ObservationAssembler, odometry: OdometryBuffer
) -> None:
    degraded = frame_set(
        cam_back=SyncedFrame("cam_back", STAMP - SECOND // 4, jpeg(80), held=True),
        cam_back_left=SyncedFrame("cam_back_left", STAMP, None, blank=True),
    )
    observation = assembler.assemble(degraded, odometry, COMMAND)
    held, blank = observation.frames[3], observation.frames[4]
    assert observation.degraded == ("cam_back held", "cam_back_left blank")
    assert held.held
    assert observation.skew_ns == SECOND // 4
    assert blank.blank
    assert blank.image.shape == (96, 160, 3)
    assert not blank.image.any()


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (jpeg(80, 320, 192), "cam_back: a picture of 320x192 contradicts the calibration, which says 160x96"),
        (raw(80, 96, 160), "cam_back: a picture of 96x160 contradicts"),
        (CompressedImage(jpeg(80).data[:-40]), "cam_back: a JPEG of 160x96 is cut off"),
        (CompressedImage(b""), "cam_back: a compressed picture has no bytes"),
        (replace(raw(80), encoding="bgr9"), "cam_back: encoding 'bgr9'"),
        (replace(raw(80), step=100), "cam_back: step 100"),
    ],
)
def test_a_bad_picture_is_refused_by_camera_and_the_next_good_set_is_taken(
    image: EncodedImage, words: str, assembler: ObservationAssembler, odometry: OdometryBuffer
) -> None:
    with pytest.raises(ObservationError) as caught:
        assembler.assemble(frame_set(cam_back=SyncedFrame("cam_back", STAMP, image)), odometry, COMMAND)
    assert str(caught.value).startswith(words)
    assert (caught.value.reason, caught.value.camera) == (Refusal.BAD_IMAGE, "cam_back")
    assert caught.value.reason.failure is ObservationFailure.BAD_IMAGE
    assert caught.value.refused.ends_attempt
    assert len(assembler.assemble(frame_set(), odometry, COMMAND).frames) == 6


def test_a_set_without_odometry_is_refused(assembler: ObservationAssembler) -> None:
    with pytest.raises(ObservationError) as caught:
        assembler.assemble(frame_set(), OdometryBuffer(), COMMAND)
    assert caught.value.reason is Refusal.ODOMETRY_MISSING


def test_a_real_keyframe_goes_from_bytes_to_an_observation(keyframe_folder: Path) -> None:
    frame = json.loads((keyframe_folder / "frame.json").read_text())
    cameras = {name: frame["cameras"][name.upper()] for name in CAMERA_NAMES}
    anchor = cameras["cam_front"]["timestamp_us"] * 1000
    synchronizer = Synchronizer(SynchronizerSettings(max_wait_s=0.0))
    odometry = OdometryBuffer()
    for stamp in range(anchor - SECOND, anchor + SECOND, 10_000_000):
        odometry.add(
            stamp,
            position=(0.0, 0.0, 0.0),
            quaternion_xyzw=(0.0, 0.0, 0.0, 1.0),
            linear=(0.0, 0.0, 0.0),
            angular=(0.0, 0.0, 0.0),
            frame_id="odom",
            child_frame_id="base_link",
        )
        synchronizer.add_odometry(stamp, stamp)
    sets = []
    for name in sorted(CAMERA_NAMES, key=lambda name: name == "cam_front"):
        image = CompressedImage((keyframe_folder / f"{name.upper()}.jpg").read_bytes())
        sets += synchronizer.add_image(name, cameras[name]["timestamp_us"] * 1000, image, anchor)
    (chosen,) = sets
    assert isinstance(chosen, FrameSet)
    assembler = ObservationAssembler(load_rig(EXAMPLE), image_size=(800, 450), workers=2)
    observation = assembler.assemble(chosen, odometry, COMMAND)
    assembler.close()
    assert {frame.image.shape for frame in observation.frames} == {(450, 800, 3)}
    assert observation.skew_ns == 34_963_000


def test_a_command_is_followed_until_it_is_stale() -> None:
    keeper = CommandKeeper(timeout_s=2.0, default=Command.TURN_RIGHT)
    assert keeper.at(0) == DrivingCommand(Command.TURN_RIGHT, "", is_default=True)
    assert not keeper.is_stale(0)
    assert keeper.receive(1, "left, please", SECOND) is None
    assert keeper.at(3 * SECOND) == COMMAND
    assert keeper.at(3 * SECOND + 1).is_default
    assert keeper.is_stale(3 * SECOND + 1)
    assert keeper.receive(1, "left, please", 4 * SECOND) is None
    assert keeper.at(4 * SECOND) == COMMAND
    keeper.clear()
    assert keeper.at(4 * SECOND).is_default


def test_a_timeout_of_zero_keeps_a_command_for_ever() -> None:
    keeper = CommandKeeper(timeout_s=0.0)
    keeper.receive(2, "", 0)
    assert keeper.at(10**6 * SECOND).command is Command.TURN_RIGHT


def test_an_unknown_command_is_refused_and_leaves_the_old_one() -> None:
    keeper = CommandKeeper()
    keeper.receive(1, "", 0)
    refused = keeper.receive(7, "", SECOND)
    assert refused is not None
    assert refused.reason.failure is ObservationFailure.BAD_COMMAND
    assert refused.message == "command 7 is not one of 0 KEEP_FORWARD, 1 TURN_LEFT, 2 TURN_RIGHT"
    assert keeper.at(SECOND).command is Command.TURN_LEFT


def test_a_negative_timeout_is_refused() -> None:
    with pytest.raises(ValueError, match="timeout_s is -1"):
        CommandKeeper(timeout_s=-1.0)
