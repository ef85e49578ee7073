"""How a vehicle moved while a bag was recorded."""

import numpy as np
from numpy.typing import NDArray
from rosbags.serde import SerdeError

from opendrivevla_ros.core.geometry import Array, invert, transform, yaw_of
from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.trajectory import FUTURE_TIMES_S
from opendrivevla_ros.datasets.bag_messages import deserialize, nanoseconds
from opendrivevla_ros.datasets.bags import BagError, BagReader
from opendrivevla_ros.datasets.driving_samples import values_at
from opendrivevla_ros.sensing.odometry import OdometryBuffer, OdometrySettings

ODOMETRY_GAP_S = 0.5  # a longer gap in the odometry ends a track: what was driven in it is not known


class BagTracks:
    """The odometry of a bag in pieces without gaps and jumps.

    tracks: of each piece the stamps [N], nanoseconds, and the poses [N][4, 4] of base_link in the odometry frame.
    Raises BagError for a message that cannot be read.
    """

    def __init__(self, bag: BagReader, topic: str) -> None:
        self.tracks: list[tuple[list[int], list[Array]]] = []
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
            if refused is not None or not self.tracks:
                self.tracks.append(([], []))
            self.tracks[-1][0].append(stamp_ns)
            self.tracks[-1][1].append(transform(position, turn))

    def future(self, observation: Observation) -> tuple[Array, NDArray[np.bool_]]:
        """[6, 3] x, y, yaw every 0.5 s in base_link at the observation's stamp, and which were driven [6]."""
        start = observation.stamp_ns
        for stamps, poses in self.tracks:
            first, last = np.searchsorted(stamps, [start, start + round(FUTURE_TIMES_S[-1] * 1e9) + 10**9])
            if stamps[0] <= start <= stamps[-1] and last > first:
                steps = invert(observation.ego.base_to_world) @ np.stack(poses[first:last])
                yaw = np.unwrap([yaw_of(step) for step in steps])
                times = (np.asarray(stamps[first:last]) - start) / 1e9
                return values_at(times, np.column_stack([steps[:, :2, 3], yaw]), FUTURE_TIMES_S)
        return np.zeros((len(FUTURE_TIMES_S), 3)), np.zeros(len(FUTURE_TIMES_S), dtype=bool)

    def motions(self, seconds: float) -> Array:
        """[M, 3] x, y, yaw after so many seconds, in base_link before, from each multiple of them on in each track."""
        found = [np.zeros((0, 3))]
        for stamps, poses in self.tracks:
            times = (np.asarray(stamps) - stamps[0]) / 1e9
            steps = invert(poses[0]) @ np.stack(poses)
            yaw = np.unwrap([yaw_of(step) for step in steps])
            at = seconds * np.arange(int(times[-1] / seconds) + 1)
            places = np.column_stack([np.interp(at, times, row) for row in (*steps[:, :2, 3].T, yaw)])
            off, turn = np.diff(places, axis=0), places[:-1, 2]
            ahead = off[:, 0] * np.cos(turn) + off[:, 1] * np.sin(turn)
            left = off[:, 1] * np.cos(turn) - off[:, 0] * np.sin(turn)
            found.append(np.column_stack([ahead, left, off[:, 2]]))
        return np.concatenate(found)
