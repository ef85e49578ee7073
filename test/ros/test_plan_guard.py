"""plan_guard as a process over real DDS: beside a vehicle that drives straight on and a model that plans that."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
import yaml
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMessage
from opendrivevla_ros.msg import DetectedAgentArray, GuardStatus, MapElementArray, PlannedTrajectory, VlaStatus
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from ros.harness import TIMEOUT_S, Run, own_domain, wait_until
from std_srvs.srv import SetBool, Trigger

from opendrivevla_ros.core.ego import EgoState
from opendrivevla_ros.core.geometry import Array, planar_transform
from opendrivevla_ros.core.plan import Agent, Plan
from opendrivevla_ros.core.trajectory import Trajectory
from opendrivevla_ros.ros import qos
from opendrivevla_ros.ros.conversions import (
    agents_message,
    header,
    map_elements_message,
    nanoseconds,
    time_message,
    trajectory_message,
)
from opendrivevla_ros.ros.guard_parameters import GUARD_TABLE

CONFIG = Path(__file__).parents[2] / "config"
SPEED, PERIOD_S, PLAN_TICKS = 5.0, 0.02, 10  # odometry at 50 Hz, plans at 5 Hz
TIMES = np.arange(1, 7) * 0.5
WIRES = [
    argument
    for topic in ("trajectory", "agents", "map_elements", "odometry")
    for argument in ("-r", f"~/input/{topic}:=/test/{topic}")
]
WIRES += ["-r", "~/input/vla_status:=/test/vla_status", "-r", "~/save_snapshot:=/test/save_snapshot"]


def straight() -> Array:
    return np.column_stack([SPEED * TIMES, np.zeros(6)])


@dataclass
class Feed:
    """What the vehicle and the model send; tests spoil it. aside: of the plan, metres to the left."""

    odometry: bool = True
    finite: bool = True
    plans: bool = True
    heartbeat: bool = True
    aside: float = 0.0
    agents: tuple[Agent, ...] = ()
    trained: bool = True


class Vehicle:
    """Drives straight on at SPEED, whatever the guard says, and keeps what it says."""

    def __init__(self, domain: int, snapshot: Path) -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = Node("vehicle", context=self.context)
        self._snapshot = snapshot
        self._clients: dict[str, Any] = {}
        self.node.create_service(Trigger, "/test/save_snapshot", self._save_snapshot)
        self.feed = Feed()
        self.status: list[tuple[float, GuardStatus]] = []
        self.sent: list[PlannedTrajectory] = []
        self.paths: list[PathMessage] = []
        self.offered: list[PlannedTrajectory] = []
        make, listen = self.node.create_publisher, self.node.create_subscription
        self._odometry = make(Odometry, "/test/odometry", qos.reliable(10))
        self._trajectory = make(PlannedTrajectory, "/test/trajectory", qos.reliable(1))
        self._agents = make(DetectedAgentArray, "/test/agents", qos.reliable(1))
        self._map = make(MapElementArray, "/test/map_elements", qos.reliable(1))
        self._vla = make(VlaStatus, "/test/vla_status", qos.latched())
        listen(GuardStatus, "/plan_guard/output/status", self._keep, qos.reliable(100))
        listen(PlannedTrajectory, "/plan_guard/output/trajectory", self.sent.append, qos.reliable(100))
        listen(PathMessage, "/plan_guard/output/path", self.paths.append, qos.reliable(100))
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._spin), threading.Thread(target=self._drive)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._ending.set()
        self._threads[1].join()
        rclpy.shutdown(context=self.context)
        self._threads[0].join()
        self.node.destroy_node()

    def call(self, kind: type, name: str, request: Any) -> Any:
        # Kept: to destroy one beside the thread that spins may end its executor.
        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, f"/plan_guard/{name}")
        client = self._clients[name]
        assert client.wait_for_service(timeout_sec=TIMEOUT_S), f"no service {name}"
        future = client.call_async(request)
        wait_until(future.done, f"an answer of {name}")
        return future.result()

    def arm(self) -> str:
        """Arms; why it was refused, or an empty string."""
        response = self.call(SetBool, "arm", SetBool.Request(data=True))
        return "" if response.success else response.message

    def armed(self) -> None:
        """Resets, and arms as soon as that is possible."""
        self.feed = Feed()
        self.call(Trigger, "reset", Trigger.Request())
        wait_until(lambda: self.arm() == "", "to be armed")
        self.wait_for(GuardStatus.NOMINAL)

    def wait_for(self, state: int, word: str = "") -> float:
        """Until a status from now on has that state and a word among its reasons; when it came, steady clock."""
        first = len(self.status)

        def found() -> float | None:
            fitting = [
                at for at, status in self.status[first:] if status.state == state and word in "; ".join(status.reasons)
            ]
            return fitting[0] if fitting else None

        def heard() -> str:
            return f"state {state} {word!r}, not {[(s.state, s.reasons) for _, s in self.status[-1:]]}"

        return wait_until(found, heard)

    def _save_snapshot(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._snapshot.mkdir(exist_ok=True)
        (self._snapshot / "prompt.txt").write_text("Where to?")
        response.success, response.message = True, str(self._snapshot)
        return response

    def _keep(self, message: GuardStatus) -> None:
        self.status.append((time.monotonic(), message))

    def _spin(self) -> None:
        executor = SingleThreadedExecutor(context=self.context)
        executor.add_node(self.node)
        with suppress(ExternalShutdownException):
            executor.spin()

    def _drive(self) -> None:
        tick, start = 0, time.monotonic()
        while not self._ending.wait(max(0.0, start + tick * PERIOD_S - time.monotonic())):
            now_ns = self.node.get_clock().now().nanoseconds
            feed, x = self.feed, SPEED * (now_ns % 1_000_000_000_000) / 1e9
            velocity, nothing = np.array([SPEED, 0.0, 0.0]), np.zeros(3)
            ego = EgoState(now_ns, planar_transform(x, 0.0, 0.0), velocity, nothing, nothing, np.zeros((4, 3)))
            if feed.odometry:
                self._odometry.publish(odometry(now_ns, x if feed.finite else np.nan))
            if feed.heartbeat and tick % 5 == 0:
                state = VlaStatus.PLANNING
                self._vla.publish(VlaStatus(header=header(now_ns, ""), state=state, trained=feed.trained))
            if feed.plans and tick % PLAN_TICKS == PLAN_TICKS - 1:
                trajectory = Trajectory.from_waypoints(TIMES, straight() + np.array([0.0, feed.aside]), SPEED)
                plan = Plan(now_ns, trajectory, 0.9, agents=feed.agents)
                message = trajectory_message(plan, ego)
                self.offered.append(message)
                self._agents.publish(agents_message(plan, ego))
                self._map.publish(map_elements_message(plan, ego))
                self._trajectory.publish(message)
            tick += 1


def odometry(stamp_ns: int, x: float) -> Odometry:
    message = Odometry(child_frame_id="base_link")
    message.header.frame_id, message.header.stamp = "odom", time_message(stamp_ns)
    message.pose.pose.position.x, message.pose.pose.orientation.w = float(x), 1.0
    message.twist.twist.linear.x = SPEED
    return message


@pytest.fixture(scope="module")
def domain() -> int:
    return own_domain()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guard")


@pytest.fixture(scope="module")
def guard(domain: int, folder: Path) -> Iterator[Run]:
    parameters = {"patience.healthy": 0.3, "patience.recovered": 0.5, "patience.fallback": 60.0}
    parameters |= {"incidents.folder": str(folder / "incidents"), "incidents.period": 0.0}
    parameters["odometry.timeout"] = 0.6  # 0.15 s are less than a busy machine may hold us up
    run = Run("plan_guard", folder / "log.txt", domain, WIRES, **parameters)
    yield run
    assert run.end() == 0


@pytest.fixture(scope="module")
def vehicle(domain: int, guard: Run, folder: Path) -> Iterator[Vehicle]:
    vehicle = Vehicle(domain, folder / "snapshot")
    yield vehicle
    vehicle.close()


def test_it_is_disarmed_until_it_is_armed_and_arms_only_when_all_is_well(vehicle: Vehicle) -> None:
    vehicle.feed = Feed(plans=False)
    vehicle.wait_for(GuardStatus.DISARMED)
    wait_until(lambda: vehicle.arm() == "no plan has come", "a refusal without plans")
    vehicle.feed = Feed(trained=False)
    wait_until(lambda: "not trained" in vehicle.arm(), "a refusal of a model without training")
    vehicle.wait_for(GuardStatus.DISARMED, "not trained")  # who watches sees why
    assert not vehicle.sent
    vehicle.armed()


def test_good_plans_go_out_once_each_as_they_came(vehicle: Vehicle) -> None:
    vehicle.armed()
    first = len(vehicle.sent)
    wait_until(lambda: len(vehicle.sent) >= first + 5, "five plans")
    sent = vehicle.sent[first : first + 5]
    offered = {nanoseconds(message.header.stamp): message for message in vehicle.offered}
    assert len({nanoseconds(message.header.stamp) for message in sent}) == 5
    for message in sent:
        assert message == offered[nanoseconds(message.header.stamp)]
        assert message.source == PlannedTrajectory.MODEL
    assert vehicle.paths[-1].header.frame_id == "odom"
    assert len(vehicle.paths[-1].poses) == 6


FAULTS: dict[str, tuple[Callable[[Feed], None], int, str, float]] = {
    "plans beside the vehicle": (lambda feed: setattr(feed, "aside", 10.0), GuardStatus.FALLBACK, "plan", 0.35),
    "no plans": (lambda feed: setattr(feed, "plans", False), GuardStatus.FALLBACK, "old", 1.5),
    "no heartbeat": (lambda feed: setattr(feed, "heartbeat", False), GuardStatus.FALLBACK, "heartbeat", 0.7),
    "no odometry": (lambda feed: setattr(feed, "odometry", False), GuardStatus.TAKEOVER, "odometry", 0.85),
    "odometry of nothing": (lambda feed: setattr(feed, "finite", False), GuardStatus.TAKEOVER, "odometry", 0.85),
    "a car in the way": (
        lambda feed: setattr(feed, "agents", (car_ahead(),)),
        GuardStatus.FALLBACK,
        "meets a road user",
        0.35,
    ),
}


def car_ahead(left: float = 0.0) -> Agent:
    return Agent(
        1, "car", 0.9, np.array([9.0, left, 0.8]), np.array([4.5, 1.9, 1.6]), 0.0, np.zeros(2), np.zeros((0, 2))
    )


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_answered_in_time_by_stops_from_where_the_vehicle_is(vehicle: Vehicle, name: str) -> None:
    spoil, state, word, most_s = FAULTS[name]
    vehicle.armed()
    feed = Feed()
    spoil(feed)
    began = time.monotonic()
    vehicle.feed = feed
    reacted = vehicle.wait_for(state, word)
    assert reacted - began < most_s + 0.5  # and half a second for a machine that has much to do
    first = len(vehicle.sent)
    wait_until(lambda: len(vehicle.sent) >= first + 10, "ten stops")
    stops = vehicle.sent[first : first + 10]
    assert all(message.source == PlannedTrajectory.FALLBACK for message in stops)
    speeds = [point.longitudinal_velocity for point in stops[0].points]
    assert speeds[-1] == pytest.approx(0.0, abs=1e-6)
    assert speeds[0] < SPEED
    assert stops[0].header.frame_id == "odom"


def test_a_stop_in_place_of_plans_leaves_an_incident(vehicle: Vehicle, folder: Path) -> None:
    vehicle.armed()
    before = set(folder.glob("incidents/*"))
    vehicle.feed = Feed(aside=10.0, agents=(car_ahead(left=-8.0),))  # in nobody's way, whichever comes first
    vehicle.wait_for(GuardStatus.FALLBACK)
    (incident,) = wait_until(lambda: set(folder.glob("incidents/*_fallback")) - before, "an incident")
    wait_until((incident / "snapshot" / "prompt.txt").is_file, "what the planner had")
    report = json.loads((incident / "incident.json").read_text())
    assert (report["before"], report["after"]) == ("NOMINAL", "FALLBACK")
    failed = [check["name"] for check in report["checks"] if not check["ok"]]
    assert "sideways_jump" in failed
    assert np.array(report["plan"]["xy"])[-1, 1] == pytest.approx(10.0, abs=0.5)
    assert report["stop"]["velocity"][-1] == pytest.approx(0.0, abs=1e-6)
    assert [agent["label"] for agent in report["agents"]] == ["car"]
    rows = (incident / "odometry.csv").read_text().splitlines()
    assert rows[0].startswith("stamp_ns,x,y,z,qx")
    assert len(rows) > 20
    parameters = yaml.safe_load((incident / "parameters.yaml").read_text())["/**"]["ros__parameters"]
    assert parameters["patience.fallback"] == 60.0


def test_it_comes_back_by_itself_from_a_fallback_and_not_from_a_takeover(vehicle: Vehicle) -> None:
    vehicle.armed()
    vehicle.feed = Feed(plans=False)
    vehicle.wait_for(GuardStatus.FALLBACK)
    vehicle.feed = Feed()
    vehicle.wait_for(GuardStatus.NOMINAL)
    vehicle.feed = Feed(odometry=False)
    vehicle.wait_for(GuardStatus.TAKEOVER)
    vehicle.feed = Feed()
    vehicle.wait_for(GuardStatus.TAKEOVER)
    assert "reset first" in vehicle.arm()
    response = vehicle.call(SetBool, "arm", SetBool.Request(data=False))
    assert (response.success, response.message) == (False, "a take-over was asked for: ~/reset ends it")
    vehicle.call(Trigger, "reset", Trigger.Request())
    vehicle.wait_for(GuardStatus.DISARMED)


def test_a_change_of_a_limit_disarms_and_a_wrong_one_is_refused(vehicle: Vehicle) -> None:
    vehicle.armed()

    def change(name: str, value: float) -> tuple[bool, str]:
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        (result,) = vehicle.call(SetParameters, "set_parameters", request).results
        return result.successful, result.reason

    assert change("limits.jerk", 1000.0)[0] is False
    sentence = "parameter stop.comfortable is 8 m/s2, more than stop.hard 6; lower it"
    assert change("stop.comfortable", 8.0) == (False, sentence)
    assert vehicle.status[-1][1].state == GuardStatus.NOMINAL
    assert change("limits.jerk", 20.0) == (True, "")
    vehicle.wait_for(GuardStatus.DISARMED, "limits.jerk was changed")


def test_status_comes_at_its_rate_whatever_happens(vehicle: Vehicle) -> None:
    vehicle.feed = Feed(odometry=False, plans=False, heartbeat=False)
    first, began = len(vehicle.status), time.monotonic()
    wait_until(lambda: len(vehicle.status) >= first + 40, "forty statuses")
    assert time.monotonic() - began == pytest.approx(2.0, abs=1.0)


def test_the_shipped_parameter_file_holds_every_parameter_at_its_default() -> None:
    shipped = yaml.safe_load((CONFIG / "guard.param.yaml").read_text())["/**"]["ros__parameters"]
    flat: dict[str, Any] = {}
    for name, value in shipped.items():
        flat |= {f"{name}.{key}": some for key, some in value.items()} if isinstance(value, dict) else {name: value}
    assert flat == {entry.name: entry.default for entry in GUARD_TABLE}


def test_an_override_of_no_endpoint_is_told_and_it_stays_inactive(domain: int, tmp_path: Path) -> None:
    name = "qos_overrides./other_guard/input/odometrie.subscription.depth"
    run = Run("plan_guard", tmp_path / "log.txt", domain, ["-r", "__node:=other_guard"], **{name: 5})
    try:
        output = wait_until(lambda: run.output() if "activate failed" in run.output() else None, "a refusal")
        assert f"parameter {name} overrides no endpoint of this node" in output
    finally:
        assert run.end() == 0


def test_wrong_parameters_are_told_and_nothing_is_sent(domain: int, tmp_path: Path) -> None:
    wires = ["-r", "__node:=other_guard"]
    parameters = {"stop.comfortable": 8.0, "limits.age": -1.0, "limits.agge": 1.0}
    run = Run("plan_guard", tmp_path / "log.txt", domain, wires, **parameters)
    try:
        output = wait_until(lambda: run.output() if "configure failed" in run.output() else None, "a refusal")
        assert "parameter limits.age is -1.0, outside 0.05 to 30 s; set it within" in output
        assert "parameter limits.agge is unknown" in output
        assert "parameter stop.comfortable is 8 m/s2, more than stop.hard 6; lower it" in output
        assert "Traceback" not in output
    finally:
        assert run.end() == 0
