"""Why an input was refused: one name per reason, and which result of msg/PlanStatus each belongs to."""

from dataclasses import dataclass
from enum import Enum


class ObservationFailure(Enum):
    """Why no observation could be formed; the values are those of msg/PlanStatus."""

    MISSING_CAMERA = 1
    CAMERA_FROZEN = 2
    BAD_IMAGE = 3
    ODOMETRY_MISSING = 4
    BAD_ODOMETRY = 5
    CLOCK_JUMP = 6
    BAD_CALIBRATION = 7
    BAD_COMMAND = 8


class Refusal(Enum):
    """The reasons; a value is the reason's name in counters and diagnostics."""

    UNKNOWN_CAMERA = "unknown_camera"
    MISSING_CAMERA = "missing_camera"
    TOO_LATE = "too_late"
    DUPLICATE_STAMP = "duplicate_stamp"
    STAMP_BACKWARDS = "stamp_backwards"
    CAMERA_FROZEN = "camera_frozen"
    BAD_IMAGE = "bad_image"
    ODOMETRY_MISSING = "odometry_missing"
    ODOMETRY_STALE = "odometry_stale"
    ODOMETRY_NOT_FINITE = "odometry_not_finite"
    ODOMETRY_QUATERNION = "odometry_quaternion"
    ODOMETRY_FRAME = "odometry_frame"
    ODOMETRY_JUMP = "odometry_jump"
    ODOMETRY_RESTARTED = "odometry_restarted"
    ODOMETRY_DUPLICATE_STAMP = "odometry_duplicate_stamp"
    ODOMETRY_STAMP_BACKWARDS = "odometry_stamp_backwards"
    IMU_NOT_FINITE = "imu_not_finite"
    IMU_STAMP_BACKWARDS = "imu_stamp_backwards"
    CLOCK_JUMP = "clock_jump"
    BAD_CALIBRATION = "bad_calibration"
    BAD_COMMAND = "bad_command"

    @property
    def failure(self) -> ObservationFailure:
        """The result of msg/PlanStatus that an attempt refused for this reason has."""
        return _FAILURES[self]

    @property
    def clears_state(self) -> bool:
        """Whether what came before no longer belongs to what comes: the policy's memory must be dropped too."""
        return self in (Refusal.CLOCK_JUMP, Refusal.ODOMETRY_RESTARTED)


_FAILURES = {
    Refusal.UNKNOWN_CAMERA: ObservationFailure.MISSING_CAMERA,
    Refusal.MISSING_CAMERA: ObservationFailure.MISSING_CAMERA,
    Refusal.TOO_LATE: ObservationFailure.MISSING_CAMERA,
    Refusal.DUPLICATE_STAMP: ObservationFailure.MISSING_CAMERA,
    Refusal.STAMP_BACKWARDS: ObservationFailure.MISSING_CAMERA,
    Refusal.CAMERA_FROZEN: ObservationFailure.CAMERA_FROZEN,
    Refusal.BAD_IMAGE: ObservationFailure.BAD_IMAGE,
    Refusal.ODOMETRY_MISSING: ObservationFailure.ODOMETRY_MISSING,
    Refusal.ODOMETRY_STALE: ObservationFailure.ODOMETRY_MISSING,
    Refusal.ODOMETRY_NOT_FINITE: ObservationFailure.BAD_ODOMETRY,
    Refusal.ODOMETRY_QUATERNION: ObservationFailure.BAD_ODOMETRY,
    Refusal.ODOMETRY_FRAME: ObservationFailure.BAD_ODOMETRY,
    Refusal.ODOMETRY_JUMP: ObservationFailure.BAD_ODOMETRY,
    Refusal.ODOMETRY_RESTARTED: ObservationFailure.BAD_ODOMETRY,
    Refusal.ODOMETRY_DUPLICATE_STAMP: ObservationFailure.BAD_ODOMETRY,
    Refusal.ODOMETRY_STAMP_BACKWARDS: ObservationFailure.BAD_ODOMETRY,
    Refusal.IMU_NOT_FINITE: ObservationFailure.BAD_ODOMETRY,
    Refusal.IMU_STAMP_BACKWARDS: ObservationFailure.BAD_ODOMETRY,
    Refusal.CLOCK_JUMP: ObservationFailure.CLOCK_JUMP,
    Refusal.BAD_CALIBRATION: ObservationFailure.BAD_CALIBRATION,
    Refusal.BAD_COMMAND: ObservationFailure.BAD_COMMAND,
}


@dataclass(frozen=True)
class Refused:
    """One refusal. message: one sentence with value, limit and remedy. source: a camera's name, "odometry", ...

    ends_attempt: True for the outcome of an anchor picture, which is an attempt to plan; False where a single
    message was dropped.
    """

    reason: Refusal
    message: str
    source: str
    stamp_ns: int
    ends_attempt: bool = False


class ObservationError(Exception):
    """No observation could be formed."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.message)
        self.refused = refused

    @property
    def reason(self) -> Refusal:
        return self.refused.reason

    @property
    def camera(self) -> str:
        """The source of the refusal: a camera's name, or "odometry"."""
        return self.refused.source
