"""The ego vehicle's six cameras: mounting and lenses of the nuScenes vehicles."""

import numpy as np

from opendrivevla_ros.core.geometry import planar_transform
from opendrivevla_ros.core.rig import CAMERA_NAMES, NOMINAL_YAW_DEGREES, CameraCalibration, CameraRig

NUSCENES_WIDTH, NUSCENES_HEIGHT = 1600, 900

# x, y, z in base_link (metres), focal length and principal point (pixels at 1600 x 900).
MOUNTING = {
    "cam_front": (1.70, 0.016, 1.51, 1266.0, 816.0, 491.5),
    "cam_front_right": (1.55, -0.493, 1.50, 1261.0, 808.0, 495.0),
    "cam_front_left": (1.52, 0.495, 1.51, 1273.0, 826.5, 480.0),
    "cam_back": (0.028, 0.0, 1.58, 809.0, 829.0, 482.0),
    "cam_back_left": (1.036, 0.485, 1.59, 1257.0, 792.0, 493.0),
    "cam_back_right": (1.015, -0.481, 1.56, 1259.5, 807.0, 501.0),
}

# nuScenes triggers each camera as its lidar sweeps past it; stamps against cam_front's, nanoseconds.
STAMP_OFFSETS_NS = {
    "cam_front_left": -7_600_000,
    "cam_front": 0,
    "cam_front_right": 7_900_000,
    "cam_back_right": 15_700_000,
    "cam_back": 25_100_000,
    "cam_back_left": 34_900_000,
}


def nuscenes_rig(width: int = NUSCENES_WIDTH, height: int = NUSCENES_HEIGHT) -> CameraRig:
    """Six level cameras in the nuScenes arrangement with images of `width` x `height` pixels."""
    across, down = width / NUSCENES_WIDTH, height / NUSCENES_HEIGHT
    optical_to_base = np.array([[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0, 0, 0, 1]])
    cameras = []
    for name in CAMERA_NAMES:
        x, y, z, focal, centre_x, centre_y = MOUNTING[name]
        intrinsics = np.array(
            [[focal * across, 0.0, centre_x * across], [0.0, focal * down, centre_y * down], [0.0, 0.0, 1.0]]
        )
        pose = planar_transform(x, y, np.radians(NOMINAL_YAW_DEGREES[name])) @ optical_to_base
        pose[2, 3] = z
        cameras.append(CameraCalibration(name, width, height, intrinsics, pose))
    return CameraRig(tuple(cameras))
