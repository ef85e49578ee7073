"""Rigid transforms, angles, and the one conversion to and from nuScenes' lidar frame.

Transforms are 4x4 float64 matrices; `a_to_b` maps points of frame a into frame b.
Frames follow REP 103 and REP 105: x forward, y left, z up, metres, radians; quaternions are (x, y, z, w).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation, Slerp

Array = NDArray[np.float64]

# nuScenes' LIDAR_TOP (x right, y forward, z up) in base_link: a quarter turn to the right, mounted above the rear
# axle. The values are those of the nuScenes vehicles; a calibration file may give another.
NUSCENES_LIDAR_TO_BASE: Array = np.array(
    [[0.0, 1.0, 0.0, 0.9437], [-1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.8402], [0.0, 0.0, 0.0, 1.0]]
)


def transform(translation: ArrayLike, quaternion_xyzw: ArrayLike) -> Array:
    """The 4x4 transform of a translation [3] in metres and a quaternion (x, y, z, w) of any non-zero length.

    Raises ValueError for a zero or non-finite quaternion or translation.
    """
    matrix = np.eye(4)
    matrix[:3, 3] = np.asarray(translation, dtype=np.float64)
    rotation = np.asarray(quaternion_xyzw, dtype=np.float64)
    if not (np.isfinite(matrix).all() and np.isfinite(rotation).all()):
        raise ValueError(f"pose is not finite: translation {matrix[:3, 3]}, quaternion {rotation}")
    matrix[:3, :3] = Rotation.from_quat(rotation).as_matrix()
    return matrix


def planar_transform(x: float, y: float, yaw: float) -> Array:
    """The 4x4 transform of a pose on the ground plane: metres and radians."""
    cosine, sine = np.cos(yaw), np.sin(yaw)
    return np.array([[cosine, -sine, 0.0, x], [sine, cosine, 0.0, y], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])


def quaternion(matrix: Array) -> Array:
    """The quaternion (x, y, z, w) of a 4x4 or 3x3 rotation."""
    return Rotation.from_matrix(matrix[:3, :3]).as_quat()


def invert(matrix: Array) -> Array:
    """The inverse of a rigid 4x4 transform (or a stack [..., 4, 4])."""
    rotation = np.swapaxes(matrix[..., :3, :3], -1, -2)
    inverse = np.zeros_like(matrix)
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3] = -(rotation @ matrix[..., :3, 3:])[..., 0]
    inverse[..., 3, 3] = 1.0
    return inverse


def apply(matrix: Array, points: ArrayLike) -> Array:
    """Maps points [..., 3] (metres) by a rigid 4x4 transform."""
    return np.asarray(points, dtype=np.float64) @ matrix[:3, :3].T + matrix[:3, 3]


def yaw_of(matrix: Array) -> float:
    """Heading of the x axis in the x-y plane, in radians, (-pi, pi]."""
    return float(np.arctan2(matrix[1, 0], matrix[0, 0]))


def distances_along(points: ArrayLike) -> Array:
    """[N] the way along a polyline [N, 2] from its first point to each of its points; N > 0."""
    steps = np.diff(np.asarray(points, dtype=np.float64), axis=0)
    return np.concatenate([[0.0], np.cumsum(np.hypot(*steps.T))])


def wrap_angle(angle: ArrayLike) -> Array:
    """Angles in radians, wrapped to [-pi, pi)."""
    return (np.asarray(angle, dtype=np.float64) + np.pi) % (2 * np.pi) - np.pi


def interpolate(first: Array, second: Array, fraction: float) -> Array:
    """The pose between two 4x4 transforms: linear in translation, slerp in rotation; fraction in [0, 1]."""
    matrix = np.eye(4)
    matrix[:3, 3] = (1 - fraction) * first[:3, 3] + fraction * second[:3, 3]
    ends = Rotation.from_matrix(np.stack([first[:3, :3], second[:3, :3]]))
    matrix[:3, :3] = Slerp([0.0, 1.0], ends)(fraction).as_matrix()
    return matrix


def box_corners(position: ArrayLike, size_lwh: ArrayLike, yaw: float) -> Array:
    """The eight corners [8, 3] of a box: centre, (length, width, height), heading about z.

    Corners 0-3 are the bottom and 4-7 the top, each front left, front right, rear right, rear left.
    """
    length, width, height = np.asarray(size_lwh, dtype=np.float64) / 2
    plane = np.array([[length, width], [length, -width], [-length, -width], [-length, width]])
    corners = np.concatenate(
        [np.column_stack([plane, np.full(4, -height)]), np.column_stack([plane, np.full(4, height)])]
    )
    cosine, sine = np.cos(yaw), np.sin(yaw)
    turned = corners @ np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]]).T
    return turned + np.asarray(position, dtype=np.float64)
