"""Training samples from a bag that a driver recorded: observations, and the driver's own motion after each.

Bags have no labels, so they serve end-to-end training alone. Observations come as `BagObservations` has them live.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from rosbags.serde import SerdeError

from opendrivevla_ros.core.ego import DrivingCommand
from opendrivevla_ros.core.geometry import Array, invert, transform, yaw_of
from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.rig import CameraRig
from opendrivevla_ros.datasets.bag_messages import deserialize, nanoseconds
from opendrivevla_ros.datasets.bag_observations import BagObservations
from opendrivevla_ros.datasets.bag_topics import InputTopics
from opendrivevla_ros.datasets.bags import BagError, BagReader
from opendrivevla_ros.datasets.driving_samples import FUTURE_TIMES_S, DrivingSample, values_at
from opendrivevla_ros.datasets.nuscenes_motion import published_command
from opendrivevla_ros.sensing.odometry import OdometryBuffer, OdometrySettings
from opendrivevla_ros.sensing.refusals import Refused

RATE = 2.0  # samples per second, as nuScenes has keyframes
ODOMETRY_GAP_S = 0.5  # a longer gap in the odometry ends a track: what was driven in it is not known


def bag_samples(
    bag: BagReader, inputs: InputTopics, rig: CameraRig, *, image_size: tuple[int, int]
) -> Iterator[DrivingSample]:
    """The samples of a bag in the order of time, two a second; those that end without any future are left out.

    Where no command was recorded, it is the one that the driver carried out, by the published rule. A scene ends
    where the node's memory would be reset. Refused sets of pictures give no sample.
    Raises BagError for a bag that cannot be read, and for one that gives no sample at all.
    """
    tracks = _Tracks(bag, inputs.by_input["odometry"].name)
    scene, index, total = 0, 0, 0
    refusals: list[Refused] = []
    for outcome in BagObservations(bag, inputs, rig, image_size=image_size, rate=RATE):
        if isinstance(outcome, Refused):
            refusals.append(outcome)
            if outcome.reason.clears_state and index:
                scene, index = scene + 1, 0
            continue
        future, mask = tracks.future(outcome)
        if not mask.any():
            continue
        name = f"{bag.path.stem}-{scene}"
        yield DrivingSample(
            scene=name,
            token=f"{name}-{outcome.stamp_ns}",
            index=index,
            observation=_with_command(outcome, future, mask),
            future=future,
            future_mask=mask,
        )
        index, total = index + 1, total + 1
    if total == 0:
        reason = f"{len(refusals)} refusals, first: {refusals[0].message}" if refusals else "no set of six pictures"
        raise BagError(f"{bag.path} gives no training sample ({reason}); check it with `odv replay`")


def _with_command(observation: Observation, future: Array, mask: NDArray[np.bool_]) -> Observation:
    if not observation.command.is_default:
        return observation
    command = published_command(future, mask, observation.rig.lidar_to_base)
    return replace(observation, command=DrivingCommand(command, is_default=False))


class _Tracks:
    """The odometry of a bag in pieces without gaps and jumps: seconds, and poses [N, 4, 4] of base_link."""

    def __init__(self, bag: BagReader, topic: str) -> None:
        self._tracks: list[tuple[list[int], list[Array]]] = []
        checks = OdometryBuffer(OdometrySettings(gap_limit_s=ODOMETRY_GAP_S))
        for entry in bag.messages([topic]):
            try:
                message = deserialize(entry.data, entry.type)
            except SerdeError as error:
                sentence = f"{topic} in {bag.path} holds a message that is not a {entry.type} ({error})"
                raise BagError(f"{sentence}; record it again with ROS 2's definition of that type") from None
            stamp_ns, pose = nanoseconds(message.header.stamp), message.pose.pose
            position = (pose.position.x, pose.position.y, pose.position.z)
            turn = (pose.orientation.x, pose.orientation.y, pose.orientation.z, pose.orientation.w)
            linear, angular = message.twist.twist.linear, message.twist.twist.angular
            refused = checks.add(
                stamp_ns,
                position=position,
                quaternion_xyzw=turn,
                linear=(linear.x, linear.y, linear.z),
                angular=(angular.x, angular.y, angular.z),
                frame_id=message.header.frame_id,
                child_frame_id=message.child_frame_id,
            )
            if refused is not None and not refused.reason.clears_state:
                continue
            if refused is not None or not self._tracks:
                self._tracks.append(([], []))
            self._tracks[-1][0].append(stamp_ns)
            self._tracks[-1][1].append(transform(position, turn))

    def future(self, observation: Observation) -> tuple[Array, NDArray[np.bool_]]:
        """[6, 3] x, y, yaw every 0.5 s in base_link at the observation's stamp, and which were driven [6]."""
        start = observation.stamp_ns
        for stamps, poses in self._tracks:
            first, last = np.searchsorted(stamps, [start, start + round(FUTURE_TIMES_S[-1] * 1e9) + 10**9])
            if stamps[0] <= start <= stamps[-1] and last > first:
                steps = invert(observation.ego.base_to_world) @ np.stack(poses[first:last])
                yaw = np.unwrap([yaw_of(step) for step in steps])
                times = (np.asarray(stamps[first:last]) - start) / 1e9
                return values_at(times, np.column_stack([steps[:, :2, 3], yaw]), FUTURE_TIMES_S)
        return np.zeros((len(FUTURE_TIMES_S), 3)), np.zeros(len(FUTURE_TIMES_S), dtype=bool)
