"""The ego motion of a nuScenes-format scene: poses by keyframe, and the CAN bus where the scene has one."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from opendrivevla_ros.core.ego import HISTORY_POINTS, HISTORY_STEP_NS, Command, EgoState
from opendrivevla_ros.core.geometry import Array, apply, invert, planar_transform, yaw_of
from opendrivevla_ros.core.trajectory import FUTURE_TIMES_S
from opendrivevla_ros.datasets.driving_samples import values_at
from opendrivevla_ros.datasets.nuscenes_tables import GRAVITY, DatasetError, read_json
from opendrivevla_ros.language.prompt import STEERING_RATIO

CAN_REMEDY = "unpack nuScenes' CAN bus expansion again, or remove the scene's files from can_bus/ to go without"
CAN_TOLERANCE_NS = 50_000_000  # a message further from a keyframe than this says nothing about it
TURN_METRES = 2.0  # the published command: so far to a side after three seconds is a turn


class CanBus:
    """What the vehicle measured: rows [N] by stamp of velocity, acceleration (gravity taken out) and turn rate.

    Raises DatasetError for a file that is there and is not what the CAN bus expansion holds.
    """

    def __init__(self, root: Path, scene: str) -> None:
        keys = ("vel", "accel", "rotation_rate")
        self._stamps, self._rows = _messages(root / "can_bus" / f"{scene}_pose.json", keys, 3)
        self._rows[:, 3:6] -= [0.0, 0.0, GRAVITY]
        steering = root / "can_bus" / f"{scene}_steeranglefeedback.json"
        self._steering_stamps, self._steering = np.zeros(0, np.int64), np.zeros((0, 1))
        if steering.is_file():
            self._steering_stamps, self._steering = _messages(steering, ("value",), 1)

    def motion_at(self, stamp_ns: int) -> tuple[Array, Array, Array] | None:
        """Velocity, acceleration and angular velocity, each [3] in base_link; None where there is no message."""
        row = _nearest(self._stamps, self._rows, stamp_ns)
        return None if row is None else (row[0:3], row[3:6], row[6:9])

    def steering_at(self, stamp_ns: int) -> float:
        """Angle of the front wheels, radians, positive left.

        The CAN bus has the steering wheel's, positive left too: early versions of the devkit's documentation had it
        the other way round (nuscenes-devkit issue 371). The published prompts turn its sign in Singapore, where
        traffic keeps left; here left is positive everywhere.
        """
        row = _nearest(self._steering_stamps, self._steering, stamp_ns)
        return 0.0 if row is None else float(row[0]) / STEERING_RATIO


class SceneMotion:
    """Poses [N, 4, 4] of base_link in the map at rising stamps [N] (nanoseconds), N at least 2."""

    def __init__(self, stamps_ns: Sequence[int], poses: Array, can_bus: CanBus | None) -> None:
        self._stamps, self._poses, self._can_bus = np.asarray(stamps_ns, np.int64), poses, can_bus

    def ego_state(self, index: int) -> EgoState:
        """The ego motion at a keyframe, from nothing later, save for the first one of a scene without CAN bus.

        Without CAN bus the twist is the step from the keyframe before (for the first one, to the next), and the
        acceleration is the change of the twist from step to step.
        """
        stamp_ns, pose = int(self._stamps[index]), self._poses[index]
        measured = None if self._can_bus is None else self._can_bus.motion_at(stamp_ns)
        velocity, acceleration, angular = self._differences(index) if measured is None else measured
        history, observed = self._history(index, velocity, angular)
        return EgoState(
            stamp_ns=stamp_ns,
            base_to_world=pose,
            velocity=velocity,
            acceleration=acceleration,
            angular_velocity=angular,
            history=history,
            history_observed=observed,
            steering=0.0 if self._can_bus is None else self._can_bus.steering_at(stamp_ns),
            world_frame="map",
        )

    def future(self, index: int) -> tuple[Array, NDArray[np.bool_]]:
        """[6, 3] x, y, yaw of base_link every 0.5 s, in base_link at a keyframe; and which of them were driven [6]."""
        times, track = self._track(index, slice(index, None))
        return values_at(times, track, FUTURE_TIMES_S)

    def _track(self, index: int, chosen: slice) -> tuple[Array, Array]:
        """Seconds after a keyframe [M], and x, y, yaw [M, 3] in its base_link."""
        steps = invert(self._poses[index]) @ self._poses[chosen]
        yaw = np.unwrap([yaw_of(step) for step in steps])
        times = (self._stamps[chosen] - self._stamps[index]) / 1e9
        return times, np.column_stack([steps[:, :2, 3], yaw])

    def _history(self, index: int, velocity: Array, angular: Array) -> tuple[Array, int]:
        """[4, 3], oldest first, and how many were driven; what lies before continues the first known step."""
        wanted = -np.arange(1, HISTORY_POINTS + 1) * HISTORY_STEP_NS / 1e9
        past, covered = values_at(*self._track(index, slice(0, index + 1)), wanted)
        observed = int(covered.sum())
        points = [np.zeros(3), *past[:observed]]
        if observed == 0:
            points.append(-np.array([velocity[0], velocity[1], angular[2]]) * HISTORY_STEP_NS / 1e9)
        while len(points) <= HISTORY_POINTS:
            points.append(2 * points[-1] - points[-2])
        return np.stack(points[:0:-1]), observed

    def _differences(self, index: int) -> tuple[Array, Array, Array]:
        velocity, angular, seconds = self._twist(max(index, 1))
        before = self._twist(max(index - 1, 1))[0]
        return velocity, (velocity - before) / seconds + np.cross(angular, velocity), angular

    def _twist(self, index: int) -> tuple[Array, Array, float]:
        """The constant body twist that leads to a keyframe from the one before, and how long it took, seconds."""
        seconds = float(self._stamps[index] - self._stamps[index - 1]) / 1e9
        step = invert(self._poses[index - 1]) @ self._poses[index]
        turn = Rotation.from_matrix(step[:3, :3]).as_rotvec()
        halfway = Rotation.from_rotvec(-turn / 2).as_matrix()
        return halfway @ step[:3, 3] / seconds, turn / seconds, seconds


def published_command(future: Array, mask: NDArray[np.bool_], lidar_to_base: Array) -> Command:
    """The navigation command that the published training data has: where the last driven point of the future lies.

    It is the position of the lidar, 2 m or more to a side in its own frame. future: [6, 3], mask: [6].
    """
    if not mask.any():
        return Command.KEEP_FORWARD
    last = future[np.flatnonzero(mask)[-1]]
    lidar = apply(planar_transform(*last), lidar_to_base[:3, 3])
    to_right = float(apply(invert(lidar_to_base), lidar)[0])
    if abs(to_right) < TURN_METRES:
        return Command.KEEP_FORWARD
    return Command.TURN_RIGHT if to_right > 0 else Command.TURN_LEFT


def read_can_bus(root: Path, scene: str) -> CanBus | None:
    """A scene's CAN bus; None where it has none, as some of nuScenes' scenes."""
    return CanBus(root, scene) if (root / "can_bus" / f"{scene}_pose.json").is_file() else None


def _messages(path: Path, keys: tuple[str, ...], width: int) -> tuple[NDArray[np.int64], Array]:
    """Stamps [N], nanoseconds, and the keys' numbers side by side [N, len(keys) * width]."""
    content = read_json(path, CAN_REMEDY)
    try:
        stamps = np.array([message["utime"] for message in content], dtype=np.int64) * 1000
        columns = [np.array([message[key] for message in content], dtype=np.float64) for key in keys]
        rows = np.concatenate([column.reshape(len(stamps), width) for column in columns], axis=1)
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{path} is not a list of messages with {', '.join(keys)} ({error!r}); {CAN_REMEDY}"
        ) from None
    if not np.isfinite(rows).all():
        raise DatasetError(f"{path} holds numbers that are not finite; {CAN_REMEDY}")
    return stamps, rows


def _nearest(stamps: NDArray[np.int64], rows: Array, stamp_ns: int) -> Array | None:
    """The row nearest to a stamp, unless it is too far away."""
    if not len(stamps):
        return None
    index = int(np.abs(stamps - stamp_ns).argmin())
    return rows[index].copy() if abs(int(stamps[index]) - stamp_ns) <= CAN_TOLERANCE_NS else None
