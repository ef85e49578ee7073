"""The last seconds of odometry: checks each sample, and gives the ego motion at any stamp within."""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from opendrivevla_ros.core.ego import HISTORY_POINTS, HISTORY_STEP_NS, EgoState, kinematic_steering
from opendrivevla_ros.core.geometry import Array, interpolate, invert, planar_transform, transform, yaw_of
from opendrivevla_ros.sensing.refusals import ObservationError, Refusal, Refused

CAPACITY = 5000  # samples; 5 s at 1 kHz, above that rate the buffer is shorter
SLOPE_WINDOW_NS = 300_000_000  # over which acceleration is the slope of velocity
SLOPE_SPAN_NS = 50_000_000  # less than this says nothing about acceleration
IMU_WINDOW_NS = 100_000_000  # over which IMU samples are averaged
GRAVITY = 9.80665  # m/s^2
QUATERNION_TOLERANCE = 0.01
JUMP_SLACK_METRES = 0.5  # noise that a position may have on top of what the speed limit allows
JUMP_CONFIRMATIONS = 10  # samples in a row that continue one another elsewhere: the odometry started anew

_POSITION, _QUATERNION, _LINEAR, _ANGULAR = slice(0, 3), slice(3, 7), slice(7, 10), slice(10, 13)


@dataclass(frozen=True)
class OdometrySettings:
    """world_frame: the frame that poses must be in; None takes the first sample's. base_frame: the child frame.

    horizon_s: how much is kept. max_gap_s: how far the nearest sample may lie from a stamp between two samples.
    extrapolation_s: how far a stamp may lie after the newest sample. max_speed_mps: a position that would need
    more is a jump. backward_tolerance_s, gap_limit_s: stamps that go back or forward by more are a clock jump.
    """

    world_frame: str | None = None
    base_frame: str = "base_link"
    horizon_s: float = 5.0
    max_gap_s: float = 0.1
    extrapolation_s: float = 0.02
    max_speed_mps: float = 70.0
    backward_tolerance_s: float = 0.2
    gap_limit_s: float = 2.0

    def __post_init__(self) -> None:
        for name in ("horizon_s", "max_gap_s", "max_speed_mps", "gap_limit_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in ("extrapolation_s", "backward_tolerance_s"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be below 0")


class OdometryBuffer:
    """Odometry by stamp; may be written by one thread and read by another."""

    def __init__(self, settings: OdometrySettings | None = None) -> None:
        self.settings = OdometrySettings() if settings is None else settings
        self._lock = threading.RLock()  # held only within this class, around arithmetic
        self._samples = _Ring(columns=13)
        self._imu = _Ring(columns=6)
        self.world_frame = self.settings.world_frame
        self._elsewhere: tuple[int, Sequence[float], int] | None = None

    def __len__(self) -> int:
        return len(self._samples.stamps)

    @property
    def newest_stamp_ns(self) -> int | None:
        """Stamp of the newest sample, None without any."""
        return int(self._samples.stamps[-1]) if len(self) else None

    def samples(self) -> tuple[NDArray[np.int64], Array]:
        """Stamps [N] and rows [N, 13]: position, quaternion (x, y, z, w), linear and angular velocity."""
        with self._lock:
            return self._samples.stamps.copy(), self._samples.rows.copy()

    def clear(self) -> None:
        """Forgets all samples; also the frame where the settings leave it open."""
        with self._lock:
            self._samples.clear()
            self._imu.clear()
            self.world_frame = self.settings.world_frame
            self._elsewhere = None

    def add(
        self,
        stamp_ns: int,
        *,
        position: Sequence[float],
        quaternion_xyzw: Sequence[float],
        linear: Sequence[float],
        angular: Sequence[float],
        frame_id: str,
        child_frame_id: str,
    ) -> Refused | None:
        """Takes one sample: pose of base_link in `frame_id` (metres), twist in base_link (m/s, rad/s).

        None: the sample is kept. A refusal whose reason clears the state: everything older was dropped, and this
        sample is the first of a new track. Any other refusal: the sample is dropped.
        """
        values = (*position, *quaternion_xyzw, *linear, *angular)
        with self._lock:
            refused = self._invalid(stamp_ns, values, frame_id, child_frame_id) or self._unlike_the_last(
                stamp_ns, values[_POSITION]
            )
            if refused is None or refused.reason.clears_state:
                self.world_frame = frame_id
                self._elsewhere = None
                self._samples.append(stamp_ns, values, oldest_ns=stamp_ns - _nanoseconds(self.settings.horizon_s))
            return refused

    def add_imu(
        self, stamp_ns: int, *, linear_acceleration: Sequence[float], angular_velocity: Sequence[float]
    ) -> Refused | None:
        """Takes one IMU sample along the axes of base_link: specific force (m/s^2, gravity included) and rad/s.

        While such samples come, accelerations are those; the distance of the IMU from base_link is neglected.
        """
        values = (*linear_acceleration, *angular_velocity)
        if not all(map(math.isfinite, values)):
            return Refused(Refusal.IMU_NOT_FINITE, f"an IMU sample is not finite: {values}", "imu", stamp_ns)
        with self._lock:
            if len(self._imu.stamps) and stamp_ns <= self._imu.stamps[-1]:
                behind = (int(self._imu.stamps[-1]) - stamp_ns) / 1e9
                if behind <= self.settings.backward_tolerance_s:
                    message = f"an IMU stamp lies {behind:.3f} s before the one that came before it"
                    return Refused(Refusal.IMU_STAMP_BACKWARDS, message, "imu", stamp_ns)
                self._imu.clear()
            self._imu.append(stamp_ns, values, oldest_ns=stamp_ns - _nanoseconds(self.settings.horizon_s))
        return None

    def state_at(self, stamp_ns: int) -> EgoState:
        """The ego motion at a stamp, from no sample later than the first one after it.

        Pose and twist are interpolated (linear, slerp), or continued with the last twist for at most
        `extrapolation_s`. Acceleration is that of the IMU, averaged over 0.1 s, minus gravity as the odometry's roll
        and pitch have it (odometry that is planar leaves the share of gravity on slopes in). Without an IMU it is
        dv/dt + w x v, the slope by least squares over the last 0.3 s, and so some 0.15 s old.
        Raises ObservationError: ODOMETRY_MISSING or ODOMETRY_STALE.
        """
        with self._lock:
            index = self._covering(stamp_ns)
            pose, linear, angular = self._motion(stamp_ns, index)
            history, observed = self._history(stamp_ns, pose, linear, angular)
            acceleration = self._imu_acceleration(stamp_ns, pose)
            if acceleration is None:
                acceleration = self._slope(stamp_ns) + np.cross(angular, linear)
        return EgoState(
            stamp_ns=stamp_ns,
            base_to_world=pose,
            velocity=linear,
            acceleration=acceleration,
            angular_velocity=angular,
            history=history,
            history_observed=observed,
            steering=kinematic_steering(float(linear[0]), float(angular[2])),
            world_frame=self.world_frame or "",
        )

    def _invalid(self, stamp_ns: int, values: Sequence[float], frame_id: str, child_frame_id: str) -> Refused | None:
        if not all(map(math.isfinite, values)):
            numbers = ", ".join(f"{value:g}" for value in values)
            return _refused(Refusal.ODOMETRY_NOT_FINITE, f"a sample is not finite: {numbers}", stamp_ns)
        length = math.hypot(*values[_QUATERNION])
        if abs(length - 1.0) > QUATERNION_TOLERANCE:
            message = f"a quaternion has the length {length:.4f}; it must be 1 within {QUATERNION_TOLERANCE}"
            return _refused(Refusal.ODOMETRY_QUATERNION, message, stamp_ns)
        if child_frame_id != self.settings.base_frame:
            message = f"the child frame is {child_frame_id!r}; it must be {self.settings.base_frame!r}"
            return _refused(Refusal.ODOMETRY_FRAME, message, stamp_ns)
        if frame_id == "" or (self.world_frame is not None and frame_id != self.world_frame):
            wanted = "a name" if self.world_frame is None else f"{self.world_frame!r}"
            return _refused(Refusal.ODOMETRY_FRAME, f"the frame is {frame_id!r}; it must be {wanted}", stamp_ns)
        speed = math.hypot(*values[_LINEAR])
        if speed > self.settings.max_speed_mps:
            message = f"a speed of {speed:.1f} m/s is above the limit of {self.settings.max_speed_mps} m/s"
            return _refused(Refusal.ODOMETRY_JUMP, message, stamp_ns)
        return None

    def _unlike_the_last(self, stamp_ns: int, position: Sequence[float]) -> Refused | None:
        """Refuses a sample whose stamp or position does not follow the newest one.

        A gap is one only where no positions that were refused came in it.
        """
        newest = self.newest_stamp_ns
        if newest is None:
            return None
        ahead = stamp_ns - newest
        since_any = ahead if self._elsewhere is None else stamp_ns - self._elsewhere[0]
        if ahead == 0:
            return _refused(Refusal.ODOMETRY_DUPLICATE_STAMP, f"two samples have the stamp {stamp_ns} ns", stamp_ns)
        tolerance, limit = self.settings.backward_tolerance_s, self.settings.gap_limit_s
        if not -_nanoseconds(tolerance) <= since_any <= _nanoseconds(limit):
            message = f"the stamps jumped by {since_any / 1e9:+.3f} s: older samples are dropped"
            return self._restart(Refusal.CLOCK_JUMP, message, stamp_ns)
        if ahead < 0:
            message = f"a stamp lies {-ahead / 1e9:.3f} s before the one that came before it"
            return _refused(Refusal.ODOMETRY_STAMP_BACKWARDS, message, stamp_ns)
        return self._jumped(stamp_ns, newest, position)

    def _jumped(self, stamp_ns: int, newest_ns: int, position: Sequence[float]) -> Refused | None:
        """Refuses a position that the vehicle cannot have reached, until enough of them agree with one another.

        A track that is older than a gap may be, since when all was jumps, is none to come back to.
        """
        last = self._samples.rows[-1, _POSITION].tolist()
        is_old = stamp_ns - newest_ns > _nanoseconds(self.settings.gap_limit_s)
        if not is_old and self._reachable(newest_ns, last, stamp_ns, position):
            return None
        distance = math.dist(last, position)
        before_ns, before, times = newest_ns, last, 1
        if self._elsewhere is not None:
            elsewhere_ns, elsewhere, count = self._elsewhere
            if stamp_ns > elsewhere_ns:
                before_ns, before = elsewhere_ns, elsewhere
                times = count + 1 if self._reachable(before_ns, before, stamp_ns, position) else 1
        if times > JUMP_CONFIRMATIONS:
            message = f"the position stays {distance:.1f} m away from where it was: older samples are dropped"
            return self._restart(Refusal.ODOMETRY_RESTARTED, message, stamp_ns)
        self._elsewhere = (stamp_ns, tuple(position), times)
        message = f"the position jumped by {distance:.1f} m and goes on there, {times} of {JUMP_CONFIRMATIONS} samples"
        if times == 1:
            metres, seconds = math.dist(before, position), (stamp_ns - before_ns) / 1e9
            limit = self.settings.max_speed_mps
            message = f"the position jumped by {metres:.1f} m in {seconds:.3f} s; the limit is {limit} m/s"
        return _refused(Refusal.ODOMETRY_JUMP, message, stamp_ns)

    def _reachable(self, first_ns: int, first: Sequence[float], second_ns: int, second: Sequence[float]) -> bool:
        reach = self.settings.max_speed_mps * (second_ns - first_ns) / 1e9 + JUMP_SLACK_METRES
        return math.dist(first, second) <= reach

    def _restart(self, reason: Refusal, message: str, stamp_ns: int) -> Refused:
        self.clear()
        return _refused(reason, message, stamp_ns)

    def _covering(self, stamp_ns: int) -> int:
        """Index of the last sample at or before a stamp; raises where the samples do not cover it."""
        stamps = self._samples.stamps
        if not len(stamps):
            raise _error(Refusal.ODOMETRY_MISSING, "there is no odometry: is it publishing?", stamp_ns)
        index = int(np.searchsorted(stamps, stamp_ns, side="right")) - 1
        if index < 0:
            away = (int(stamps[0]) - stamp_ns) / 1e9
            raise _error(Refusal.ODOMETRY_MISSING, f"odometry begins {away:.3f} s after the stamp", stamp_ns)
        age = (stamp_ns - int(stamps[index])) / 1e9
        limit = self.settings.max_gap_s
        if index + 1 < len(stamps):
            age = min(age, (int(stamps[index + 1]) - stamp_ns) / 1e9)
        else:
            limit = self.settings.extrapolation_s
        if age > limit:
            message = f"the nearest odometry is {age:.3f} s away; the limit is {limit} s: is it publishing?"
            raise _error(Refusal.ODOMETRY_STALE, message, stamp_ns)
        return index

    def _motion(self, stamp_ns: int, index: int) -> tuple[Array, Array, Array]:
        """Pose [4, 4], velocity [3] and angular velocity [3] at a stamp that lies at or after sample `index`."""
        stamps, rows = self._samples.stamps, self._samples.rows
        first = rows[index]
        pose = transform(first[_POSITION], first[_QUATERNION])
        since = stamp_ns - int(stamps[index])
        if since == 0:
            return pose, first[_LINEAR].copy(), first[_ANGULAR].copy()
        if index + 1 == len(stamps):
            return _continued(pose, first, since / 1e9), first[_LINEAR].copy(), first[_ANGULAR].copy()
        second = rows[index + 1]
        fraction = since / int(stamps[index + 1] - stamps[index])
        twist = (1 - fraction) * first[7:] + fraction * second[7:]
        pose = interpolate(pose, transform(second[_POSITION], second[_QUATERNION]), fraction)
        return pose, twist[:3], twist[3:]

    def _history(self, stamp_ns: int, pose: Array, linear: Array, angular: Array) -> tuple[Array, int]:
        """[4, 3] x, y, yaw in base_link at the stamp, oldest first, and how many of them were measured.

        What came before the samples repeats the oldest known step; with none known, that of the present twist.
        """
        to_base = invert(pose)
        points = [np.zeros(3)]
        for step in range(1, HISTORY_POINTS + 1):
            past_ns = stamp_ns - step * HISTORY_STEP_NS
            try:
                past = to_base @ self._motion(past_ns, self._covering(past_ns))[0]
            except ObservationError:
                break
            points.append(np.array([past[0, 3], past[1, 3], yaw_of(past)]))
        observed = len(points) - 1
        if observed == 0:
            points.append(-np.array([linear[0], linear[1], angular[2]]) * HISTORY_STEP_NS / 1e9)
        while len(points) <= HISTORY_POINTS:
            points.append(2 * points[-1] - points[-2])
        return np.stack(points[:0:-1]), observed

    def _slope(self, stamp_ns: int) -> Array:
        """[3] slope of the velocity in base_link by least squares, m/s^2; 0 where there are too few samples."""
        stamps = self._samples.stamps
        first, last = np.searchsorted(stamps, [stamp_ns - SLOPE_WINDOW_NS, stamp_ns + 1])
        if last - first < 3 or stamps[last - 1] - stamps[first] < SLOPE_SPAN_NS:
            return np.zeros(3)
        seconds = (stamps[first:last] - stamp_ns) / 1e9
        seconds -= seconds.mean()
        return np.asarray(seconds @ self._samples.rows[first:last, _LINEAR] / (seconds @ seconds))

    def _imu_acceleration(self, stamp_ns: int, pose: Array) -> Array | None:
        stamps = self._imu.stamps
        first, last = np.searchsorted(stamps, [stamp_ns - IMU_WINDOW_NS, stamp_ns + 1])
        if first == last:
            return None
        upwards_in_base = pose[2, :3]
        return np.asarray(self._imu.rows[first:last, :3].mean(axis=0) - GRAVITY * upwards_in_base)


class _Ring:
    """Rows by rising stamp in one block of memory, so that `stamps` and `rows` are views in order.

    New rows go to the end of a block of twice the capacity; once in `CAPACITY` rows the newest half moves to the
    front, so that a row costs the same however many there are.
    """

    def __init__(self, columns: int) -> None:
        self._stamps = np.zeros(2 * CAPACITY, dtype=np.int64)
        self._rows = np.zeros((2 * CAPACITY, columns))
        self._first = self._end = 0

    @property
    def stamps(self) -> np.ndarray:
        return self._stamps[self._first : self._end]

    @property
    def rows(self) -> Array:
        return self._rows[self._first : self._end]

    def clear(self) -> None:
        self._first = self._end = 0

    def append(self, stamp_ns: int, row: Sequence[float], *, oldest_ns: int) -> None:
        if self._end == len(self._stamps):
            count = min(self._end - self._first, CAPACITY)
            self._stamps[:count] = self._stamps[self._end - count :]
            self._rows[:count] = self._rows[self._end - count :]
            self._first, self._end = 0, count
        self._stamps[self._end] = stamp_ns
        self._rows[self._end] = row
        self._end += 1
        while self._stamps[self._first] < oldest_ns:
            self._first += 1


def _continued(pose: Array, sample: Array, seconds: float) -> Array:
    """A pose that moves on with a sample's twist; over hundredths of a second the order does not matter."""
    motion = planar_transform(*(sample[[7, 8, 12]] * seconds))
    return pose @ motion


def _refused(reason: Refusal, message: str, stamp_ns: int) -> Refused:
    return Refused(reason, f"odometry: {message}", "odometry", stamp_ns)


def _error(reason: Refusal, message: str, stamp_ns: int) -> ObservationError:
    return ObservationError(Refused(reason, message, "odometry", stamp_ns, ends_attempt=True))


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
