"""A vla_node in a process of its own, six synthetic cameras and odometry for it, and a client that waits."""

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import rclpy
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMessage
from opendrivevla_ros.action import AskScene
from opendrivevla_ros.msg import (
    DetectedAgentArray,
    DrivingCommand,
    MapElementArray,
    PlannedTrajectory,
    PlanStatus,
    Reasoning,
    VlaStatus,
)
from rcl_interfaces.srv import SetParameters
from rclpy.action import ActionClient
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from opendrivevla_ros.core.geometry import planar_transform
from opendrivevla_ros.core.rig import CAMERA_NAMES, NOMINAL_YAW_DEGREES, CameraCalibration, CameraRig
from opendrivevla_ros.ros import qos
from opendrivevla_ros.ros.conversions import nanoseconds, time_message
from opendrivevla_ros.sensing.calibration import save_rig

WIDTH, HEIGHT, FOCAL = 160, 90, 127.0
RATE_HZ, ODOMETRY_RATE_HZ, SPEED = 10, 50, 5.0
RAW_CAMERA = "cam_back_right"  # the one that the tests send raw
OPTICAL_TO_BODY = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
TIMEOUT_S = 20.0
Found = TypeVar("Found")


def synthetic_rig(width: int = WIDTH, height: int = HEIGHT, focal: float = FOCAL) -> CameraRig:
    """Six pinhole cameras in nuScenes' arrangement, 1.5 m above the ground."""
    intrinsics = np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
    cameras = []
    for name in CAMERA_NAMES:
        pose = planar_transform(1.0, 0.0, np.radians(NOMINAL_YAW_DEGREES[name]))
        pose[:3, :3] = pose[:3, :3] @ OPTICAL_TO_BODY
        pose[2, 3] = 1.5
        cameras.append(CameraCalibration(name, width, height, intrinsics, pose))
    return CameraRig(tuple(cameras))


def own_domain() -> int:
    """A ROS domain id that no other test process on this machine has, held until this process ends."""
    for domain in range(1, 101):
        lock = open(Path(tempfile.gettempdir()) / f"opendrivevla_ros_domain_{domain}.lock", "w")  # noqa: SIM115
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        _locks.append(lock)
        return domain
    raise RuntimeError("all ROS domain ids from 1 to 100 are taken; end the other test processes")


_locks: list[Any] = []


def wait_until(
    condition: Callable[[], Found | None], what: str | Callable[[], str], timeout_s: float = TIMEOUT_S
) -> Found:
    """Polls until the condition gives something true, and returns that. what: for the error, called only for that."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited {timeout_s} s in vain for: {what if isinstance(what, str) else what()}")


class Run:
    """A node of the package in a process of its own. parameters: by name."""

    def __init__(self, module: str, log: Path, domain: int, wires: list[str], **parameters: Any) -> None:
        self._log = log
        given = [argument for name, value in parameters.items() for argument in ("-p", f"{name}:={value}")]
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"opendrivevla_ros.ros.{module}", "--ros-args", *given, *wires],
                env=os.environ | {"ROS_DOMAIN_ID": str(domain)},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def output(self) -> str:
        return self._log.read_text()

    def end(self) -> int:
        """Ctrl-C, if it still runs; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


class NodeProcess:
    """A vla_node in a process group of its own. parameters: by name, with two underscores for a dot.

    script: to run in its place.
    """

    def __init__(self, folder: Path, domain: int, *, script: Path | None = None, **parameters: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        rig_file, parameter_file = folder / "rig.yaml", folder / "parameters.yaml"
        if not rig_file.exists():
            save_rig(synthetic_rig(), rig_file)
        values: dict[str, Any] = {"rig_file": str(rig_file), "policy": "constant_velocity"}
        values[f"cameras.{RAW_CAMERA}.transport"] = "raw"
        values |= {name.replace("__", "."): value for name, value in parameters.items()}
        parameter_file.write_text(yaml.safe_dump({"/**": {"ros__parameters": values}}))
        self._log = folder / "log.txt"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    *(("-m", "opendrivevla_ros.ros.vla_node") if script is None else (str(script),)),
                    *("--ros-args", "--params-file", str(parameter_file)),
                ],
                env=os.environ | {"ROS_DOMAIN_ID": str(domain)},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def output(self) -> str:
        return self._log.read_text()

    def interrupt(self) -> int:
        """Ctrl-C; returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=TIMEOUT_S)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def _unchanged(message: Any) -> list[Any]:
    return [message]


@dataclass
class Feed:
    """What the feeder sends, and how tests spoil it.

    image: by camera, turns one message into those to send. odometry: the same for odometry. camera_info: by camera.
    offset_ns: added to all stamps.
    """

    image: dict[str, Callable[[Any], list[Any]]] = field(default_factory=dict)
    camera_info: dict[str, Callable[[CameraInfo], list[CameraInfo]]] = field(default_factory=dict)
    odometry: Callable[[Odometry], list[Odometry]] = _unchanged
    offset_ns: int = 0


class Client:
    """A node in this process: publishes the feed in a thread, keeps everything the vla_node says."""

    def __init__(self, domain: int) -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = Node("client", context=self.context)
        self.received: dict[str, list[Any]] = defaultdict(list)
        self.feed = Feed()
        self.sent: list[int] = []  # anchor stamps
        topics = {
            "output/trajectory": (PlannedTrajectory, qos.reliable(10)),
            "output/path": (PathMessage, qos.reliable(10)),
            "output/reasoning": (Reasoning, qos.reliable(10)),
            "output/agents": (DetectedAgentArray, qos.reliable(10)),
            "output/map_elements": (MapElementArray, qos.reliable(10)),
            "output/plan_status": (PlanStatus, qos.reliable(100)),
            "output/status": (VlaStatus, qos.latched()),
        }
        for topic, (kind, profile) in topics.items():
            self.listen(f"/vla_node/{topic}", kind, profile, key=topic)
        self.listen("/diagnostics", DiagnosticArray, qos.reliable(10), key="diagnostics")
        self._images = {
            camera: self.node.create_publisher(
                Image if camera == RAW_CAMERA else CompressedImage,
                f"/vla_node/input/{camera}/image{'' if camera == RAW_CAMERA else '/compressed'}",
                qos.reliable(5),
            )
            for camera in CAMERA_NAMES
        }
        self._camera_infos = {
            camera: self.node.create_publisher(CameraInfo, f"/vla_node/input/{camera}/camera_info", qos.reliable(1))
            for camera in CAMERA_NAMES
        }
        self._odometry = self.node.create_publisher(Odometry, "/vla_node/input/odometry", qos.reliable(50))
        self.command = self.node.create_publisher(DrivingCommand, "/vla_node/input/command", qos.latched())
        self.ask = ActionClient(self.node, AskScene, "/vla_node/ask")
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._stopping = threading.Event()
        self._rng = np.random.default_rng(0)
        self._threads = [threading.Thread(target=self._spin), threading.Thread(target=self._feed_all)]
        for thread in self._threads:
            thread.start()

    def listen(self, topic: str, kind: type, profile: Any, key: str = "") -> Any:
        """Keeps what comes on a topic in `received[key or topic]`; returns the subscription."""
        return self.node.create_subscription(kind, topic, self.received[key or topic].append, profile)

    def drop(self, destroy: Callable[[], object]) -> None:
        """Destroys something on the thread that spins.

        Beside it, rclpy's executor may come upon the events of a subscription that is gone, which ends it.
        """
        wait_until(self._executor.create_task(destroy).done, "the end of an entity")

    def close(self) -> None:
        self._stopping.set()
        self._threads[1].join()
        rclpy.shutdown(context=self.context)
        self._threads[0].join()
        self.node.destroy_node()

    def call(self, kind: type, name: str, request: Any) -> Any:
        client = self.node.create_client(kind, name)
        assert client.wait_for_service(timeout_sec=TIMEOUT_S), f"no service {name}"
        response = self.result(client.call_async(request))
        self.drop(lambda: self.node.destroy_client(client))
        return response

    def result(self, future: Any) -> Any:
        wait_until(future.done, "a response")
        return future.result()

    def wait_for(
        self,
        key: str,
        predicate: Callable[[Any], bool],
        *,
        since: int = 0,
        what: str = "",
        timeout_s: float = TIMEOUT_S,
    ) -> Any:
        """The first message of a kind, from index `since` on, for which the predicate holds."""
        messages = self.received[key]
        return wait_until(lambda: next((m for m in messages[since:] if predicate(m)), None), what or key, timeout_s)

    def wait_for_plan(self, after_ns: int) -> PlannedTrajectory:
        """A plan from pictures taken after a time."""
        newer = lambda plan: nanoseconds(plan.header.stamp) > after_ns  # noqa: E731
        return self.wait_for("output/trajectory", newer, what="a plan")

    def wait_for_diagnostics(self, task: str, word: str) -> None:
        """Until the newest diagnostics of a task have a word in their message or as the key of a value."""

        def named() -> bool:
            arrays = self.received["diagnostics"][-1:]
            found = [status for array in arrays for status in array.status if status.name.endswith(f": {task}")]
            return any(word in s.message or word in [value.key for value in s.values] for s in found)

        wait_until(named, f"{word!r} in diagnostics of {task}")

    def wait_for_state(self, state: int, word: str = "", timeout_s: float = TIMEOUT_S) -> VlaStatus:
        """A heartbeat from now on with a state of VlaStatus and a word in its reason."""
        return self.wait_for(
            "output/status",
            lambda status: status.state == state and word in status.reason,
            since=len(self.received["output/status"]),
            what=f"state {state} {word!r}",
            timeout_s=timeout_s,
        )

    def change_state(self, transition: int) -> bool:
        """Asks for a lifecycle transition; whether it succeeded."""
        request = ChangeState.Request(transition=Transition(id=transition))
        return self.call(ChangeState, "/vla_node/change_state", request).success

    def begin_transition(self, transition: int) -> None:
        """Asks for a lifecycle transition and does not wait for its end."""
        client = self.node.create_client(ChangeState, "/vla_node/change_state")
        assert client.wait_for_service(timeout_sec=TIMEOUT_S), "no service change_state"
        client.call_async(ChangeState.Request(transition=Transition(id=transition)))

    def set_parameter(self, name: str, value: object) -> str:
        """Sets a parameter; why it was refused, or an empty string."""
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        result = self.call(SetParameters, "/vla_node/set_parameters", request).results[0]
        return "" if result.successful else result.reason

    def now_ns(self) -> int:
        return self.node.get_clock().now().nanoseconds

    @contextmanager
    def spoiled(self, **changes: Any) -> Iterator[None]:
        """Feeds otherwise within the block."""
        self.feed = Feed(**changes)
        try:
            yield
        finally:
            self.feed = Feed()

    def _spin(self) -> None:
        with suppress(ExternalShutdownException):
            self._executor.spin()

    def _feed_all(self) -> None:
        tick, start = 0, time.monotonic()
        while not self._stopping.wait(max(0.0, start + tick / ODOMETRY_RATE_HZ - time.monotonic())):
            stamp_ns = self.now_ns() + self.feed.offset_ns
            for message in self.feed.odometry(self.make_odometry(stamp_ns)):
                self._odometry.publish(message)
            if tick % (ODOMETRY_RATE_HZ // RATE_HZ) == 0:
                self.sent.append(stamp_ns)
                for camera in CAMERA_NAMES:
                    spoil_info = self.feed.camera_info.get(camera, _unchanged)
                    for info in spoil_info(make_camera_info(stamp_ns)):
                        self._camera_infos[camera].publish(info)
                    spoil_image = self.feed.image.get(camera, _unchanged)
                    for image in spoil_image(self.make_image(camera, stamp_ns)):
                        self._images[camera].publish(image)
            tick += 1

    def make_image(self, camera: str, stamp_ns: int) -> Image | CompressedImage:
        picture = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
        picture[30:60, 40:120] = self._rng.integers(0, 256, (30, 80, 3), np.uint8)
        if camera == RAW_CAMERA:
            message = Image(height=HEIGHT, width=WIDTH, encoding="bgr8", step=3 * WIDTH, data=picture.tobytes())
        else:
            message = CompressedImage(format="jpeg", data=cv2.imencode(".jpg", picture)[1].tobytes())
        message.header.stamp = time_message(stamp_ns)
        message.header.frame_id = camera
        return message

    def make_odometry(self, stamp_ns: int) -> Odometry:
        message = Odometry(child_frame_id="base_link")
        message.header.frame_id = "odom"
        message.header.stamp = time_message(stamp_ns)
        message.pose.pose.position.x = SPEED * (stamp_ns % 1_000_000_000_000) / 1e9
        message.pose.pose.orientation.w = 1.0
        message.twist.twist.linear.x = SPEED
        return message


def make_camera_info(stamp_ns: int) -> CameraInfo:
    message = CameraInfo(width=WIDTH, height=HEIGHT, distortion_model="plumb_bob", d=[0.0] * 5)
    message.header.stamp = time_message(stamp_ns)
    message.k = [FOCAL, 0.0, WIDTH / 2, 0.0, FOCAL, HEIGHT / 2, 0.0, 0.0, 1.0]
    message.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    message.p = [FOCAL, 0.0, WIDTH / 2, 0.0, 0.0, FOCAL, HEIGHT / 2, 0.0, 0.0, 0.0, 1.0, 0.0]
    return message
