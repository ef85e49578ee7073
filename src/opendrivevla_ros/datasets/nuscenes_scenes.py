"""Scenes of a nuScenes-format data set as training samples: nuScenes itself and exports by the same code.

t0 of a sample is its keyframe's stamp, that of the lidar, at which the boxes are annotated.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from opendrivevla_ros.core.ego import Command, DrivingCommand
from opendrivevla_ros.core.geometry import Array, apply, invert, yaw_of
from opendrivevla_ros.core.observation import CameraFrame, Observation
from opendrivevla_ros.core.rig import CAMERA_NAMES, CameraCalibration, CameraRig
from opendrivevla_ros.core.trajectory import FUTURE_TIMES_S
from opendrivevla_ros.datasets.driving_samples import AgentLabel, DrivingSample
from opendrivevla_ros.datasets.map_elements import MapGeometry
from opendrivevla_ros.datasets.nuscenes_labels import AgentTracks
from opendrivevla_ros.datasets.nuscenes_motion import SceneMotion, published_command, read_can_bus
from opendrivevla_ros.datasets.nuscenes_tables import LIDAR_CHANNEL, DatasetError, Row, Tables, read_json
from opendrivevla_ros.sensing.images import ImageError, Size, compressed_size, decode_compressed


@dataclass(frozen=True)
class Following:
    """A later keyframe, in base_link at the sample. pose: [3] x, y, yaw of base_link. agents: who is there then."""

    pose: Array
    agents: tuple[AgentLabel, ...]


class NuScenesScenes:
    """The scenes of a data set in the order of its table: `for scene in scenes: for sample in scene: ...`.

    root: the folder that holds `samples/` and the folder of tables `version`. image_size: (width, height) that is
    needed; JPEGs may come smaller than they are, but not than this. split: of nuScenes ("train", "mini_val", ...) or
    of the data set's own splits.json; None for all scenes. map_reach: (forward and back, left and right), metres, of
    the map labels; None to go without.
    absent: the scenes of the split that the tables lack.
    Raises DatasetError for tables that are broken and pictures that are missing; opening a scene checks its labels.
    """

    def __init__(
        self,
        root: str | Path,
        version: str,
        *,
        image_size: Size,
        split: str | None = None,
        map_reach: tuple[float, float] | None = (51.2, 51.2),
    ) -> None:
        self.tables = Tables(root, version)
        self.image_size = image_size
        self._map_reach = map_reach
        self._maps: dict[str, MapGeometry] = {}
        self._data = self._data_by_sample()
        self._annotations: dict[str, list[Row]] = defaultdict(list)
        for row in self.tables.all("sample_annotation"):
            self._annotations[self.tables.text("sample_annotation", row, "sample_token")].append(row)
        chosen = None if split is None else _names_of_split(self.tables, split)
        rows = [(self.tables.text("scene", row, "name"), row) for row in self.tables.all("scene")]
        self._scenes = {name: row for name, row in rows if chosen is None or name in chosen}
        if not self._scenes:
            asked = "at all" if split is None else f"of the split {split!r}"
            raise self.tables.broken("scene", f"has no scene {asked}")
        self.absent = tuple(sorted((chosen or set()) - set(self._scenes)))
        self._check_pictures()

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(self, name: str) -> "NuScenesScene":
        return NuScenesScene(self, name, self._scenes[name])

    def __iter__(self) -> Iterator["NuScenesScene"]:
        return (self[name] for name in self._scenes)

    @property
    def names(self) -> list[str]:
        """The scenes' names in order."""
        return list(self._scenes)

    @cached_property
    def commands(self) -> dict[str, str]:
        """Navigation commands by sample token, where the data set has them: exports do, nuScenes does not."""
        path = self.tables.path("commands")
        commands = read_json(path, "export the data set again") if path.is_file() else {}
        if not isinstance(commands, dict):
            raise self.tables.broken("commands", "is not a mapping of sample token to command")
        return commands

    @cached_property
    def _samples_by_scene(self) -> dict[str, list[Row]]:
        tables = self.tables
        samples: dict[str, list[Row]] = defaultdict(list)
        for row in sorted(tables.all("sample"), key=lambda row: tables.whole("sample", row, "timestamp")):
            samples[tables.text("sample", row, "scene_token")].append(row)
        return samples

    def data(self, sample: str, channel: str) -> Row:
        """The sample_data of a keyframe and channel."""
        try:
            return self._data[sample][channel]
        except KeyError:
            raise self.tables.broken("sample_data", f"has no {channel} for the sample {sample!r}") from None

    def annotations(self, sample: str) -> list[Row]:
        """The sample_annotations of a keyframe."""
        return self._annotations.get(sample, [])

    def sample_tokens(self, name: str) -> list[str]:
        """The tokens of a scene's keyframes in the order of time, also where the scene itself cannot be used."""
        scene = self._scenes[name]["token"]
        return [row["token"] for row in self._samples_by_scene.get(scene, [])]

    def fingerprint(self, name: str) -> str:
        """SHA-256 in hex of what the tables say of a scene: samples, poses, calibrations, annotations and commands."""
        tables, digest = self.tables, hashlib.sha256()
        for sample in self.sample_tokens(name):
            rows: list[object] = [tables.get("sample", sample), self.annotations(sample), self.commands.get(sample)]
            for _, data in sorted(self._data.get(sample, {}).items()):
                rows.append(data)
                for table in ("ego_pose", "calibrated_sensor"):
                    with suppress(DatasetError):  # opening the scene tells what is broken
                        rows.append(tables.get(table, tables.value("sample_data", data, f"{table}_token")))
            digest.update(json.dumps(rows, sort_keys=True).encode())
        return digest.hexdigest()

    def map_at(self, scene: Row) -> MapGeometry | None:
        """The map of a scene's place; None when maps are not asked for."""
        if self._map_reach is None:
            return None
        log = self.tables.get("log", self.tables.value("scene", scene, "log_token"))
        place = self.tables.text("log", log, "location")
        if place not in self._maps:
            self._maps[place] = MapGeometry.read(self.tables.root, place, reach=self._map_reach)
        return self._maps[place]

    def samples(self, scene: Row) -> list[Row]:
        """The keyframes of a scene in order. Raises DatasetError where they do not lead from first to last."""
        tables, name = self.tables, scene["name"]
        count = tables.whole("scene", scene, "nbr_samples")
        token, rows = tables.value("scene", scene, "first_sample_token"), list[Row]()
        while token and len(rows) < count:
            rows.append(tables.get("sample", token))
            token = tables.value("sample", rows[-1], "next")
        if token or len(rows) != count:
            raise tables.broken("sample", f"does not lead through the {count} samples of {name}")
        stamps = [tables.whole("sample", row, "timestamp") for row in rows]
        if any(second <= first for first, second in pairwise(stamps)):
            raise tables.broken("sample", f"has stamps in {name} that do not rise")
        if count < 2:
            sentence = f"{tables.path('scene')} has {name} with {count} sample: too few for motion and future"
            raise DatasetError(f"{sentence}; remove the scene, or leave it out with a split")
        return rows

    def _data_by_sample(self) -> dict[str, dict[str, Row]]:
        tables = self.tables
        data: dict[str, dict[str, Row]] = defaultdict(dict)
        for row in tables.all("sample_data"):
            sensor = tables.get("calibrated_sensor", tables.value("sample_data", row, "calibrated_sensor_token"))
            channel = tables.get("sensor", tables.value("calibrated_sensor", sensor, "sensor_token"))
            data[tables.text("sample_data", row, "sample_token")][tables.text("sensor", channel, "channel")] = row
        return data

    def _check_pictures(self) -> None:
        """One look at the disk before hours of training."""
        scenes = {row["token"] for row in self._scenes.values()}
        missing, count = [], 0
        for sample in self.tables.all("sample"):
            if self.tables.text("sample", sample, "scene_token") not in scenes:
                continue
            for camera in CAMERA_NAMES:
                row = self.data(sample["token"], camera.upper())
                path = self.tables.root / self.tables.text("sample_data", row, "filename")
                count += 1
                if not path.is_file():
                    missing.append(path)
        if missing:
            sentence = f"{len(missing)} of {count} pictures of {len(scenes)} scenes are missing, first {missing[0]}"
            raise DatasetError(f"{sentence}; unpack the missing archives, or choose a split of scenes that are there")


class NuScenesScene:
    """One scene: a sequence of samples in the order of time, whose pictures are decoded when asked for.

    Raises DatasetError for labels and poses that are not finite, and for a scene of one sample.
    """

    def __init__(self, scenes: NuScenesScenes, name: str, row: Row) -> None:
        self.name = name
        self._scenes, self._tables = scenes, scenes.tables
        self._samples = scenes.samples(row)
        self._stamps_ns = [sample["timestamp"] * 1000 for sample in self._samples]
        lidars = [scenes.data(sample["token"], LIDAR_CHANNEL) for sample in self._samples]
        self._lidar_to_base = [self._sensor_pose(lidar) for lidar in lidars]
        self._poses = np.stack([self._ego_pose(lidar) for lidar in lidars])
        self._motion = SceneMotion(self._stamps_ns, self._poses, read_can_bus(self._tables.root, name))
        annotations = [scenes.annotations(sample["token"]) for sample in self._samples]
        self._agents = AgentTracks(self._tables, annotations, self._stamps_ns)
        self._map = scenes.map_at(row)

    def __len__(self) -> int:
        return len(self._samples)

    def __iter__(self) -> Iterator[DrivingSample]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> DrivingSample:
        """The sample at an index from 0. Raises DatasetError for a picture or a calibration that is broken."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} samples, not one at {index}")
        token, pose = self._samples[index]["token"], self._poses[index]
        future, future_mask = self._motion.future(index)
        rig = self._rig(token, self._lidar_to_base[index])
        observation = Observation(
            stamp_ns=self._stamps_ns[index],
            frames=tuple(self._picture(token, camera) for camera in rig.cameras),
            rig=rig,
            ego=self._motion.ego_state(index),
            command=self._command(token, published_command(future, future_mask, rig.lidar_to_base)),
        )
        return DrivingSample(
            scene=self.name,
            token=token,
            index=index,
            observation=observation,
            future=future,
            future_mask=future_mask,
            agents=self._agents.at(index, pose),
            map_elements=None if self._map is None else self._map.elements(pose),
        )

    def following(self, index: int) -> list[Following]:
        """The keyframes after a sample, six or as many as the scene still has, as the published evaluation has them.

        They are those of the data set, whose times jitter by a sweep of the lidar, not places at exactly 0.5 s.
        """
        ahead = range(index + 1, min(index + 1 + len(FUTURE_TIMES_S), len(self)))
        to_base = invert(self._poses[index])
        steps = [to_base @ self._poses[later] for later in ahead]
        return [
            Following(np.array([*step[:2, 3], yaw_of(step)]), self._agents.at(later, self._poses[index]))
            for step, later in zip(steps, ahead, strict=True)
        ]

    def object_position(self, annotation: str) -> Array:
        """[3] the centre, in base_link at its sample, of the object that a sample_annotation of this scene is about.

        Instruction data names objects so. Raises DatasetError for an annotation that is not of this scene.
        """
        row = self._tables.get("sample_annotation", annotation)
        tokens = [sample["token"] for sample in self._samples]
        if row.get("sample_token") not in tokens:
            raise self._tables.broken("sample_annotation", f"has {annotation!r} in another scene than {self.name}")
        centre = self._tables.numbers("sample_annotation", row, "translation", 3)
        return apply(invert(self._poses[tokens.index(row["sample_token"])]), centre)

    def _command(self, sample: str, published: Command) -> DrivingCommand:
        """The stored command; where there is none, the published rule, which looks at the future."""
        name = self._scenes.commands.get(sample, published.name)
        try:
            return DrivingCommand(Command[str(name)], is_default=False)
        except KeyError:
            known = ", ".join(command.name for command in Command)
            raise self._tables.broken("commands", f"has {name!r} for {sample!r}, which is none of {known}") from None

    def _rig(self, sample: str, lidar_to_base: Array) -> CameraRig:
        rig = CameraRig(tuple(self._camera(sample, name) for name in CAMERA_NAMES), lidar_to_base)
        problems = rig.problems()
        if problems:
            raise self._tables.broken("calibrated_sensor", f"has a rig for {self.name} that is unfit: {problems[0]}")
        return rig

    def _camera(self, sample: str, name: str) -> CameraCalibration:
        row = self._scenes.data(sample, name.upper())
        sensor = self._tables.get("calibrated_sensor", row["calibrated_sensor_token"])
        intrinsics = self._tables.numbers("calibrated_sensor", sensor, "camera_intrinsic", 3, 3)
        width, height = (self._tables.whole("sample_data", row, side) for side in ("width", "height"))
        return CameraCalibration(name, width, height, intrinsics, self._sensor_pose(row))

    def _picture(self, sample: str, camera: CameraCalibration) -> CameraFrame:
        row = self._scenes.data(sample, camera.name.upper())
        path, stamp = self._tables.root / row["filename"], self._tables.whole("sample_data", row, "timestamp")
        try:
            data = path.read_bytes()
            width, height = compressed_size(data)
            if (width, height) != (camera.width, camera.height):
                raise ImageError(f"{width}x{height} pixels where the tables say {camera.width}x{camera.height}")
            image = decode_compressed(data, min_size=self._scenes.image_size)
        except OSError as error:
            raise DatasetError(f"{path} cannot be read ({error.strerror}); unpack or export it again") from None
        except ImageError as error:
            raise DatasetError(f"{path} is no picture ({error}); unpack or export it again") from None
        return CameraFrame(camera.name, stamp * 1000, image)

    def _sensor_pose(self, data: Row) -> Array:
        sensor = self._tables.get("calibrated_sensor", data["calibrated_sensor_token"])
        return self._tables.pose("calibrated_sensor", sensor)

    def _ego_pose(self, data: Row) -> Array:
        return self._tables.pose("ego_pose", self._tables.get("ego_pose", data["ego_pose_token"]))


def _names_of_split(tables: Tables, split: str) -> set[str]:
    """The scenes of one of nuScenes' splits, or of the data set's own."""
    own = tables.path("splits")
    splits = read_json(own, "write it again") if own.is_file() else {}
    if not (isinstance(splits, dict) and all(isinstance(names, list) for names in splits.values())):
        raise tables.broken("splits", "is not a mapping of split to scenes' names")
    if split not in splits:
        try:
            from nuscenes.utils.splits import create_splits_scenes
        except ImportError as error:
            message = f"nuScenes' splits are in nuscenes-devkit ({error}); pip install nuscenes-devkit"
            raise DatasetError(message) from None
        splits = {**create_splits_scenes(), **splits}
    if split not in splits:
        raise DatasetError(f"{own} has no split {split!r}; it and nuScenes have {', '.join(splits)}")
    return set(map(str, splits[split]))
