"""A set of undecoded pictures, odometry and a command to an Observation: the one way for live and recorded data."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from opendrivevla_ros.core.ego import Command, DrivingCommand
from opendrivevla_ros.core.observation import CameraFrame, Observation
from opendrivevla_ros.core.rig import CameraRig
from opendrivevla_ros.sensing.images import ImageError, Size
from opendrivevla_ros.sensing.odometry import OdometryBuffer
from opendrivevla_ros.sensing.refusals import ObservationError, Refusal, Refused
from opendrivevla_ros.sensing.synchronizer import FrameSet, SyncedFrame

__all__ = ["CommandKeeper", "ObservationAssembler", "ObservationError"]


class ObservationAssembler:
    """Decodes only the set it is given, its pictures side by side on a thread pool.

    image_size: (width, height) that the policy needs; JPEGs may come smaller than the calibration, but not than this.
    workers: threads; as many as there are cores, and no more than cameras, where it is None.
    """

    def __init__(self, rig: CameraRig, *, image_size: Size, workers: int | None = None) -> None:
        self.rig = rig
        self._image_size = image_size
        count = min(len(rig.cameras), os.cpu_count() or 1) if workers is None else workers
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="decode")

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown()

    def assemble(self, frame_set: FrameSet, odometry: OdometryBuffer, command: DrivingCommand) -> Observation:
        """The observation at the anchor's stamp. Raises ObservationError: BAD_IMAGE, or what the odometry lacks."""
        stamp = frame_set.anchor_stamp_ns
        ego = odometry.state_at(stamp)
        pictures = [frame_set.frames[camera.name] for camera in self.rig.cameras]
        jobs = [self._pool.submit(self._decode, frame, stamp) for frame in pictures]
        errors = [error for error in (job.exception() for job in jobs) if error is not None]
        if errors:
            raise errors[0]
        frames = tuple(job.result() for job in jobs)
        return Observation(stamp, frames, self.rig, ego, command, frame_set.degraded)

    def _decode(self, frame: SyncedFrame, anchor_stamp_ns: int) -> CameraFrame:
        calibration = self.rig[frame.camera]
        if frame.image is None:
            black = np.zeros((calibration.height, calibration.width, 3), dtype=np.uint8)
            return CameraFrame(frame.camera, frame.stamp_ns, black, blank=True)
        try:
            width, height = frame.image.size()
            if (width, height) != (calibration.width, calibration.height):
                expected = f"{calibration.width}x{calibration.height}"
                raise ImageError(f"a picture of {width}x{height} contradicts the calibration, which says {expected}")
            image = frame.image.decode(self._image_size)
        except ImageError as error:
            message = f"{frame.camera}: {error}"
            raise ObservationError(
                Refused(Refusal.BAD_IMAGE, message, frame.camera, anchor_stamp_ns, ends_attempt=True)
            ) from error
        return CameraFrame(frame.camera, frame.stamp_ns, image, held=frame.held)


class CommandKeeper:
    """The last command, until it is stale.

    timeout_s: after so long without a new one the default takes its place, marked as such; 0 keeps it for ever.
    """

    def __init__(self, *, timeout_s: float = 5.0, default: Command = Command.KEEP_FORWARD) -> None:
        if not timeout_s >= 0:
            raise ValueError(f"timeout_s is {timeout_s}; it must be 0 (never) or a number of seconds")
        self._timeout_ns = round(timeout_s * 1e9)
        self._default = DrivingCommand(default, is_default=True)
        self.clear()

    def clear(self) -> None:
        """Forgets the command."""
        self._command: DrivingCommand | None = None
        self._received_ns = 0

    def receive(self, value: int, text: str, now_ns: int) -> Refused | None:
        """Takes the value and text of a msg/DrivingCommand; an unknown value leaves the command as it is."""
        try:
            command = Command(value)
        except ValueError:
            known = ", ".join(f"{command.value} {command.name}" for command in Command)
            message = f"command {value} is not one of {known}"
            return Refused(Refusal.BAD_COMMAND, message, "command", now_ns)
        self._command, self._received_ns = DrivingCommand(command, text, is_default=False), now_ns
        return None

    def is_stale(self, now_ns: int) -> bool:
        """Whether there was a command, and it is older than the timeout."""
        return self._command is not None and 0 < self._timeout_ns < now_ns - self._received_ns

    def at(self, now_ns: int) -> DrivingCommand:
        """The command to follow now; `now_ns` is on the clock of `receive`."""
        return self._default if self._command is None or self.is_stale(now_ns) else self._command
