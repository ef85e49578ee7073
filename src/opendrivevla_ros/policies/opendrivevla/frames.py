"""From base_link to the model's lidar frame and back: the only place of the policy that knows both.

The lidar frame is nuScenes' LIDAR_TOP: x right, y forward, z up; the prompt's numbers in it are made by
`language.prompt.PromptFields`. The model plans where the *lidar origin* will be, so
positions of base_link pass through the lever arm between the two, turning with the vehicle.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation

from opendrivevla_ros.core.ego import EgoState
from opendrivevla_ros.core.geometry import Array, apply, invert, planar_transform, quaternion, wrap_angle, yaw_of
from opendrivevla_ros.core.observation import CameraFrame, Observation
from opendrivevla_ros.core.rig import CameraCalibration

GRAVITY = 9.81  # m/s^2; nuScenes' CAN acceleration holds it, EgoState's does not


def lidar_to_image(observation: Observation, image_size: tuple[int, int]) -> Array:
    """[6, 4, 4]: points of the lidar frame at t0 to (u*depth, v*depth, depth, 1), in pixels of `image_size`.

    Each picture is projected with the vehicle's pose at its own stamp, taken from the twist at t0. A blank picture
    has no time of its own and counts as taken at t0. Pixels scale with the picture, so u/width never changes.
    """
    lidar_to_base = observation.rig.lidar_to_base
    return np.stack(
        [
            _pixels(camera, image_size)
            @ invert(camera.camera_to_base)
            @ _base_motion(observation, frame)
            @ lidar_to_base
            for camera, frame in zip(observation.rig.cameras, observation.frames, strict=True)
        ]
    )


def _pixels(camera: CameraCalibration, image_size: tuple[int, int]) -> Array:
    scale = np.diag([image_size[0] / camera.width, image_size[1] / camera.height, 1.0])
    matrix = np.eye(4)
    matrix[:3, :3] = scale @ camera.intrinsics
    return matrix


def _base_motion(observation: Observation, frame: CameraFrame) -> Array:
    """base_link at t0 to base_link at the picture's stamp, at constant body twist."""
    if frame.blank:
        return np.eye(4)
    return invert(moved(observation.ego, (frame.stamp_ns - observation.stamp_ns) / 1e9))


def moved(ego: EgoState, seconds: float) -> Array:
    """Pose [4, 4] of base_link after `seconds` (may be negative) at constant body twist, in base_link now."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_rotvec(ego.angular_velocity * seconds).as_matrix()
    halfway = Rotation.from_rotvec(ego.angular_velocity * seconds / 2).as_matrix()
    pose[:3, 3] = halfway @ ego.velocity * seconds  # exact to second order; pictures are at most a second away
    return pose


def can_bus(ego: EgoState, origin: Array, *, scalar_quaternion: bool) -> Array:
    """The 18 numbers of BEVFormer's ego vector, absolute; the network takes its own differences.

    0-2 position less `origin` [3] (m), 3-6 quaternion w x y z, or w four times (scalar_quaternion, as published),
    7-9 acceleration with gravity, 10-12 rotation rate, 13-15 velocity, 16 yaw in [0, 2 pi), 17 the same in degrees.
    """
    x, y, z, w = quaternion(ego.base_to_world)
    yaw = yaw_of(ego.base_to_world) % (2 * np.pi)
    numbers = np.zeros(18)
    numbers[0:3] = ego.base_to_world[:3, 3] - origin
    numbers[3:7] = w if scalar_quaternion else (w, x, y, z)
    numbers[7:10] = ego.acceleration + np.array([0.0, 0.0, GRAVITY])
    numbers[10:13] = ego.angular_velocity
    numbers[13:16] = ego.velocity
    numbers[16:18] = yaw, np.degrees(yaw)
    return numbers


def lidar_to_global(ego: EgoState, lidar_to_base: Array, origin: Array) -> tuple[Array, Array]:
    """Rotation [3, 3] and translation [3] for row vectors: p_global = p_lidar @ rotation + translation.

    Global is the odometry frame less `origin` [3], so that float32 keeps its millimetres far from the frame's zero.
    """
    pose = ego.base_to_world @ lidar_to_base
    return pose[:3, :3].T.copy(), pose[:3, 3] - origin


def base_path_to_lidar(poses: ArrayLike, lidar_to_base: Array) -> Array:
    """Positions [N, 2] of the lidar origin, in the lidar frame now, from poses [N, 3] (x, y, yaw) of base_link."""
    base_to_lidar = invert(lidar_to_base)
    path = [base_to_lidar @ planar_transform(*pose) @ lidar_to_base[:, 3] for pose in np.asarray(poses, dtype=float)]
    return np.array(path).reshape(-1, 4)[:, :2]


def lidar_path_to_base(waypoints: ArrayLike, lidar_to_base: Array) -> Array:
    """Positions [N, 2] of base_link, in base_link now, from planned positions [N, 2] of the lidar origin.

    The lidar sits ahead of the rear axle, which follows it without slipping as a towed wheel does: on a straight
    step of length d the angle f between vehicle and step shrinks as tan(f/2) exp(-d/lever) (the tractrix). A step
    backwards keeps the heading, because the same law would let any noise grow.
    """
    lever = lidar_to_base[:2, 3]
    heading, previous, path = 0.0, lever, []
    for position in line_to_base(waypoints, lidar_to_base):
        step = position - previous
        angle = float(wrap_angle(heading - np.arctan2(step[1], step[0])))
        if abs(angle) < np.pi / 2:
            decay = np.exp(-np.hypot(*step) / max(lever[0], 1e-3))
            heading += 2 * np.arctan(np.tan(angle / 2) * decay) - angle
        cosine, sine = np.cos(heading), np.sin(heading)
        path.append(position - np.array([[cosine, -sine], [sine, cosine]]) @ lever)
        previous = position
    return np.array(path).reshape(-1, 2)


def covariance_to_base(covariance: Array, lidar_to_base: Array) -> Array:
    """[N, 2, 2] m^2 of positions in the lidar frame, turned into base_link."""
    rotation = lidar_to_base[:2, :2]
    return rotation @ covariance @ rotation.T


def box_to_base(box: ArrayLike, lidar_to_base: Array) -> tuple[Array, Array, float, Array]:
    """Centre [3], (length, width, height), yaw and velocity [2] in base_link of the network's box.

    box: cx, cy, cz (bottom), w, l, h, yaw, vx, vy in the lidar frame, its yaw stored as -heading - pi/2.
    """
    cx, cy, bottom, width, length, height, stored_yaw, vx, vy = np.asarray(box, dtype=np.float64)
    centre = apply(lidar_to_base, [cx, cy, bottom + height / 2])
    yaw = float(wrap_angle(-stored_yaw - np.pi / 2 + yaw_of(lidar_to_base)))
    velocity = (lidar_to_base[:3, :3] @ [vx, vy, 0.0])[:2]
    return centre, np.array([length, width, height]), yaw, velocity


def box_to_lidar(position: ArrayLike, size: ArrayLike, yaw: float, velocity: ArrayLike, lidar_to_base: Array) -> Array:
    """The network's box [9] of an agent in base_link: the inverse of `box_to_base`, for labels."""
    length, width, height = np.asarray(size, dtype=np.float64)
    centre = apply(invert(lidar_to_base), position)
    stored_yaw = float(wrap_angle(-(yaw - yaw_of(lidar_to_base)) - np.pi / 2))
    vx, vy = (lidar_to_base[:3, :3].T @ [*np.asarray(velocity, dtype=np.float64), 0.0])[:2]
    return np.array([centre[0], centre[1], centre[2] - height / 2, width, length, height, stored_yaw, vx, vy])


def line_to_base(points: ArrayLike, lidar_to_base: Array) -> Array:
    """Points [N, 2] of a map line, in the lidar frame's plane, in base_link."""
    planar = np.asarray(points, dtype=np.float64)
    return apply(lidar_to_base, np.column_stack([planar, np.zeros(len(planar))]))[:, :2]
