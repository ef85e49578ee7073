"""From subscriptions to synchronised frame sets. Callbacks store bytes; nothing is decoded here."""

import time
from collections import Counter
from collections.abc import Callable

from nav_msgs.msg import Odometry
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, Imu

from opendrivevla_ros.core.ego import Command
from opendrivevla_ros.core.rig import CAMERA_NAMES, CameraRig
from opendrivevla_ros.msg import DrivingCommand
from opendrivevla_ros.ros import qos
from opendrivevla_ros.ros.conversions import nanoseconds, raw_image, xyz
from opendrivevla_ros.ros.message_filters_gate import MessageFiltersGate
from opendrivevla_ros.ros.parameters import Parameters
from opendrivevla_ros.ros.received import add_odometry
from opendrivevla_ros.sensing import images
from opendrivevla_ros.sensing.assembler import CommandKeeper
from opendrivevla_ros.sensing.calibration import CameraInfo as PlainCameraInfo
from opendrivevla_ros.sensing.calibration import CameraInfoMonitor
from opendrivevla_ros.sensing.odometry import OdometryBuffer, OdometrySettings
from opendrivevla_ros.sensing.refusals import Refused
from opendrivevla_ros.sensing.synchronizer import FrameSet, MissingCamera, Synchronizer, SynchronizerSettings

Result = FrameSet | Refused


class Inputs:
    """All inputs of the node, one synchroniser, and what each source last had refused.

    on_result: told of every frame set and refusal in order. is_ready: whether messages are wanted now.
    """

    def __init__(
        self,
        node: Node,
        endpoints: qos.Endpoints,
        parameters: Parameters,
        rig: CameraRig,
        *,
        on_result: Callable[[Result], None],
        is_ready: Callable[[], bool],
    ) -> None:
        self._node, self._on_result, self._is_ready = node, on_result, is_ready
        self._base_frame = parameters["base_frame"]
        self.odometry = OdometryBuffer(odometry_settings(parameters))
        self.synchronizer = Synchronizer(synchronizer_settings(parameters))
        self.command = CommandKeeper(
            timeout_s=parameters["command.timeout"], default=Command[parameters["command.default"].upper()]
        )
        self.monitor = CameraInfoMonitor(rig, rectified=parameters["rectified"])
        self.odometry_received = 0
        self.dropped: Counter[tuple[str, str]] = Counter()  # single messages, by source and reason
        self.imu_problem = ""
        self._gate = None
        if parameters["sync.method"] == "message_filters":
            self._gate = MessageFiltersGate(parameters["sync.slop"], self._add_image)
        for camera in CAMERA_NAMES:
            self._subscribe_to_camera(endpoints, camera, parameters[f"cameras.{camera}.transport"])
        endpoints.subscription(Odometry, "~/input/odometry", qos.best_effort(100), self._on_odometry)
        endpoints.subscription(DrivingCommand, "~/input/command", qos.latched(), self._on_command)
        if parameters["odometry.use_imu"]:
            endpoints.subscription(Imu, "~/input/imu", qos.best_effort(50), self._on_imu)

    def poll(self) -> None:
        """Decides what has waited long enough; to be called at 20 Hz or more."""
        if self._is_ready():
            self._report(self.synchronizer.poll(time.monotonic_ns()))

    def clear(self) -> None:
        """Forgets all pictures, odometry, the command and the counters."""
        self.synchronizer.reset()
        self.odometry.clear()
        self.monitor.reset()
        self.command.clear()
        self.dropped.clear()
        self.odometry_received = 0

    def _subscribe_to_camera(self, endpoints: qos.Endpoints, camera: str, transport: str) -> None:
        add = self._add_image if self._gate is None else self._gate.add

        def on_image(message: Image | CompressedImage) -> None:
            if self._is_ready():
                add(camera, message)

        def on_camera_info(message: CameraInfo) -> None:
            if self._is_ready():
                refused = self.monitor.check(camera, PlainCameraInfo.of(message), nanoseconds(message.header.stamp))
                self._report([] if refused is None else [refused])

        image, profile = f"~/input/{camera}/image", qos.best_effort(2)
        if transport == "raw":
            endpoints.subscription(Image, image, profile, on_image)
        else:
            endpoints.subscription(CompressedImage, f"{image}/compressed", profile, on_image)
        endpoints.subscription(CameraInfo, f"~/input/{camera}/camera_info", qos.best_effort(1), on_camera_info)

    def _add_image(self, camera: str, message: Image | CompressedImage) -> None:
        is_raw = isinstance(message, Image)
        image = raw_image(message) if is_raw else images.CompressedImage(message.data)
        stamp_ns = nanoseconds(message.header.stamp)
        self._report(self.synchronizer.add_image(camera, stamp_ns, image, time.monotonic_ns()))

    def _on_odometry(self, message: Odometry) -> None:
        if not self._is_ready():
            return
        self.odometry_received += 1
        stamp_ns = nanoseconds(message.header.stamp)
        refused = add_odometry(self.odometry, message)
        results: list[Result] = [] if refused is None else [refused]
        if refused is None or refused.reason.clears_state:
            results += self.synchronizer.add_odometry(stamp_ns, time.monotonic_ns())
        self._report(results)

    def _on_imu(self, message: Imu) -> None:
        if not self._is_ready():
            return
        frame = message.header.frame_id
        if frame != self._base_frame:
            self.imu_problem = f"the IMU is in frame {frame!r}, not {self._base_frame!r}; publish it turned into that"
            self._node.get_logger().warning(self.imu_problem, throttle_duration_sec=5.0)
            return
        self.imu_problem = ""
        refused = self.odometry.add_imu(
            nanoseconds(message.header.stamp),
            linear_acceleration=xyz(message.linear_acceleration),
            angular_velocity=xyz(message.angular_velocity),
        )
        self._report([] if refused is None else [refused])

    def _on_command(self, message: DrivingCommand) -> None:
        refused = self.command.receive(message.command, message.text, time.monotonic_ns())
        self._report([] if refused is None else [refused])

    def _report(self, results: list[Result]) -> None:
        for result in results:
            if isinstance(result, Refused) and not result.ends_attempt:
                self.dropped[result.source, result.reason.value] += 1
            self._on_result(result)


def odometry_settings(parameters: Parameters) -> OdometrySettings:
    return OdometrySettings(
        world_frame=parameters["odometry.world_frame"] or None,
        base_frame=parameters["base_frame"],
        max_gap_s=parameters["odometry.max_gap"],
        max_speed_mps=parameters["odometry.max_speed"],
        gap_limit_s=parameters["sync.gap_limit"],
    )


def synchronizer_settings(parameters: Parameters) -> SynchronizerSettings:
    return SynchronizerSettings(
        anchor=parameters["sync.anchor"],
        slop_s=parameters["sync.slop"],
        max_wait_s=parameters["sync.max_wait"],
        missing_camera=MissingCamera(parameters["sync.missing_camera"]),
        hold_max_age_s=parameters["sync.hold_max_age"],
        frozen_after=parameters["sync.frozen_after"],
        gap_limit_s=parameters["sync.gap_limit"],
        odometry_max_gap_s=parameters["odometry.max_gap"],
    )
