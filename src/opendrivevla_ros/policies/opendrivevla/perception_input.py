"""From an observation to what the perception network takes."""

import numpy as np
import torch

from opendrivevla_ros.core.ego import HISTORY_POINTS, HISTORY_STEP_NS, Command, EgoState
from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.perception.config import PerceptionConfig
from opendrivevla_ros.perception.ego_query import EGO_NUMBERS
from opendrivevla_ros.perception.network import PerceptionFrame
from opendrivevla_ros.perception.preprocess import preprocess
from opendrivevla_ros.policies.opendrivevla import frames

_COMMANDS = tuple(Command)
_AGO = HISTORY_STEP_NS / 1e9 * np.arange(HISTORY_POINTS, 0, -1)  # seconds, of the points of the history


def perception_frame(
    observation: Observation, config: PerceptionConfig, origin: Array, device: torch.device | str = "cpu"
) -> PerceptionFrame:
    """The observation on a device; origin: [3] of the odometry frame, the same for all frames of a scene."""
    ego, mount = observation.ego, observation.rig.lidar_to_base
    rotation, translation = frames.lidar_to_global(ego, mount, origin)
    can_bus = frames.can_bus(ego, origin, scalar_quaternion=config.quirks.scalar_quaternion)
    return PerceptionFrame(
        images=preprocess([picture.image for picture in observation.frames], config).to(device),
        lidar_to_image=torch.from_numpy(frames.lidar_to_image(observation, config.image_size)).to(device),
        can_bus=torch.from_numpy(can_bus),
        lidar_to_global_rotation=torch.from_numpy(rotation).float().to(device),
        lidar_to_global_translation=torch.from_numpy(translation).float().to(device),
        timestamp_s=observation.stamp_ns / 1e9,
        ego=ego_numbers(ego, observation.command.command).to(device),
    )


def scene_origin(first: Observation) -> Array:
    """Where a scene that starts with this observation has the origin of its coordinates."""
    return np.array(first.ego.base_to_world[:3, 3])


def ego_numbers(ego: EgoState, command: Command) -> torch.Tensor:
    """[EGO_NUMBERS] how the ego moves and has moved, each about as large as 1.

    Now: speed (tens of m/s), yaw rate (rad/s), steering (rad), longitudinal acceleration (3 m/s^2), and which of the
    commands holds. Then of each point of its history: the constant accelerations, longitudinal and lateral
    (3 m/s^2), that lead from there to here and to the speed of now, and the mean yaw rate (rad/s). They tell what the
    driver has begun to do; whoever learns from the expert's drives alone may learn to go on with it (see
    `world_drives.disturbed_expert`), and so learns from its own drives too.
    """
    now = [ego.speed / 10, ego.angular_velocity[2], ego.steering, ego.acceleration[0] / 3]
    now += [float(command is other) for other in _COMMANDS]
    x, y, yaw = ego.history.T
    before = np.stack([2 * (x + ego.speed * _AGO) / (3 * _AGO**2), 2 * y / (3 * _AGO**2), -yaw / _AGO], 1)
    numbers = np.concatenate([now, before.ravel()])
    assert len(numbers) == EGO_NUMBERS
    return torch.from_numpy(numbers).float()
