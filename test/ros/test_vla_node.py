"""A vla_node process over real DDS: plans come back with everything that belongs to them."""

from pathlib import Path

import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from opendrivevla_ros.action import AskScene
from opendrivevla_ros.msg import DrivingCommand, PlannedTrajectory, PlanStatus, VlaStatus
from opendrivevla_ros.srv import SetThinkingMode
from ros.harness import SPEED, Client, NodeProcess, wait_until
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String
from std_srvs.srv import Trigger
from visualization_msgs.msg import Marker, MarkerArray

from opendrivevla_ros.ros import qos
from opendrivevla_ros.ros.conversions import nanoseconds


def test_plans_carry_the_stamp_of_the_anchor_picture_and_lie_in_the_odometry_frame(client: Client) -> None:
    plan = client.wait_for_plan(client.now_ns())
    stamp_ns = nanoseconds(plan.header.stamp)
    assert stamp_ns in client.sent
    assert plan.header.frame_id == "odom"
    assert plan.source == PlannedTrajectory.MODEL
    seconds = [point.time_from_start.sec + point.time_from_start.nanosec / 1e9 for point in plan.points]
    assert np.allclose(seconds, np.arange(1, 7) * 0.5)
    x0 = SPEED * (stamp_ns % 1_000_000_000_000) / 1e9
    assert np.allclose([point.pose.position.x - x0 for point in plan.points], SPEED * np.array(seconds), atol=0.2)


@pytest.mark.parametrize("topic", ["output/path", "output/reasoning", "output/agents", "output/map_elements"])
def test_everything_that_belongs_to_a_plan_has_its_stamp(client: Client, topic: str) -> None:
    plan = client.wait_for_plan(client.now_ns())
    message = client.wait_for(topic, lambda message: message.header.stamp == plan.header.stamp)
    assert message.header.frame_id == plan.header.frame_id


def test_every_plan_has_a_status_with_its_age_and_stage_times(client: Client) -> None:
    plan = client.wait_for_plan(client.now_ns())
    status = client.wait_for("output/plan_status", lambda status: status.header.stamp == plan.header.stamp)
    assert status.result == PlanStatus.OK
    assert 0 < status.age < 2
    assert status.stages[0] == "decode"
    assert len(status.stages) == len(status.stage_times)


def test_the_heartbeat_comes_ten_times_a_second_and_says_what_plans(client: Client) -> None:
    client.wait_for_plan(client.now_ns())
    start = len(client.received["output/status"])
    wait_until(lambda: len(client.received["output/status"]) > start + 20, "21 heartbeats")
    beats = client.received["output/status"][start : start + 21]
    period = (nanoseconds(beats[-1].header.stamp) - nanoseconds(beats[0].header.stamp)) / 20e9
    assert 0.08 < period < 0.15
    assert beats[-1].state == VlaStatus.PLANNING, beats[-1].reason
    assert beats[-1].model_id == "constant_velocity"


def test_diagnostics_have_all_eight_tasks_and_are_fine(client: Client) -> None:
    def all_fine(array: object) -> bool:
        return all(status.level == b"\x00" for status in array.status)  # type: ignore[attr-defined]

    since = len(client.received["diagnostics"])
    array = client.wait_for("diagnostics", all_fine, since=since, what="diagnostics without a warning")
    names = [status.name.removeprefix("vla_node: ") for status in array.status]
    expected = "model input_cameras input_odometry calibration sync inference plan device"
    assert names == expected.split()
    assert all(status.values for status in array.status)


def test_markers_are_built_for_those_who_look_and_begin_with_deleteall(client: Client) -> None:
    subscription = client.listen("/vla_node/debug/markers", MarkerArray, qos.reliable(10), key="markers")
    array = client.wait_for("markers", lambda array: len(array.markers) > 1)
    client.drop(lambda: client.node.destroy_subscription(subscription))
    assert array.markers[0].action == Marker.DELETEALL
    assert {"plan/path", "plan/footprint", "reasoning/text", "status/banner"} <= {m.ns for m in array.markers}
    assert all(marker.lifetime.sec + marker.lifetime.nanosec > 0 for marker in array.markers[1:])


def test_the_overview_is_drawn_for_those_who_look(client: Client) -> None:
    topic = "/vla_node/debug/overview/compressed"
    subscription = client.listen(topic, CompressedImage, qos.reliable(10), key="overview")
    picture = client.wait_for("overview", lambda picture: len(picture.data) > 10_000)
    client.drop(lambda: client.node.destroy_subscription(subscription))
    assert nanoseconds(picture.header.stamp) in client.sent


def test_a_command_is_followed_until_it_is_stale(client: Client) -> None:
    def plan_says(text: str) -> bool:
        return any(
            value.key == "command" and value.value.startswith(text)
            for status in client.received["diagnostics"][-1].status
            for value in status.values
        )

    client.command.publish(DrivingCommand(command=DrivingCommand.TURN_LEFT))
    wait_until(lambda: plan_says("TURN_LEFT"), "TURN_LEFT in diagnostics")
    degraded = lambda status: any("command stale" in word for word in status.degraded)  # noqa: E731
    client.wait_for("output/plan_status", degraded, since=len(client.received["output/plan_status"]))
    wait_until(lambda: plan_says("KEEP_FORWARD (assumed, the last one is stale)"), "stale command in diagnostics")
    client.call(Trigger, "/vla_node/reset", Trigger.Request())


def test_reset_drops_the_counters_and_plans_come_again(client: Client) -> None:
    before = client.wait_for(
        "output/status", lambda status: status.plans > 5, since=len(client.received["output/status"])
    ).plans
    response = client.call(Trigger, "/vla_node/reset", Trigger.Request())
    assert response.success
    fewer = lambda status: status.plans < before  # noqa: E731
    client.wait_for("output/status", fewer, since=len(client.received["output/status"]) - 1, what="a new count")
    client.wait_for_plan(client.now_ns())


def test_the_thinking_mode_is_set_by_a_service_and_unknown_ones_are_refused(client: Client) -> None:
    slow = SetThinkingMode.Request(mode=SetThinkingMode.Request.SLOW)
    assert client.call(SetThinkingMode, "/vla_node/set_thinking_mode", slow).success
    since = len(client.received["output/reasoning"])
    client.wait_for("output/reasoning", lambda r: r.requested_mode == r.SLOW and r.actual_mode == r.FAST, since=since)
    unknown = client.call(SetThinkingMode, "/vla_node/set_thinking_mode", SetThinkingMode.Request(mode=7))
    assert not unknown.success
    assert "7 is not one of" in unknown.message
    client.call(SetThinkingMode, "/vla_node/set_thinking_mode", SetThinkingMode.Request(mode=1))


def test_a_snapshot_holds_pictures_plan_prompt_and_parameters(client: Client) -> None:
    client.wait_for_plan(client.now_ns())
    response = client.call(Trigger, "/vla_node/save_snapshot", Trigger.Request())
    assert response.success, response.message
    names = {path.name for path in Path(response.message).iterdir()}
    assert {"cam_front.jpg", "cam_back_right.png", "prompt.txt", "raw_output.txt"} <= names
    assert {"attempt.json", "parameters.yaml"} <= names


def test_a_question_is_answered_in_pieces_and_plans_go_on(client: Client) -> None:
    client.wait_for_plan(client.now_ns())
    pieces: list[str] = []
    assert client.ask.wait_for_server(timeout_sec=10)
    goal = client.result(
        client.ask.send_goal_async(
            AskScene.Goal(question="What is ahead?"), feedback_callback=lambda m: pieces.append(m.feedback.text)
        )
    )
    result = client.result(goal.get_result_async()).result
    assert result.success, result.message
    assert result.answer == "".join(pieces) != ""
    assert nanoseconds(result.header.stamp) in client.sent
    client.wait_for_plan(client.now_ns())


def test_an_empty_question_is_refused_with_the_reason(client: Client) -> None:
    goal = client.result(client.ask.send_goal_async(AskScene.Goal(question=" ")))
    result = client.result(goal.get_result_async()).result
    assert not result.success
    assert "empty" in result.message


def test_a_parameter_out_of_range_or_read_by_configure_is_refused_while_running(client: Client) -> None:
    assert "range" in client.set_parameter("debug.jpeg_quality", 500)
    assert "one of auto, fast, slow" in client.set_parameter("thinking_mode", "fastest")
    assert "clean up" in client.set_parameter("sync.slop", 0.03)
    assert client.set_parameter("debug.jpeg_quality", 80) == ""


def test_the_prompt_is_published_when_the_parameter_says_so(client: Client) -> None:
    subscription = client.listen("/vla_node/debug/prompt", String, qos.reliable(10), key="prompt")
    assert client.set_parameter("debug.prompt", True) == ""
    client.wait_for("prompt", lambda message: True)
    client.drop(lambda: client.node.destroy_subscription(subscription))


def test_the_node_goes_through_its_lifecycle_and_plans_only_while_active(client: Client, node: NodeProcess) -> None:
    client.wait_for_plan(client.now_ns())
    assert client.change_state(Transition.TRANSITION_DEACTIVATE)
    client.wait_for_state(VlaStatus.INACTIVE)
    plans = len(client.received["output/trajectory"])
    client.wait_for_state(VlaStatus.INACTIVE)
    assert len(client.received["output/trajectory"]) <= plans + 1
    assert client.change_state(Transition.TRANSITION_CLEANUP)
    client.wait_for_state(VlaStatus.UNCONFIGURED)
    impossible = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_ACTIVATE))
    changer = client.node.create_client(ChangeState, "/vla_node/change_state")
    changer.call_async(impossible)  # rclpy never answers this one
    client.wait_for_state(VlaStatus.UNCONFIGURED)
    assert client.change_state(Transition.TRANSITION_CONFIGURE)
    assert client.change_state(Transition.TRANSITION_ACTIVATE)
    client.wait_for_plan(client.now_ns())
    assert node.process.poll() is None
