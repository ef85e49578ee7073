"""Observations from a bag: the bag's messages through the same synchroniser and assembler as live ones."""

from collections.abc import Iterator
from typing import Any

from rosbags.serde import SerdeError

from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.rig import CameraRig
from opendrivevla_ros.datasets.bag_messages import deserialize, nanoseconds
from opendrivevla_ros.datasets.bag_storage import BagMessage
from opendrivevla_ros.datasets.bag_topics import InputTopics
from opendrivevla_ros.datasets.bags import BagError, BagReader
from opendrivevla_ros.datasets.sensor_messages import encoded_image
from opendrivevla_ros.sensing.assembler import CommandKeeper, ObservationAssembler
from opendrivevla_ros.sensing.calibration import CameraInfo, CameraInfoMonitor
from opendrivevla_ros.sensing.odometry import OdometryBuffer, OdometrySettings
from opendrivevla_ros.sensing.refusals import ObservationError, Refusal, Refused
from opendrivevla_ros.sensing.synchronizer import FrameSet, Synchronizer, SynchronizerSettings


class BagObservations:
    """Iterates over the observations and refusals of a bag in the order of time; once.

    image_size: (width, height) that the policy needs. rate: observations per second at most, 0 for every set of
    pictures; sets that are left out are not decoded. A Refused whose reason `clears_state` means that whoever plans
    must reset too. `stamp_ns` is how far the bag was read.
    """

    def __init__(
        self,
        bag: BagReader,
        inputs: InputTopics,
        rig: CameraRig,
        *,
        image_size: tuple[int, int],
        rate: float = 0.0,
        settings: SynchronizerSettings | None = None,
    ) -> None:
        self.stamp_ns = bag.start_ns
        self._bag = bag
        self._inputs = {topic.name: name for name, topic in inputs.by_input.items()}
        self._period_ns = round(1e9 / rate) if rate else 0
        self._newest_ns: int | None = None
        self._settings = settings or SynchronizerSettings()
        self._synchronizer = Synchronizer(self._settings)
        self._odometry = OdometryBuffer(OdometrySettings())
        self._commands = CommandKeeper()
        self._calibration = CameraInfoMonitor(rig)
        self._assembler = ObservationAssembler(rig, image_size=image_size)

    def __iter__(self) -> Iterator[Observation | Refused]:
        try:
            for entry in self._bag.messages(self._inputs):
                self.stamp_ns = entry.stamp_ns
                yield from self._outcomes(self._take(entry))
            waited_ns = self.stamp_ns + round(self._settings.max_wait_s * 1e9)
            yield from self._outcomes(self._synchronizer.poll(waited_ns))
        finally:
            self._assembler.close()

    def _take(self, entry: BagMessage) -> list[FrameSet | Refused]:
        """What one message of the bag leads to."""
        name = self._inputs[entry.topic]
        try:
            message = deserialize(entry.data, entry.type)
        except SerdeError as error:
            sentence = f"{entry.topic} in {self._bag.path} holds a message that is not a {entry.type} ({error})"
            raise BagError(f"{sentence}; record it again with ROS 2's definition of that type") from None
        camera, _, kind = name.partition("/")
        if kind == "image":
            stamp_ns = nanoseconds(message.header.stamp)
            return self._synchronizer.add_image(camera, stamp_ns, encoded_image(message), entry.stamp_ns)
        if kind == "camera_info":
            stamp_ns = nanoseconds(message.header.stamp)
            return _dropped(self._calibration.check(camera, CameraInfo.of(message), stamp_ns))
        if name == "odometry":
            return self._take_odometry(message, entry.stamp_ns)
        if name == "command":
            return _dropped(self._commands.receive(int(message.command), message.text, entry.stamp_ns))
        acceleration, turn = message.linear_acceleration, message.angular_velocity
        refused = self._odometry.add_imu(
            nanoseconds(message.header.stamp),
            linear_acceleration=(acceleration.x, acceleration.y, acceleration.z),
            angular_velocity=(turn.x, turn.y, turn.z),
        )
        return _dropped(refused)

    def _take_odometry(self, message: Any, received_ns: int) -> list[FrameSet | Refused]:
        stamp_ns = nanoseconds(message.header.stamp)
        position, turn = message.pose.pose.position, message.pose.pose.orientation
        linear, angular = message.twist.twist.linear, message.twist.twist.angular
        refused = self._odometry.add(
            stamp_ns,
            position=(position.x, position.y, position.z),
            quaternion_xyzw=(turn.x, turn.y, turn.z, turn.w),
            linear=(linear.x, linear.y, linear.z),
            angular=(angular.x, angular.y, angular.z),
            frame_id=message.header.frame_id,
            child_frame_id=message.child_frame_id,
        )
        if refused is not None and not refused.reason.clears_state:
            return [refused]
        return [*_dropped(refused), *self._synchronizer.add_odometry(stamp_ns, received_ns)]

    def _outcomes(self, results: list[FrameSet | Refused]) -> Iterator[Observation | Refused]:
        for result in results:
            if isinstance(result, Refused):
                if result.reason is Refusal.CLOCK_JUMP:
                    self._newest_ns = None
                yield result
            elif self._is_due(result.anchor_stamp_ns):
                yield self._observation(result)

    def _is_due(self, stamp_ns: int) -> bool:
        """Whether a set of pictures is to be planned from; half a camera period early counts as due."""
        newest = self._newest_ns
        if newest is not None and newest <= stamp_ns < newest + self._period_ns - self._period_ns // 12:
            return False
        self._newest_ns = stamp_ns
        return True

    def _observation(self, frames: FrameSet) -> Observation | Refused:
        command = self._commands.at(self.stamp_ns)
        problem = next((text for camera in frames.frames if (text := self._calibration.problem(camera))), "")
        if problem:
            return Refused(Refusal.BAD_CALIBRATION, problem, "camera_info", frames.anchor_stamp_ns, ends_attempt=True)
        try:
            return self._assembler.assemble(frames, self._odometry, command)
        except ObservationError as error:
            return error.refused


def _dropped(refused: Refused | None) -> list[FrameSet | Refused]:
    return [] if refused is None else [refused]
