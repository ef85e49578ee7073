"""world_node as a process over real DDS: what it sends, that it follows plans, and how it ends."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
import yaml
from nav_msgs.msg import Odometry
from opendrivevla_ros.msg import DetectedAgentArray, DrivingCommand, MapElementArray, PlannedTrajectory, WorldStatus
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from ros.harness import TIMEOUT_S, Run, own_domain
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage
from visualization_msgs.msg import MarkerArray

from opendrivevla_ros.core.rig import CAMERA_NAMES
from opendrivevla_ros.ros import qos
from opendrivevla_ros.ros.conversions import nanoseconds
from opendrivevla_ros.ros.world_drive import TICK_NS
from opendrivevla_ros.ros.world_node import EPOCH_NS
from opendrivevla_ros.ros.world_parameters import WORLD_TABLE
from opendrivevla_ros.sensing.calibration import CameraInfo as PlainCameraInfo
from opendrivevla_ros.sensing.calibration import CameraInfoMonitor, load_rig
from opendrivevla_ros.sensing.images import decode_compressed
from opendrivevla_ros.world.rig import nuscenes_rig

CONFIG = Path(__file__).parents[2] / "config"
CAMERA_TOPICS = ("image/compressed", "camera_info")
SENSORS = ("odometry", "command", *(f"{camera}/{name}" for camera in CAMERA_NAMES for name in CAMERA_TOPICS))
WIRES = [argument for name in SENSORS for argument in ("-r", f"~/output/{name}:=/vla_node/input/{name}")]
WIRES += ["-r", "~/input/trajectory:=/vla_node/output/trajectory"]
LEAD_IN_S, DURATION_S = 1.0, 8.0


class Listener:
    """Keeps everything that a world_node says, by topic."""

    def __init__(self, domain: int) -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = Node("world_listener", context=self.context)
        self.received: dict[str, list[Any]] = defaultdict(list)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        kinds: dict[str, type] = {"/clock": Clock, "/vla_node/output/trajectory": PlannedTrajectory}
        kinds |= {"/world_node/truth/agents": DetectedAgentArray, "/world_node/truth/markers": MarkerArray}
        kinds |= {"/vla_node/input/odometry": Odometry}
        for camera in CAMERA_NAMES:
            kinds[f"/vla_node/input/{camera}/image/compressed"] = CompressedImage
            kinds[f"/vla_node/input/{camera}/camera_info"] = CameraInfo
        late = {"/world_node/truth/status": WorldStatus, "/world_node/truth/map_elements": MapElementArray}
        late["/vla_node/input/command"] = DrivingCommand
        for topic, kind in (kinds | late).items():
            profile = qos.latched(200) if topic in late else qos.reliable(200)
            self.node.create_subscription(kind, topic, self.received[topic].append, profile)

    def spin_until(self, done: Callable[[], bool], what: str, timeout_s: float = 3 * TIMEOUT_S) -> None:
        end = self.node.get_clock().now().nanoseconds + round(timeout_s * 1e9)
        while not done():
            assert self.node.get_clock().now().nanoseconds < end, f"waited {timeout_s} s in vain for: {what}"
            self._executor.spin_once(timeout_sec=0.05)

    @property
    def has_ended(self) -> bool:
        """Whether the end of a drive has been heard: what was sent may come after its sender has ended."""
        ends = (WorldStatus.ARRIVED, WorldStatus.COLLIDED, WorldStatus.OUT_OF_TIME)
        return bool(self.statuses) and self.statuses[-1].state in ends

    def has_heard_until(self, stamp_ns: int) -> bool:
        """Whether the clock, the odometry and the pictures of that stamp have come."""
        heard = [nanoseconds(message.clock) for message in self.received["/clock"][-1:]]
        topics = ["odometry", *(f"{camera}/{name}" for camera in CAMERA_NAMES for name in CAMERA_TOPICS)]
        for topic in topics:
            heard += [nanoseconds(message.header.stamp) for message in self.received[f"/vla_node/input/{topic}"][-1:]]
        return heard == [stamp_ns] * (1 + len(topics))

    @property
    def statuses(self) -> list[WorldStatus]:
        return self.received["/world_node/truth/status"]

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture(scope="module")
def world_domain() -> int:
    return own_domain()


@pytest.fixture
def listener(world_domain: int) -> Iterator[Listener]:
    listener = Listener(world_domain)
    yield listener
    listener.close()


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Listener, int]]:
    """A drive of constant_velocity on a free road, in a closed loop over DDS: what was heard, and the exit code."""
    folder, domain = tmp_path_factory.mktemp("drive"), own_domain()
    listener = Listener(domain)
    planning = {"policy": "constant_velocity", "rig_file": CONFIG / "rig/world.yaml", "use_sim_time": "true"}
    planner = Run("vla_node", folder / "vla_node.log", domain, [], **planning)
    scenario = {"family": "free_road", "seed": 29, "lead_in": LEAD_IN_S, "duration": DURATION_S, "readers": 2}
    world = Run("world_node", folder / "world_node.log", domain, WIRES, **scenario)
    try:
        listener.spin_until(lambda: listener.has_ended and world.process.poll() is not None, "the end of the drive")
        last = listener.statuses[-1].state
        assert last == WorldStatus.OUT_OF_TIME, world.output()
        end_ns = EPOCH_NS + round(DURATION_S * 1e9)
        listener.spin_until(lambda: listener.has_heard_until(end_ns), "what was sent before the end")
        yield listener, world.process.returncode
    finally:
        world.end()
        planner.end()
        listener.close()


Drive = tuple[Listener, int]


def test_the_clock_counts_every_tick_from_the_start_to_the_end(drive: Drive) -> None:
    stamps = [nanoseconds(message.clock) for message in drive[0].received["/clock"]]
    assert stamps[0] == EPOCH_NS
    assert np.diff(stamps).tolist() == [TICK_NS] * round(DURATION_S * 1e9 / TICK_NS)


def test_odometry_comes_at_50_hz_and_moves_as_fast_as_it_says(drive: Drive) -> None:
    messages = drive[0].received["/vla_node/input/odometry"]
    stamps = [nanoseconds(message.header.stamp) for message in messages]
    assert set(np.diff(stamps)) == {TICK_NS}
    where = np.array([[m.pose.pose.position.x, m.pose.pose.position.y] for m in messages])
    moved = np.hypot(*np.diff(where, axis=0).T) / (TICK_NS * 1e-9)
    told = [message.twist.twist.linear.x for message in messages[1:]]
    np.testing.assert_allclose(moved, told, atol=0.6)
    assert {(m.header.frame_id, m.child_frame_id) for m in messages} == {("odom", "base_link")}


def test_six_pictures_of_one_instant_come_twice_a_second_with_the_shipped_calibration(drive: Drive) -> None:
    received = drive[0].received
    stamps = [nanoseconds(m.header.stamp) for m in received["/vla_node/input/cam_front/image/compressed"]]
    assert stamps == [EPOCH_NS + k * 500_000_000 for k in range(len(stamps))]
    assert len(stamps) == DURATION_S * 2 + 1
    monitor = CameraInfoMonitor(load_rig(CONFIG / "rig/world.yaml"))
    for camera in CAMERA_NAMES:
        pictures = received[f"/vla_node/input/{camera}/image/compressed"]
        assert [nanoseconds(picture.header.stamp) for picture in pictures] == stamps
        assert decode_compressed(pictures[-1].data).shape == (252, 448, 3)
        info = received[f"/vla_node/input/{camera}/camera_info"][-1]
        assert monitor.check(camera, PlainCameraInfo.of(info), nanoseconds(info.header.stamp)) is None
    front = [decode_compressed(m.data) for m in received["/vla_node/input/cam_front/image/compressed"]]
    assert np.abs(front[0].astype(int) - front[-1]).mean() > 2.0


def test_every_plan_of_the_node_is_followed_and_the_vehicle_is_where_they_say(drive: Drive) -> None:
    received = drive[0].received
    plans, end = received["/vla_node/output/trajectory"], drive[0].statuses[-1]
    assert len(plans) >= DURATION_S
    assert end.refusals == 0
    # discovery can take seconds: what the world heard before this listener heard anything does not count
    first_ns = nanoseconds(plans[0].header.stamp)
    before = [status.plans for status in drive[0].statuses if nanoseconds(status.header.stamp) <= first_ns]
    assert abs(end.plans - max(before, default=0) - len(plans)) <= 2  # the last may come after the end
    where = {nanoseconds(m.header.stamp): m.pose.pose.position for m in received["/vla_node/input/odometry"]}
    compared = 0
    for plan in plans:
        start_ns = nanoseconds(plan.header.stamp)
        assert start_ns in where
        after = where.get(start_ns + 1_000_000_000)
        if start_ns >= EPOCH_NS + LEAD_IN_S * 1e9 and after is not None:
            planned = plan.points[1].pose.position
            assert np.hypot(planned.x - after.x, planned.y - after.y) < 1.0
            compared += 1
    assert compared >= 5


def test_the_status_tells_how_the_drive_goes_and_the_last_one_how_it_ended(drive: Drive) -> None:
    statuses = drive[0].statuses
    states = [status.state for status in statuses if status.state != WorldStatus.WAITING]
    assert sorted(states) == states
    assert set(states) == {WorldStatus.LEAD_IN, WorldStatus.DRIVING, WorldStatus.OUT_OF_TIME}
    end = statuses[-1]
    assert (end.family, end.seed, end.collision) == ("free_road", 29, "")
    assert end.elapsed == pytest.approx(DURATION_S)
    assert 0.3 < end.completion < 1.0
    assert drive[1] == 0


def test_the_truth_is_there_for_scoring(drive: Drive) -> None:
    received = drive[0].received
    agents = received["/world_node/truth/agents"]
    assert len(agents) >= DURATION_S * 9
    assert all(agent.size.z > 0.5 for agent in agents[0].agents)
    first, last = (
        {agent.track_id: agent.pose.position.x for agent in array.agents} for array in agents[:: len(agents) - 1]
    )
    assert any(abs(last[i] - x) > 1.0 for i, x in first.items() if i in last)
    labels = {element.label for element in received["/world_node/truth/map_elements"][0].elements}
    assert labels >= {"drivable_area", "boundary", "divider"}
    names = {marker.ns for marker in received["/world_node/truth/markers"][-1].markers}
    assert names >= {"agents/box", "ego/box", "route", "map/boundary"}
    commands = {message.command for message in received["/vla_node/input/command"]}
    assert commands == {DrivingCommand.KEEP_FORWARD}


def test_without_plans_the_vehicle_stops_by_itself(listener: Listener, world_domain: int, tmp_path: Path) -> None:
    silent = listener.node.create_publisher(PlannedTrajectory, "/vla_node/output/trajectory", qos.reliable(1))
    scenario = {"family": "free_road", "seed": 29, "lead_in": 0.0, "duration": 6.0}
    world = Run("world_node", tmp_path / "log", world_domain, WIRES, real_time_factor=4.0, image_width=64, **scenario)
    listener.spin_until(lambda: listener.has_ended and world.process.poll() is not None, "the end of the drive")
    listener.node.destroy_publisher(silent)
    assert world.process.returncode == 0, world.output()
    odometry = listener.received["/vla_node/input/odometry"]  # may be heard after the end
    listener.spin_until(lambda: odometry[-1].twist.twist.linear.x == 0.0, "a vehicle that stands")
    assert "no plan has come: the vehicle brakes" in {status.reason for status in listener.statuses}
    for camera in CAMERA_NAMES:  # no sensor sends the same picture twice, also of what stands still
        before, after = listener.received[f"/vla_node/input/{camera}/image/compressed"][-2:]
        assert before.data != after.data


def test_time_stands_still_until_somebody_reads_and_ctrl_c_ends_the_waiting(
    listener: Listener, world_domain: int, tmp_path: Path
) -> None:
    world = Run("world_node", tmp_path / "log", world_domain, WIRES, readers=2, image_width=64)
    listener.spin_until(lambda: bool(listener.statuses), "a status")
    assert listener.statuses[0].state == WorldStatus.WAITING
    assert "/clock" in listener.statuses[0].reason
    assert listener.received["/clock"] == []
    assert world.end() == 0, world.output()
    assert "Traceback" not in world.output()


def test_ctrl_c_in_the_middle_of_a_drive_ends_it_cleanly(
    listener: Listener, world_domain: int, tmp_path: Path
) -> None:
    world = Run("world_node", tmp_path / "log", world_domain, WIRES, readers=0, camera_rate=10.0)
    listener.spin_until(lambda: len(listener.received["/vla_node/input/odometry"]) > 10, "odometry")
    assert world.end() == 0, world.output()
    assert "Traceback" not in world.output()


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"family": "moon"}, "family is 'moon', but must be one of free_road, "),
        ({"seed": -1}, "seed is -1, outside 0 to"),
        ({"image_width": 450}, "image_width is 450, which has no height at 16:9"),
        ({"camera_rate": 50.0}, "camera_rate is 50.0, outside 0.5 to 10 Hz"),
        ({"speed": 3.0}, "speed is unknown; the parameters are family, seed"),
    ],
)
def test_a_wrong_parameter_is_one_sentence_and_exit_code_1(
    world_domain: int, tmp_path: Path, parameters: dict[str, Any], words: str
) -> None:
    world = Run("world_node", tmp_path / "log", world_domain, [], **parameters)
    assert world.process.wait(timeout=TIMEOUT_S) == 1
    assert words in world.output()
    assert world.output().count("\n") == 1


def test_the_shipped_files_hold_the_defaults() -> None:
    shipped = yaml.safe_load((CONFIG / "world.param.yaml").read_text())["/**"]["ros__parameters"]
    defaults = {entry.name: entry.default for entry in WORLD_TABLE}
    assert shipped == defaults
    assert [entry.problem(entry.default) for entry in WORLD_TABLE] == [""] * len(WORLD_TABLE)
    rig, width = load_rig(CONFIG / "rig/world.yaml"), int(defaults["image_width"])
    for shipped_camera, camera in zip(rig.cameras, nuscenes_rig(width, width * 9 // 16).cameras, strict=True):
        assert (shipped_camera.width, shipped_camera.height) == (camera.width, camera.height)
        np.testing.assert_allclose(shipped_camera.intrinsics, camera.intrinsics, atol=0.01)
        np.testing.assert_allclose(shipped_camera.camera_to_base, camera.camera_to_base, atol=1e-4)
