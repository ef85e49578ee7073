"""vla_node with an AutoVLA: the same node, plans of ten points, and thinking as its parameters say."""

from collections.abc import Iterator

import pytest
from lifecycle_msgs.msg import Transition
from opendrivevla_ros.msg import PlanStatus
from ros.harness import Client, NodeProcess, own_domain


@pytest.fixture(scope="module")
def autovla(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    domain = own_domain()
    folder = tmp_path_factory.mktemp("autovla")
    node = NodeProcess(folder, domain, policy="autovla-small-random", deadline=60.0, latency_budget=0.0)
    client = Client(domain)
    yield client
    client.close()
    node.end()


def test_its_plans_are_ten_points_that_were_decided_fast(autovla: Client) -> None:
    plan = autovla.wait_for_plan(autovla.now_ns())
    seconds = [point.time_from_start.sec + point.time_from_start.nanosec / 1e9 for point in plan.points]
    assert seconds == pytest.approx([0.5 * (k + 1) for k in range(10)])
    path = autovla.wait_for("output/path", lambda path: path.header.stamp == plan.header.stamp)
    assert len(path.poses) == 10
    reasoning = autovla.wait_for("output/reasoning", lambda one: one.header.stamp == plan.header.stamp)
    assert (reasoning.requested_mode, reasoning.actual_mode) == (reasoning.FAST, reasoning.FAST)
    status = autovla.wait_for("output/plan_status", lambda one: one.header.stamp == plan.header.stamp)
    assert status.result == PlanStatus.OK
    counts = dict(zip(status.token_kinds, status.token_counts, strict=True))
    assert (counts["generated"], counts["thought"]) == (10, 0)


def test_thinking_is_switched_and_limited_while_it_drives(autovla: Client) -> None:
    assert autovla.set_parameter("thinking.max_tokens", 4) == ""
    assert autovla.set_parameter("thinking_mode", "auto") == ""
    for threshold, slow in ((0.0, True), (1.0, False)):
        assert autovla.set_parameter("thinking.slow_threshold", threshold) == ""
        reasoning = autovla.wait_for(
            "output/reasoning",
            lambda one, slow=slow: one.requested_mode == one.AUTO and (one.actual_mode == one.SLOW) is slow,
        )
        status = autovla.wait_for("output/plan_status", lambda one, r=reasoning: one.header.stamp == r.header.stamp)
        counts = dict(zip(status.token_kinds, status.token_counts, strict=True))
        assert counts["thought"] == (4 if slow else 0)


def test_its_thoughts_stream_with_their_mode_and_probability(autovla: Client) -> None:
    assert autovla.set_parameter("thinking.max_tokens", 100) == ""
    assert autovla.set_parameter("thinking_mode", "slow") == ""
    said = autovla.wait_for("output/reasoning", lambda one: not one.is_final and one.requested_mode == one.SLOW)
    assert said.actual_mode == said.SLOW
    last = autovla.wait_for("output/reasoning", lambda one: one.is_final and one.header == said.header)
    assert last.text.startswith(said.text)
    assert last.slow_probability == said.slow_probability
    assert 0 < last.slow_probability < 1


def test_it_looks_through_as_many_cameras_as_the_parameter_says(autovla: Client) -> None:
    def video_tokens(after_ns: int) -> int:
        plan = autovla.wait_for_plan(after_ns)
        status = autovla.wait_for("output/plan_status", lambda one: one.header.stamp == plan.header.stamp)
        return dict(zip(status.token_kinds, status.token_counts, strict=True))["video"]

    assert autovla.set_parameter("thinking_mode", "fast") == ""
    three = video_tokens(autovla.now_ns())
    assert "clean up" in autovla.set_parameter("camera_count", 6)
    assert autovla.change_state(Transition.TRANSITION_DEACTIVATE)
    assert autovla.change_state(Transition.TRANSITION_CLEANUP)
    assert autovla.set_parameter("camera_count", 6) == ""
    assert autovla.change_state(Transition.TRANSITION_CONFIGURE)
    assert autovla.change_state(Transition.TRANSITION_ACTIVATE)
    assert video_tokens(autovla.now_ns()) == 2 * three
