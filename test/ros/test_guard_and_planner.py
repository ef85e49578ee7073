"""vla_node and plan_guard, two processes over real DDS: what the guard sends while the planner dies and comes back."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from opendrivevla_ros.msg import GuardStatus, PlannedTrajectory
from ros.harness import Client, NodeProcess, Run, own_domain, wait_until
from std_srvs.srv import SetBool, Trigger

from opendrivevla_ros.ros import qos

STATUS, SENT = "/plan_guard/output/status", "/plan_guard/output/trajectory"
WIRES = [
    argument
    for name, topic in (
        ("input/odometry", "input/odometry"),
        ("input/trajectory", "output/trajectory"),
        ("input/agents", "output/agents"),
        ("input/map_elements", "output/map_elements"),
        ("input/vla_status", "output/status"),
        ("save_snapshot", "save_snapshot"),
    )
    for argument in ("-r", f"~/{name}:=/vla_node/{topic}")
]
RESTART_S = 90.0  # of a process, on a machine that has much to do
REACTION_S = 1.0  # 0.4 s of heartbeat_timeout, a heartbeat, a cycle, and a machine that has much to do


class Chain:
    """Cameras, planner, guard, and who listens."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.domain = folder, own_domain()
        self.client = Client(self.domain)
        self.client.listen(STATUS, GuardStatus, qos.reliable(100))
        self.client.listen(SENT, PlannedTrajectory, qos.reliable(100))
        self.planner = self.start_planner()
        self.guards = 0
        self.guard = self.start_guard()

    def start_planner(self) -> NodeProcess:
        return NodeProcess(self.folder / "planner", self.domain, snapshot_folder=str(self.folder / "snapshots"))

    def start_guard(self) -> Run:
        self.guards += 1
        parameters = {"patience.fallback": 60.0, "incidents.folder": str(self.folder / "incidents")}
        return Run("plan_guard", self.folder / f"guard{self.guards}.txt", self.domain, WIRES, **parameters)

    def arm(self) -> None:
        def asked() -> bool:
            return bool(self.client.call(SetBool, "/plan_guard/arm", SetBool.Request(data=True)).success)

        wait_until(asked, "to be armed")
        self.wait_for(GuardStatus.NOMINAL)

    def wait_for(self, state: int, word: str = "") -> GuardStatus:
        since = len(self.client.received[STATUS])
        return self.client.wait_for(
            STATUS,
            lambda status: status.state == state and word in "; ".join(status.reasons),
            since=since,
            what=f"guard in state {state} {word!r}",
            timeout_s=RESTART_S,
        )

    def sources(self, since: int) -> set[int]:
        return {message.source for message in self.client.received[SENT][since:]}

    def close(self) -> None:
        self.planner.end()
        if self.guard.process.poll() is None:
            self.guard.end()
        self.client.close()


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    chain = Chain(tmp_path)
    chain.arm()
    yield chain
    chain.close()


def test_a_planner_that_is_killed_is_answered_by_stops_until_it_is_back(chain: Chain) -> None:
    chain.planner.process.kill()
    began = time.monotonic()
    chain.wait_for(GuardStatus.FALLBACK, "heartbeat")
    assert time.monotonic() - began < REACTION_S
    first = len(chain.client.received[SENT])
    wait_until(lambda: len(chain.client.received[SENT]) >= first + 10, "ten stops")
    assert chain.sources(first) == {PlannedTrajectory.FALLBACK}
    chain.planner = chain.start_planner()
    chain.wait_for(GuardStatus.NOMINAL)


def test_a_planner_that_is_stopped_is_answered_and_goes_on_when_it_does(chain: Chain) -> None:
    chain.planner.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    try:
        chain.wait_for(GuardStatus.FALLBACK, "heartbeat")
        assert time.monotonic() - began < REACTION_S
    finally:
        chain.planner.process.send_signal(signal.SIGCONT)
    chain.wait_for(GuardStatus.NOMINAL)


def test_a_guard_that_is_killed_comes_back_disarmed_and_sends_nothing(chain: Chain) -> None:
    chain.guard.process.kill()
    chain.guard.process.wait()
    chain.guard = chain.start_guard()
    chain.wait_for(GuardStatus.DISARMED)
    first = len(chain.client.received[SENT])
    since = len(chain.client.received[STATUS])
    wait_until(lambda: len(chain.client.received[STATUS]) >= since + 20, "a second of statuses")
    assert chain.sources(first) == set()
    chain.arm()


def test_an_incident_holds_what_the_planner_saw(chain: Chain) -> None:
    chain.client.feed.image["cam_front"] = lambda message: []
    chain.wait_for(GuardStatus.FALLBACK)
    pictures = wait_until(lambda: list(chain.folder.glob("incidents/*/snapshot/cam_back.*")), "the planner's pictures")
    assert (pictures[0].parent / "attempt.json").is_file()
    chain.client.feed.image.clear()
    chain.client.call(Trigger, "/plan_guard/reset", Trigger.Request())
