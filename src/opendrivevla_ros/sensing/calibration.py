"""The camera rig from a calibration file, or from CameraInfo and extrinsics; and the watch over CameraInfo.

The file is YAML:

    cameras:
      cam_front:
        width: 1600
        height: 900
        intrinsics: [fx, fy, cx, cy]        # pixels
        camera_to_base:                     # the optical frame (x right, y down, z forward) in base_link
          translation: [x, y, z]            # metres
          rotation_xyzw: [x, y, z, w]
    lidar_to_base: {translation: [x, y, z], rotation_xyzw: [x, y, z, w]}      # optional

Where CameraInfo gives the intrinsics, the file needs camera_to_base alone: see `load_extrinsics`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import ArrayLike

from opendrivevla_ros.core.geometry import NUSCENES_LIDAR_TO_BASE, Array, quaternion, transform
from opendrivevla_ros.core.rig import CAMERA_NAMES, CameraCalibration, CameraRig, RigProblem
from opendrivevla_ros.sensing.refusals import Refusal, Refused

INTRINSICS_TOLERANCE_PIXELS = 1.0  # between CameraInfo and the calibration file, which may be rounded
QUATERNION_TOLERANCE = 0.01
_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


class CalibrationError(ValueError):
    """A calibration that cannot be used."""


def load_rig(path: str | Path) -> CameraRig:
    """The rig in a calibration file. Raises CalibrationError, which names the file, the key and what it must be."""
    cameras, lidar_to_base = _read_file(Path(path))
    return CameraRig(tuple(_read_camera(name, cameras[name]) for name in CAMERA_NAMES), lidar_to_base)


def load_extrinsics(path: str | Path) -> tuple[dict[str, tuple[Array, Array]], Array]:
    """Where the cameras sit, as `rig_from_infos` takes it, and lidar_to_base, from a file with or without intrinsics.

    Raises CalibrationError as `load_rig` does.
    """
    cameras, lidar_to_base = _read_file(Path(path))
    extrinsics = {}
    for name in CAMERA_NAMES:
        fields = cameras[name].mapping({"camera_to_base"}, {"width", "height", "intrinsics"})
        pose = fields["camera_to_base"].transform()
        extrinsics[name] = (pose[:3, 3], quaternion(pose))
    return extrinsics, lidar_to_base


def _read_file(path: Path) -> tuple[dict[str, "_Node"], Array]:
    """The cameras' entries by name, and lidar_to_base."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(f"cannot read the calibration file {path}: {error}") from error
    except yaml.YAMLError as error:
        raise CalibrationError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    root = _Node(document, str(path)).mapping({"cameras"}, {"lidar_to_base"})
    cameras = root["cameras"].mapping(set(CAMERA_NAMES), set())
    lidar_to_base = root["lidar_to_base"].transform() if "lidar_to_base" in root else NUSCENES_LIDAR_TO_BASE.copy()
    return cameras, lidar_to_base


def save_rig(rig: CameraRig, path: str | Path, *, comment: str = "") -> None:
    """Writes a calibration file; pixels to a hundredth, metres and quaternions to 1e-4 and 1e-6.

    comment: lines of text for the file's head.
    """
    lines = [f"# {line}".rstrip() for line in comment.splitlines()] + ["cameras:"]
    for camera in rig.cameras:
        k = camera.intrinsics
        lines += [
            f"  {camera.name}:",
            f"    width: {camera.width}",
            f"    height: {camera.height}",
            f"    intrinsics: {_numbers([k[0, 0], k[1, 1], k[0, 2], k[1, 2]], 2)}",
            "    camera_to_base:",
            f"      translation: {_numbers(camera.camera_to_base[:3, 3], 4)}",
            f"      rotation_xyzw: {_numbers(quaternion(camera.camera_to_base), 6)}",
        ]
    lines += [
        "lidar_to_base:",
        f"  translation: {_numbers(rig.lidar_to_base[:3, 3], 4)}",
        f"  rotation_xyzw: {_numbers(quaternion(rig.lidar_to_base), 6)}",
    ]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def require_fit(rig: CameraRig) -> None:
    """Raises CalibrationError with a table of everything that makes a rig unfit for the model."""
    problems = rig.problems()
    if problems:
        raise CalibrationError(f"the camera rig does not fit the model:\n{problem_table(problems)}")


def problem_table(problems: Iterable[RigProblem]) -> str:
    """One line per problem: camera, found, expected."""
    rows = [("camera", "found", "expected"), *((p.camera, p.found, p.expected) for p in problems)]
    camera, found = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(f"{row[0]:<{camera}}  {row[1]:<{found}}  {row[2]}" for row in rows)


@dataclass(frozen=True)
class CameraInfo:
    """The numbers of a sensor_msgs/CameraInfo. k, r: 9 values by rows, p: 12 values by rows, d: any number."""

    width: int
    height: int
    k: Sequence[float]
    d: Sequence[float] = ()
    r: Sequence[float] = _IDENTITY
    p: Sequence[float] = ()
    distortion_model: str = "plumb_bob"

    @classmethod
    def of(cls, message: Any) -> "CameraInfo":
        """The numbers of a message, live or from a bag."""
        vectors = {name: tuple(getattr(message, name)) for name in ("k", "d", "r", "p")}
        return cls(int(message.width), int(message.height), **vectors, distortion_model=message.distortion_model)


def camera_from_info(
    name: str, info: CameraInfo, camera_to_base: Array, *, rectified: bool = False
) -> CameraCalibration:
    """The pinhole camera that CameraInfo describes, at `camera_to_base` [4, 4].

    rectified: the pictures are rectified ones: P holds for them, turned by R, and D is of no concern. Otherwise K
    holds, and distortion is refused, for the model sees pinhole cameras. Raises CalibrationError.
    """
    if len(info.k) != 9 or info.k[0] == 0:
        raise CalibrationError(f"{name}: K is {_shown(info.k)}, which is that of an uncalibrated camera")
    k = np.asarray(info.k, dtype=np.float64).reshape(3, 3)
    pose = np.asarray(camera_to_base, dtype=np.float64)
    if rectified:
        if len(info.p) != 12 or info.p[0] == 0:
            raise CalibrationError(f"{name}: P is {_shown(info.p)}, but rectified pictures need it")
        k = np.asarray(info.p, dtype=np.float64).reshape(3, 4)[:, :3]
        turn = np.eye(4)
        turn[:3, :3] = np.asarray(info.r, dtype=np.float64).reshape(3, 3)
        pose = pose @ turn.T  # R maps points of the optical frame to the rectified one
    elif any(info.d):
        raise CalibrationError(
            f"{name}: the picture is distorted ({info.distortion_model} {_shown(info.d)}); the model needs a pinhole "
            "picture: rectify it (image_proc) and say that it is rectified"
        )
    return CameraCalibration(name, info.width, info.height, k, pose)


def rig_from_infos(
    infos: Mapping[str, CameraInfo],
    extrinsics: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    lidar_to_base: Array = NUSCENES_LIDAR_TO_BASE,
    rectified: bool = False,
) -> CameraRig:
    """The rig from every camera's CameraInfo and its optical frame in base_link (translation, quaternion xyzw).

    The extrinsics are what tf2 gives for base_link as the target and the optical frame as the source.
    Raises CalibrationError, which names the cameras that are missing.
    """
    for what, given in (("CameraInfo", infos), ("extrinsics", extrinsics)):
        missing = [name for name in CAMERA_NAMES if name not in given]
        if missing:
            raise CalibrationError(f"there is no {what} for {', '.join(missing)}")
    cameras = []
    for name in CAMERA_NAMES:
        try:
            pose = transform(*extrinsics[name])
        except ValueError as error:
            raise CalibrationError(f"{name}: {error}") from error
        cameras.append(camera_from_info(name, infos[name], pose, rectified=rectified))
    return CameraRig(tuple(cameras), np.array(lidar_to_base))


class CameraInfoMonitor:
    """Holds every CameraInfo against the rig, and against the first of its camera."""

    def __init__(self, rig: CameraRig, *, rectified: bool = False) -> None:
        self._rig = rig
        self._rectified = rectified
        self.reset()

    def reset(self) -> None:
        """Forgets what came so far."""
        self._first: dict[str, CameraInfo] = {}
        self._problems: dict[str, str] = {}

    def problem(self, camera: str) -> str:
        """What was wrong with the camera's last CameraInfo; empty where nothing was, or none came."""
        return self._problems.get(camera, "")

    def check(self, camera: str, info: CameraInfo, stamp_ns: int) -> Refused | None:
        """Whether a CameraInfo contradicts the rig or has changed (size, K, D, R, P); None if it is fine."""
        message = self._contradiction(camera, info)
        self._problems[camera] = message
        return Refused(Refusal.BAD_CALIBRATION, message, camera, stamp_ns) if message else None

    def _contradiction(self, camera: str, info: CameraInfo) -> str:
        calibration = self._rig[camera]
        try:
            found = camera_from_info(camera, info, calibration.camera_to_base, rectified=self._rectified)
        except CalibrationError as error:
            return str(error)
        if (found.width, found.height) != (calibration.width, calibration.height):
            expected = f"{calibration.width}x{calibration.height}"
            return f"{camera}: camera_info has {found.width}x{found.height} pixels, the calibration {expected}"
        off = float(np.abs(found.intrinsics - calibration.intrinsics).max())
        if not off <= INTRINSICS_TOLERANCE_PIXELS:
            return (
                f"{camera}: the intrinsics of camera_info {_shown(found.intrinsics.ravel())} differ from those of the "
                f"calibration {_shown(calibration.intrinsics.ravel())} by {off:.2f} pixels; "
                f"the limit is {INTRINSICS_TOLERANCE_PIXELS}"
            )
        first = self._first.setdefault(camera, info)
        changed = [name for name in ("k", "d", "r", "p") if not _same(getattr(first, name), getattr(info, name))]
        if changed:
            return f"{camera}: {', '.join(changed).upper()} of camera_info changed after the start"
        return ""


@dataclass(frozen=True)
class _Node:
    """A value of a YAML document and where it stands, for messages."""

    value: Any
    place: str

    def mapping(self, required: set[str], optional: set[str]) -> dict[str, "_Node"]:
        if not isinstance(self.value, dict):
            raise CalibrationError(f"{self.place} must be a mapping with {_listed(required)}, not {self.value!r}")
        keys = {str(key) for key in self.value}
        if missing := required - keys:
            raise CalibrationError(f"{self.place} lacks {_listed(missing)}")
        if unknown := keys - required - optional:
            raise CalibrationError(
                f"{self.place} has the unknown {_listed(unknown)}; it may hold {_listed(required | optional)}"
            )
        return {str(key): _Node(value, f"{self.place}: {key}") for key, value in self.value.items()}

    def size(self) -> int:
        if not isinstance(self.value, int) or isinstance(self.value, bool) or self.value <= 0:
            raise CalibrationError(f"{self.place} must be a whole number of pixels above 0, not {self.value!r}")
        return self.value

    def numbers(self, names: str) -> list[float]:
        count = len(names.split())
        values = self.value
        if not (isinstance(values, list) and len(values) == count and all(map(_is_number, values))):
            raise CalibrationError(f"{self.place} must be {count} finite numbers [{names}], not {values!r}")
        return [float(value) for value in values]

    def transform(self) -> Array:
        fields = self.mapping({"translation", "rotation_xyzw"}, set())
        rotation = fields["rotation_xyzw"].numbers("x y z w")
        length = math.hypot(*rotation)
        if abs(length - 1) > QUATERNION_TOLERANCE:
            place = fields["rotation_xyzw"].place
            raise CalibrationError(f"{place} has the length {length:.4f}; a unit quaternion has 1")
        return transform(fields["translation"].numbers("x y z"), rotation)


def _read_camera(name: str, node: _Node) -> CameraCalibration:
    fields = node.mapping({"width", "height", "intrinsics", "camera_to_base"}, set())
    fx, fy, cx, cy = fields["intrinsics"].numbers("fx fy cx cy")
    intrinsics = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    width, height = fields["width"].size(), fields["height"].size()
    return CameraCalibration(name, width, height, intrinsics, fields["camera_to_base"].transform())


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _same(first: Sequence[float], second: Sequence[float]) -> bool:
    return np.array_equal(np.asarray(first), np.asarray(second))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _numbers(values: ArrayLike, digits: int) -> str:
    rounded = (round(float(value), digits) + 0.0 for value in np.asarray(values))  # + 0.0 turns -0.0 into 0.0
    return "[" + ", ".join(f"{value:.{digits}f}" for value in rounded) + "]"


def _shown(values: Iterable[float]) -> str:
    return "[" + ", ".join(f"{float(value):g}" for value in values) + "]"
