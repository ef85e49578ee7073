"""The six cameras: names, pinhole calibration, projection, and the checks that a rig must pass."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from opendrivevla_ros.core.geometry import NUSCENES_LIDAR_TO_BASE, Array, apply, invert

# The order in which the published model sees its cameras; every tuple of cameras in this package has it.
CAMERA_NAMES = (
    "cam_front",
    "cam_front_right",
    "cam_front_left",
    "cam_back",
    "cam_back_left",
    "cam_back_right",
)

# Where each camera of the nuScenes arrangement looks, degrees counter-clockwise from straight ahead.
NOMINAL_YAW_DEGREES = {
    "cam_front": 0.0,
    "cam_front_right": -55.0,
    "cam_front_left": 55.0,
    "cam_back": 180.0,
    "cam_back_left": 110.0,
    "cam_back_right": -110.0,
}
YAW_TOLERANCE_DEGREES = 25.0


@dataclass(frozen=True)
class CameraCalibration:
    """A pinhole camera on the vehicle.

    intrinsics: [3, 3] in pixels of a `width` x `height` image. camera_to_base: [4, 4], from the optical frame
    (x right, y down, z forward) to base_link.
    """

    name: str
    width: int
    height: int
    intrinsics: Array
    camera_to_base: Array

    @property
    def yaw(self) -> float:
        """Heading of the optical axis in base_link, radians."""
        return float(np.arctan2(self.camera_to_base[1, 2], self.camera_to_base[0, 2]))

    def project(self, points_base: ArrayLike) -> tuple[Array, Array]:
        """Pixels [..., 2] and depths [...] (metres along the optical axis) of points [..., 3] in base_link.

        Pixels are those of the full `width` x `height` image, and mean nothing where the depth is not positive.
        """
        points = apply(invert(self.camera_to_base), points_base)
        depth = points[..., 2]
        homogeneous = points @ self.intrinsics.T
        with np.errstate(divide="ignore", invalid="ignore"):
            pixels = homogeneous[..., :2] / homogeneous[..., 2:]
        return pixels, depth


@dataclass(frozen=True)
class RigProblem:
    """One thing that is wrong with a rig: which camera, what was found, what was expected."""

    camera: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.camera}: {self.found}; expected {self.expected}"


@dataclass(frozen=True)
class CameraRig:
    """All cameras, in the order of CAMERA_NAMES, and where the model's lidar frame sits on the vehicle."""

    cameras: tuple[CameraCalibration, ...]
    lidar_to_base: Array = field(default_factory=NUSCENES_LIDAR_TO_BASE.copy)

    def __getitem__(self, name: str) -> CameraCalibration:
        for camera in self.cameras:
            if camera.name == name:
                return camera
        raise KeyError(f"no camera {name!r} in the rig; it has {[camera.name for camera in self.cameras]}")

    def problems(self) -> list[RigProblem]:
        """Everything that makes this rig unfit for the model: names, sizes, pinhole, rotation, camera yaw order."""
        names = tuple(camera.name for camera in self.cameras)
        found = [RigProblem("rig", f"cameras {names}", f"{CAMERA_NAMES}")] if names != CAMERA_NAMES else []
        for camera in self.cameras:
            found.extend(_camera_problems(camera))
        return found


def _camera_problems(camera: CameraCalibration) -> list[RigProblem]:
    name, k, pose = camera.name, camera.intrinsics, camera.camera_to_base
    problems = []
    if camera.width <= 0 or camera.height <= 0:
        problems.append(RigProblem(name, f"image size {camera.width}x{camera.height}", "a positive size"))
    elif k.shape != (3, 3) or not np.isfinite(k).all() or k[0, 0] <= 0 or k[1, 1] <= 0:
        problems.append(RigProblem(name, f"intrinsics {k.tolist()}", "a finite 3x3 pinhole matrix with fx, fy > 0"))
    elif not np.allclose([k[0, 1], k[1, 0], k[2, 0], k[2, 1], k[2, 2]], [0, 0, 0, 0, 1], atol=1e-6):
        problems.append(RigProblem(name, f"intrinsics {k.tolist()}", "no skew and a last row of 0 0 1 (pinhole)"))
    elif not (0 < k[0, 2] < camera.width and 0 < k[1, 2] < camera.height):
        found = f"principal point ({k[0, 2]:.1f}, {k[1, 2]:.1f})"
        problems.append(RigProblem(name, found, f"a point inside the {camera.width}x{camera.height} image"))
    if pose.shape != (4, 4) or not np.isfinite(pose).all():
        problems.append(RigProblem(name, f"extrinsics {pose.tolist()}", "a finite 4x4 transform to base_link"))
        return problems
    rotation = pose[:3, :3]
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) or np.linalg.det(rotation) < 0:
        problems.append(RigProblem(name, "extrinsic rotation is not orthonormal", "a proper rotation"))
        return problems
    nominal = NOMINAL_YAW_DEGREES.get(name)
    if nominal is not None:
        yaw = float(np.degrees(camera.yaw))
        off = (yaw - nominal + 180.0) % 360.0 - 180.0
        if abs(off) > YAW_TOLERANCE_DEGREES:
            expected = f"{nominal:+.0f} +- {YAW_TOLERANCE_DEGREES:.0f} degrees: are two cameras swapped?"
            problems.append(RigProblem(name, f"looks to {yaw:+.1f} degrees", expected))
    return problems
