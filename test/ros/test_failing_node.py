"""A vla_node whose model hangs, breaks or is slow: what it says of itself, and how its process ends."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from opendrivevla_ros.msg import PlanStatus, VlaStatus
from ros.harness import TIMEOUT_S, Client, NodeProcess, own_domain

from opendrivevla_ros.ros.economy import PATIENCE, REASON
from opendrivevla_ros.ros.vla_node import HANG_EXIT_CODE

Start = Callable[..., tuple[NodeProcess, Client]]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a node whose policy fails in that way, and a client for it."""
    started: list[tuple[NodeProcess, Client]] = []

    def start(failure: str, **parameters: object) -> tuple[NodeProcess, Client]:
        monkeypatch.setenv("FAILURE", failure)
        domain = own_domain()
        client = Client(domain)
        node = NodeProcess(tmp_path / failure, domain, script=Path(__file__).parent / "failing_node.py", **parameters)
        started.append((node, client))
        return node, client

    yield start
    for node, client in started:
        node.end()
        client.close()


def test_a_model_that_hangs_ends_the_process_with_its_reason_and_a_code(start: Start) -> None:
    node, client = start("hang", hang_timeout=1.5)
    client.wait_for_state(VlaStatus.FAULT, "at work for")
    assert node.process.wait(timeout=TIMEOUT_S) == HANG_EXIT_CODE
    assert "the process ends, to be started anew" in node.output()
    assert "Traceback" not in node.output()


def test_a_device_that_fails_is_a_fault_with_its_text_until_it_plans_again(start: Start) -> None:
    _, client = start("device")
    client.wait_for_state(VlaStatus.PLANNING)
    client.wait_for_state(VlaStatus.FAULT, "CUDA error 700")
    client.wait_for_state(VlaStatus.PLANNING)


def test_late_plans_make_it_save_and_room_makes_it_stop_before_any_plan_is_dropped(start: Start) -> None:
    _, client = start("slow", latency_budget=0.3)
    client.wait_for_state(VlaStatus.DEGRADED, REASON)
    saved = len(client.received["output/trajectory"])
    client.wait_for_state(VlaStatus.PLANNING)
    assert len(client.received["output/trajectory"]) - saved >= PATIENCE / 2
    results = [status.result for status in client.received["output/plan_status"]]
    assert PlanStatus.DEADLINE not in results
