"""Writes a nuScenes-format data set from frames of any source: pictures, ego motion, boxes and a road map.

What cameras alone cannot give is there in form only: LIDAR_TOP has an empty point cloud for each sample, and
`num_lidar_pts` is the count that the source gives in its place.
"""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from opendrivevla_ros.core.geometry import Array, planar_transform, quaternion
from opendrivevla_ros.core.observation import CameraFrame, Observation
from opendrivevla_ros.datasets.nuscenes_map import MAP_NAME, MapWriter, RoadLayers
from opendrivevla_ros.datasets.nuscenes_tables import (
    ATTRIBUTES,
    DETECTION_CLASSES,
    GRAVITY,
    LIDAR_CHANNEL,
    VISIBILITIES,
    DatasetError,
    Row,
    pose_columns,
    token,
)
from opendrivevla_ros.datasets.nuscenes_writer import TableWriter, write_error
from opendrivevla_ros.language.prompt import STEERING_RATIO

FIRST_SCENE, LAST_SCENE = 2001, 9999  # nuScenes' own numbers end at 1110; the devkit takes four digits
JPEG_QUALITY = 92


@dataclass(frozen=True)
class ExportBox:
    """A road user or object at the stamp of its frame.

    instance: its name, the same in all frames of a scene. category, attribute: nuScenes' words; the attribute may be
    empty. position: [3] box centre, size: (length, width, height), yaw: radians, all in the frame of the ego poses.
    points: stands for the lidar points on it; the official evaluation leaves boxes with 0 out. visibility: 1 (less
    than 40 % seen) to 4 (more than 80 %).
    """

    instance: str
    category: str
    position: Array
    size: Array
    yaw: float
    attribute: str = ""
    points: int = 1
    visibility: int = 4


@dataclass(frozen=True)
class ExportFrame:
    """A keyframe: what the policy would see, where base_link was at each picture's stamp [6, 4, 4], and the boxes."""

    observation: Observation
    picture_poses: Array
    boxes: tuple[ExportBox, ...] = ()


@dataclass(frozen=True)
class ExportScene:
    """A drive of at least two frames, two a second. split: the name of the devkit's custom split that it belongs to.

    frames are taken once, one at a time, so that only one frame's pictures are in memory.
    """

    name: str
    split: str
    road: RoadLayers
    frames: Iterable[ExportFrame]


@dataclass(frozen=True)
class ExportedScene:
    """Where a scene went: its name in the data set, and the shift [2], metres, from its own frame to the map's."""

    source: str
    name: str
    samples: int
    shift: Array


def export_nuscenes(
    root: str | Path,
    scenes: Iterable[ExportScene],
    *,
    version: str = "v1.0-world",
    progress: Callable[[ExportedScene], None] = lambda scene: None,
) -> list[ExportedScene]:
    """Writes the data set `root`, which must not be there yet; the same scenes give the same bytes.

    Everything goes to a folder beside it, which takes its name at the end, so that `root` is whole or absent.
    progress: called after each scene. Raises DatasetError, also when the disk is full; then nothing is left behind.
    """
    root = Path(root)
    if root.exists():
        raise DatasetError(f"{root} is there already; remove it or choose another name for the data set to write")
    unfinished = root.with_name(f".{root.name}.unfinished")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        exporter = _Exporter(TableWriter(unfinished, version))
        exported = []
        for scene in scenes:
            exported.append(exporter.add(scene))
            progress(exported[-1])
        if not exported:
            raise DatasetError(f"there is no scene to write to {root}; give at least one")
        exporter.finish()
        _rename(unfinished, root)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return exported


def _rename(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError as error:
        raise write_error(target, error) from error


class _Exporter:
    """Scene after scene into one set of tables and one map."""

    def __init__(self, writer: TableWriter) -> None:
        self._writer = writer
        self._map = MapWriter()
        self._logs: list[str] = []
        self._splits: dict[str, list[str]] = {}
        self._commands: dict[str, str] = {}

    def add(self, scene: ExportScene) -> ExportedScene:
        number = FIRST_SCENE + len(self._logs)
        if number > LAST_SCENE:
            limit = LAST_SCENE - FIRST_SCENE + 1
            raise DatasetError(
                f"{scene.name} is one scene too many: the devkit's names end after {limit}; export less"
            )
        name = f"scene-{number}"
        shift = self._map.add(name, scene.road)
        recorder = _SceneRecorder(self._writer, name, scene.name, planar_transform(shift[0], shift[1], 0.0))
        for frame in scene.frames:
            sample = recorder.add(frame)
            self._commands[sample["token"]] = frame.observation.command.command.name
        samples = recorder.finish()
        if len(samples) < 2:
            raise DatasetError(f"{scene.name} has {len(samples)} frames; a scene needs at least 2 to hold any motion")
        date = datetime.fromtimestamp(samples[0]["timestamp"] // 10**6, timezone.utc).date().isoformat()
        log = self._writer.row(
            "log", name, logfile=name, vehicle="opendrivevla_ros", date_captured=date, location=MAP_NAME
        )
        self._writer.row(
            "scene",
            name,
            log_token=log["token"],
            nbr_samples=len(samples),
            first_sample_token=samples[0]["token"],
            last_sample_token=samples[-1]["token"],
            name=name,
            description=scene.name,
        )
        self._logs.append(log["token"])
        self._splits.setdefault(scene.split, []).append(name)
        return ExportedScene(scene.name, name, len(samples), shift)

    def finish(self) -> None:
        mask = f"maps/{MAP_NAME}.png"
        self._writer.row("map", MAP_NAME, log_tokens=self._logs, category="semantic_prior", filename=mask)
        self._writer.write(mask, self._map.mask())
        self._writer.write_json(f"maps/expansion/{MAP_NAME}.json", self._map.expansion())
        self._writer.finish(splits=self._splits, commands=self._commands)


class _SceneRecorder:
    """The rows and files of one scene. shift: the 4x4 transform from its own frame to the map's."""

    def __init__(self, writer: TableWriter, name: str, source: str, shift: Array) -> None:
        self._writer, self._name, self._source, self._shift = writer, name, source, shift
        self._samples: list[Row] = []
        self._newest: dict[str, Row] = {}  # by channel, the last sample_data
        self._tracks: dict[str, list[Row]] = {}  # by instance, its annotations
        self._categories: dict[str, str] = {}
        self._motion: list[Row] = []
        self._steering: list[Row] = []

    def add(self, frame: ExportFrame) -> Row:
        """Writes a frame's pictures and rows; returns the row of its sample."""
        observation = frame.observation
        stamp = observation.stamp_ns // 1000
        if self._samples and stamp <= self._samples[-1]["timestamp"]:
            before = self._samples[-1]["timestamp"]
            raise DatasetError(f"{self._source} has a frame at {stamp} us after one at {before} us; stamps must rise")
        self._check(frame, stamp)
        sample = self._writer.row(
            "sample", self._name, stamp, timestamp=stamp, prev="", next="", scene_token=token("scene", self._name)
        )
        _link(self._samples[-1] if self._samples else None, sample)
        self._samples.append(sample)
        self._add_lidar(sample, observation)
        for picture, pose in zip(observation.frames, frame.picture_poses, strict=True):
            self._add_picture(sample, observation, picture, pose)
        for box in frame.boxes:
            self._add_box(sample, box)
        self._add_motion(stamp, observation)
        return sample

    def _check(self, frame: ExportFrame, stamp: int) -> None:
        """Raises DatasetError for a frame that the tables cannot hold."""
        observation = frame.observation
        if not (observation.ego.is_finite and np.isfinite(observation.ego.steering)):
            raise DatasetError(
                f"{self._source} has an ego state at {stamp} us that is not finite; leave the frame out"
            )
        problems = observation.rig.problems()
        if problems or not np.isfinite(observation.rig.lidar_to_base).all():
            found = problems[0] if problems else "the lidar's pose is not finite"
            raise DatasetError(f"{self._source} has a rig at {stamp} us that is unfit: {found}")
        cameras = tuple(camera.name for camera in observation.rig.cameras)
        if tuple(picture.camera for picture in observation.frames) != cameras:
            raise DatasetError(f"{self._source} has pictures at {stamp} us that are not one of each camera: {cameras}")
        if np.shape(frame.picture_poses) != (len(cameras), 4, 4):
            shape = np.shape(frame.picture_poses)
            raise DatasetError(
                f"{self._source} has picture poses of shape {shape} at {stamp} us; give {(len(cameras), 4, 4)}"
            )

    def finish(self) -> list[Row]:
        """Writes the instances and the CAN bus; returns the rows of the samples."""
        for instance, rows in self._tracks.items():
            self._writer.row(
                "instance",
                self._name,
                instance,
                category_token=token("category", self._categories[instance]),
                nbr_annotations=len(rows),
                first_annotation_token=rows[0]["token"],
                last_annotation_token=rows[-1]["token"],
            )
        self._writer.write_json(f"can_bus/{self._name}_pose.json", self._motion)
        self._writer.write_json(f"can_bus/{self._name}_steeranglefeedback.json", self._steering)
        return self._samples

    def _add_lidar(self, sample: Row, observation: Observation) -> None:
        filename = f"samples/{LIDAR_CHANNEL}/{self._name}__{LIDAR_CHANNEL}__{sample['timestamp']}.pcd.bin"
        self._writer.write(filename, b"")
        self._add_data(
            sample,
            LIDAR_CHANNEL,
            sample["timestamp"],
            observation.ego.base_to_world,
            calibration=self._calibration(LIDAR_CHANNEL, "lidar", observation.rig.lidar_to_base, []),
            fileformat="pcd",
            height=0,
            width=0,
            filename=filename,
        )

    def _add_picture(self, sample: Row, observation: Observation, picture: CameraFrame, pose: Array) -> None:
        camera, channel = observation.rig[picture.camera], picture.camera.upper()
        stamp = picture.stamp_ns // 1000
        if picture.image.dtype != np.uint8:
            raise DatasetError(f"{self._source} has a picture of {channel} of {picture.image.dtype}; give BGR uint8")
        height, width = picture.image.shape[:2]
        if (width, height) != (camera.width, camera.height):
            calibrated = f"{camera.width}x{camera.height}"
            message = f"{self._source} has a picture of {channel} of {width}x{height}, calibrated for {calibrated}"
            raise DatasetError(f"{message}; give pictures of the calibrated size")
        whole, data = cv2.imencode(".jpg", picture.image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        if not whole:
            raise DatasetError(f"{self._source} has a picture of {channel} that is no JPEG; give BGR uint8 pictures")
        filename = f"samples/{channel}/{self._name}__{channel}__{stamp}.jpg"
        self._writer.write(filename, data.tobytes())
        self._add_data(
            sample,
            channel,
            stamp,
            pose,
            calibration=self._calibration(channel, "camera", camera.camera_to_base, camera.intrinsics.tolist()),
            fileformat="jpg",
            height=height,
            width=width,
            filename=filename,
        )

    def _calibration(self, channel: str, modality: str, sensor_to_base: Array, intrinsics: list[Any]) -> str:
        sensor = self._writer.row_once("sensor", channel, channel=channel, modality=modality)
        return self._writer.row_once(
            "calibrated_sensor",
            self._name,
            channel,
            sensor_token=sensor,
            **pose_columns(sensor_to_base),
            camera_intrinsic=intrinsics,
        )

    def _add_data(
        self, sample: Row, channel: str, stamp: int, base_to_world: Array, *, calibration: str, **columns: Any
    ) -> None:
        pose = self._writer.row(
            "ego_pose", self._name, channel, stamp, timestamp=stamp, **self._pose(base_to_world, f"ego at {stamp} us")
        )
        data = self._writer.row(
            "sample_data",
            self._name,
            channel,
            stamp,
            sample_token=sample["token"],
            ego_pose_token=pose["token"],
            calibrated_sensor_token=calibration,
            timestamp=stamp,
            is_key_frame=True,
            prev="",
            next="",
            **columns,
        )
        _link(self._newest.get(channel), data)
        self._newest[channel] = data

    def _add_box(self, sample: Row, box: ExportBox) -> None:
        named = f"{box.instance} in {self._source}"
        if box.category not in DETECTION_CLASSES:
            raise DatasetError(f"{named} is a {box.category!r}; nuScenes knows {', '.join(DETECTION_CLASSES)}")
        if box.attribute and box.attribute not in ATTRIBUTES:
            raise DatasetError(f"{named} has attribute {box.attribute!r}; nuScenes knows {', '.join(ATTRIBUTES)}")
        if str(box.visibility) not in VISIBILITIES:
            raise DatasetError(f"{named} has visibility {box.visibility}; nuScenes has 1 to {len(VISIBILITIES)}")
        length, width, height = (float(side) for side in box.size)
        if not (np.isfinite([length, width, height]).all() and min(length, width, height) > 0):
            raise DatasetError(f"{named} has the size {[length, width, height]}; sides must be finite and above 0")
        if not isinstance(box.points, int) or box.points < 0:
            raise DatasetError(f"{named} has {box.points!r} points; give a whole number from 0 on")
        pose = planar_transform(0.0, 0.0, box.yaw)
        pose[:3, 3] = box.position
        row = self._writer.row(
            "sample_annotation",
            self._name,
            box.instance,
            sample["timestamp"],
            sample_token=sample["token"],
            instance_token=token("instance", self._name, box.instance),
            visibility_token=str(box.visibility),
            attribute_tokens=[token("attribute", box.attribute)] if box.attribute else [],
            size=[width, length, height],
            prev="",
            next="",
            num_lidar_pts=box.points,
            num_radar_pts=0,
            **self._pose(pose, named),
        )
        track = self._tracks.setdefault(box.instance, [])
        if track and track[-1]["sample_token"] == sample["token"]:
            raise DatasetError(
                f"{named} has two boxes in the frame at {sample['timestamp']} us; give each its own name"
            )
        self._categories[box.instance] = box.category
        _link(track[-1] if track else None, row)
        track.append(row)

    def _add_motion(self, stamp: int, observation: Observation) -> None:
        ego = observation.ego
        x, y, z, w = quaternion(ego.base_to_world).tolist()
        self._motion.append(
            {
                "utime": stamp,
                "pos": (self._shift @ ego.base_to_world)[:3, 3].tolist(),
                "orientation": [w, x, y, z],
                "vel": ego.velocity.tolist(),
                "accel": (ego.acceleration + np.array([0.0, 0.0, GRAVITY])).tolist(),
                "rotation_rate": ego.angular_velocity.tolist(),
            }
        )
        self._steering.append({"utime": stamp, "value": STEERING_RATIO * ego.steering})

    def _pose(self, pose: Array, whose: str) -> Row:
        if not np.isfinite(pose).all():
            raise DatasetError(f"{whose} has a pose that is not finite: {pose.tolist()}; leave the frame out")
        return pose_columns(self._shift @ pose)


def _link(before: Row | None, row: Row) -> None:
    """Makes two rows neighbours in time."""
    if before is not None:
        before["next"], row["prev"] = row["token"], before["token"]
