"""What an observation must be before the network sees it; each fault is one sentence."""

import numpy as np

from opendrivevla_ros.core.ego import HISTORY_POINTS, EgoState
from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.core.observation import CameraFrame, Observation
from opendrivevla_ros.core.plan import PlanError, PlanFailure
from opendrivevla_ros.core.rig import CameraCalibration, CameraRig

STAMP_LIMIT_NS = 1_000_000_000  # a picture is moved to t0 at constant twist, which holds no longer
EGO_LIMITS = {  # beyond what any car does; a prompt holds no longer numbers
    "velocity": (100.0, "m/s"),
    "acceleration": (100.0, "m/s^2"),
    "angular_velocity": (20.0, "rad/s"),
    "history": (500.0, "m"),
    "steering": (10.0, "rad"),
}
MOUNT_HEIGHT_METRES = 0.5
MOUNT_ANGLE_DEGREES = 10.0


def check_observation(observation: Observation, image_size: tuple[int, int]) -> None:
    """Raises PlanError(BAD_OBSERVATION) for pictures or an ego state that the model cannot take.

    image_size: (width, height) that the model works with; a live picture must be at least so large, as far as its
    calibration is.
    """
    _check_ego(observation.ego)
    names = [camera.name for camera in observation.rig.cameras]
    if [frame.camera for frame in observation.frames] != names:
        found = ", ".join(frame.camera for frame in observation.frames) or "none"
        raise _bad(f"there are {len(observation.frames)} pictures ({found}), not one of each of {', '.join(names)}")
    for frame, camera in zip(observation.frames, observation.rig.cameras, strict=True):
        _check_picture(frame, camera, observation.stamp_ns, image_size)


def check_rig(rig: CameraRig, trained_mount: Array) -> None:
    """Raises PlanError(BAD_OBSERVATION) for a rig with problems, or a lidar frame unlike the training vehicle's.

    trained_mount: [4, 4] lidar to base_link. The network knows the road by its height below the lidar frame.
    """
    if problems := rig.problems():
        more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
        raise _bad(f"the calibration does not fit: {problems[0]}{more}")
    mount = rig.lidar_to_base
    if mount.shape != (4, 4) or not np.isfinite(mount).all():
        raise _bad(f"the rig's lidar_to_base must be a finite 4x4 transform, not {mount.tolist()}")
    height = mount[2, 3] - trained_mount[2, 3]
    if abs(height) > MOUNT_HEIGHT_METRES:
        raise _bad(
            f"the rig's lidar frame is {mount[2, 3]:.2f} m above base_link, but the model was trained with"
            f" {trained_mount[2, 3]:.2f} m: give the model's own frame in the calibration's lidar_to_base"
        )
    cosine = (np.trace(mount[:3, :3].T @ trained_mount[:3, :3]) - 1) / 2
    angle = float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    if angle > MOUNT_ANGLE_DEGREES:
        raise _bad(
            f"the rig's lidar frame is turned by {angle:.0f} degrees against the one the model was trained with"
            " (x right, y forward, z up): give the model's own frame in the calibration's lidar_to_base"
        )


def _check_ego(ego: EgoState) -> None:
    expected = {
        "base_to_world": (4, 4),
        "velocity": (3,),
        "acceleration": (3,),
        "angular_velocity": (3,),
        "history": (HISTORY_POINTS, 3),
    }
    for name, shape in expected.items():
        if np.shape(getattr(ego, name)) != shape:
            raise _bad(f"the ego state's {name} has shape {list(np.shape(getattr(ego, name)))}, not {list(shape)}")
    if not (ego.is_finite and np.isfinite(ego.steering)):
        raise _bad("the ego state holds values that are not finite")
    for name, (limit, unit) in EGO_LIMITS.items():
        largest = float(np.abs(getattr(ego, name)).max())
        if largest > limit:
            raise _bad(f"the ego state's {name} holds {largest:.4g} {unit}, more than the {limit:g} {unit} of any car")
    rotation = ego.base_to_world[:3, :3]
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3):
        raise _bad("the ego state's base_to_world holds no rotation")


def _check_picture(frame: CameraFrame, camera: CameraCalibration, stamp_ns: int, image_size: tuple[int, int]) -> None:
    image = frame.image
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise _bad(f"the picture of {frame.camera} is {found}, not uint8 [height, width, 3]")
    height, width = image.shape[:2]
    if height == 0 or width == 0:
        raise _bad(f"the picture of {frame.camera} is empty")
    if frame.blank:
        return
    least = min(image_size[0], camera.width), min(image_size[1], camera.height)
    same_shape = abs(width * camera.height - height * camera.width) <= max(camera.width, camera.height)
    if not (same_shape and least[0] <= width <= camera.width and least[1] <= height <= camera.height):
        raise _bad(
            f"the picture of {frame.camera} is {width}x{height}; expected is the calibration's"
            f" {camera.width}x{camera.height}, or that shrunk alike on both axes to no less than {least[0]}x{least[1]}"
        )
    distance_ns = abs(frame.stamp_ns - stamp_ns)
    if distance_ns > STAMP_LIMIT_NS:
        raise _bad(
            f"the picture of {frame.camera} is {distance_ns / 1e9:.2f} s away from the observation's stamp;"
            f" at most {STAMP_LIMIT_NS / 1e9:.0f} s is taken"
        )


def _bad(message: str) -> PlanError:
    return PlanError(PlanFailure.BAD_OBSERVATION, message)
