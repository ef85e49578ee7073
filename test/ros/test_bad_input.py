"""Bad input to a running vla_node: no crash, no plan from it, the reason named, and full recovery."""

import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from opendrivevla_ros.msg import DrivingCommand, PlanStatus
from ros.harness import RAW_CAMERA, Client, NodeProcess

from opendrivevla_ros.ros.conversions import nanoseconds, time_message

BACK, LEFT = "cam_back", "cam_back_left"
SPOILED_S = 0.3  # pictures that were on their way when the feed changed are through after so long


def _nothing(message: Any) -> list[Any]:
    return []


def _still() -> Callable[[Any], list[Any]]:
    """The same bytes for ever."""
    first: list[Any] = []

    def repeat(message: Any) -> list[Any]:
        first.append(message.data)
        message.data = first[0]
        return [message]

    return repeat


def _late(seconds: float) -> Callable[[Any], list[Any]]:
    """Every picture arrives this much after it was taken."""
    waiting: list[tuple[float, Any]] = []

    def delay(message: Any) -> list[Any]:
        now = time.monotonic()
        waiting.append((now + seconds, message))
        due = [message for at, message in waiting if at <= now]
        waiting[:] = [entry for entry in waiting if entry[0] > now]
        return due

    return delay


def _truncated(message: Any) -> list[Any]:
    message.data = message.data[: len(message.data) // 2]
    return [message]


def _small(message: Any) -> list[Any]:
    picture = np.random.default_rng(nanoseconds(message.header.stamp)).integers(0, 256, (45, 80, 3), np.uint8)
    message.data = cv2.imencode(".jpg", picture)[1].tobytes()
    return [message]


def _with(**fields: Any) -> Callable[[Any], list[Any]]:
    """The message with some fields replaced."""

    def change(message: Any) -> list[Any]:
        for name, value in fields.items():
            setattr(message, name, value)
        return [message]

    return change


def _other_focal_length(message: Any) -> list[Any]:
    message.k[0] *= 1.2
    return [message]


def _backwards(message: Any) -> list[Any]:
    """Every second picture is stamped a moment before the one that came before it."""
    earlier = type(message)(header=message.header, format=message.format, data=message.data)
    earlier.header.stamp = time_message(nanoseconds(message.header.stamp) - 20_000_000)
    later = type(message)(format=message.format, data=message.data)
    later.header.frame_id = message.header.frame_id
    later.header.stamp = time_message(nanoseconds(earlier.header.stamp) + 20_000_000)
    return [later, earlier]


def _not_a_number(message: Any) -> list[Any]:
    message.twist.twist.linear.x = float("nan")
    return [message]


def _in_frame(frame_id: str) -> Callable[[Any], list[Any]]:
    def change(message: Any) -> list[Any]:
        message.header.frame_id = frame_id
        return [message]

    return change


def _jumping() -> Callable[[Any], list[Any]]:
    """Each sample lies 100 m farther off than the one before it."""
    count = [0]

    def jump(message: Any) -> list[Any]:
        count[0] += 1
        message.pose.pose.position.y = 100.0 * count[0]
        return [message]

    return jump


# name: how the feed is spoiled, the result of plan_status, a word of its reason, the diagnostic task that names it.
REFUSED: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "a camera is missing": ({"image": {BACK: _nothing}}, PlanStatus.MISSING_CAMERA, BACK, "input_cameras"),
    "the anchor camera is missing": (
        {"image": {"cam_front": _nothing}},
        PlanStatus.MISSING_CAMERA,
        "cam_front",
        "input_cameras",
    ),
    "a camera is frozen": ({"image": {BACK: _still()}}, PlanStatus.CAMERA_FROZEN, BACK, "input_cameras"),
    "a camera is late": ({"image": {BACK: _late(0.45)}}, PlanStatus.MISSING_CAMERA, BACK, "input_cameras"),
    "a JPEG is truncated": ({"image": {LEFT: _truncated}}, PlanStatus.BAD_IMAGE, LEFT, "plan"),
    "a picture has another size": ({"image": {LEFT: _small}}, PlanStatus.BAD_IMAGE, "80x45", "plan"),
    "an encoding is unknown": (
        {"image": {RAW_CAMERA: _with(encoding="bgr17")}},
        PlanStatus.BAD_IMAGE,
        "bgr17",
        "plan",
    ),
    "a step is too short": ({"image": {RAW_CAMERA: _with(step=100)}}, PlanStatus.BAD_IMAGE, "100", "plan"),
    "a raw picture contradicts the rig": (
        {"image": {RAW_CAMERA: _with(width=80, step=240)}},
        PlanStatus.BAD_IMAGE,
        "80x90",
        "plan",
    ),
    "raw bytes are missing": ({"image": {RAW_CAMERA: _truncated}}, PlanStatus.BAD_IMAGE, RAW_CAMERA, "plan"),
    "camera_info changes": (
        {"camera_info": {BACK: _other_focal_length}},
        PlanStatus.BAD_CALIBRATION,
        BACK,
        "calibration",
    ),
    "camera_info has another size": (
        {"camera_info": {BACK: _with(width=320, height=180)}},
        PlanStatus.BAD_CALIBRATION,
        BACK,
        "calibration",
    ),
    "odometry is not a number": ({"odometry": _not_a_number}, PlanStatus.BAD_ODOMETRY, "finite", "input_odometry"),
    "odometry jumps": ({"odometry": _jumping()}, PlanStatus.BAD_ODOMETRY, "jumped", "input_odometry"),
    "odometry is stale": ({"odometry": _nothing}, PlanStatus.ODOMETRY_MISSING, "odometry", "input_odometry"),
    "odometry has an unknown frame": (
        {"odometry": _in_frame("utm")},
        PlanStatus.BAD_ODOMETRY,
        "utm",
        "input_odometry",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_no_plan_comes_from_bad_input_and_the_reason_is_named_until_it_is_good_again(
    client: Client, node: NodeProcess, name: str
) -> None:
    changes, result, word, task = REFUSED[name]
    client.wait_for_plan(client.now_ns())
    since = len(client.received["output/plan_status"])
    with client.spoiled(**changes):
        refusal = client.wait_for(
            "output/plan_status", lambda s: s.result == result and word in s.reason, since=since, what=name
        )
        assert refusal.failed_checks
        start_ns = nanoseconds(refusal.header.stamp)
        client.wait_for_diagnostics(task, word)
        end_ns = client.now_ns()
    refused = {
        nanoseconds(status.header.stamp)
        for status in client.received["output/plan_status"][since:]
        if status.result != PlanStatus.OK and start_ns <= nanoseconds(status.header.stamp) < end_ns
    }
    planned = {nanoseconds(plan.header.stamp) for plan in client.received["output/trajectory"]}
    assert refused
    assert not refused & planned
    assert not [stamp for stamp in planned if start_ns < stamp < end_ns - int(SPOILED_S * 1e9)]
    client.wait_for_plan(client.now_ns())
    assert node.process.poll() is None


# name: how the feed is spoiled, the counter in diagnostics that rises; plans go on without the bad messages.
DROPPED: dict[str, tuple[dict[str, Any], str]] = {
    "pictures are doubled": ({"image": {BACK: lambda message: [message, message]}}, f"{BACK} duplicate_stamp"),
    "stamps go backwards a little": ({"image": {BACK: _backwards}}, f"{BACK} stamp_backwards"),
}


@pytest.mark.parametrize("name", DROPPED)
def test_single_bad_messages_are_dropped_and_counted_while_plans_go_on(client: Client, name: str) -> None:
    changes, counter = DROPPED[name]
    with client.spoiled(**changes):
        client.wait_for_diagnostics("input_cameras", counter)
        client.wait_for_plan(client.now_ns())
    client.wait_for_plan(client.now_ns())


def test_a_clock_jump_clears_the_state_and_plans_come_again_at_the_new_time(client: Client) -> None:
    client.wait_for_plan(client.now_ns())
    since = len(client.received["output/plan_status"])
    back_ns = -3_000_000_000
    with client.spoiled(offset_ns=back_ns):
        jumped = client.wait_for("output/plan_status", lambda s: s.result == PlanStatus.CLOCK_JUMP, since=since)
        assert "clock_jump" in jumped.failed_checks or "odometry_restarted" in jumped.failed_checks
        plans = len(client.received["output/trajectory"])
        old = lambda plan: nanoseconds(plan.header.stamp) < client.now_ns() + back_ns  # noqa: E731
        client.wait_for("output/trajectory", old, since=plans, what="a plan stamped in the past")
    client.wait_for_plan(client.now_ns())


def test_pictures_of_another_time_are_refused_with_a_hint_at_the_clock(client: Client) -> None:
    since = len(client.received["output/plan_status"])
    with client.spoiled(offset_ns=-1_000_000_000_000):
        refusal = client.wait_for("output/plan_status", lambda s: s.result == PlanStatus.DEADLINE, since=since)
        assert "use_sim_time" in refusal.reason
    client.wait_for_plan(client.now_ns())


def test_an_unknown_command_is_refused_and_plans_go_on(client: Client) -> None:
    since = len(client.received["output/plan_status"])
    client.command.publish(DrivingCommand(command=9))
    refusal = client.wait_for("output/plan_status", lambda s: s.result == PlanStatus.BAD_COMMAND, since=since)
    assert "9" in refusal.reason
    client.wait_for_diagnostics("plan", "command 9")
    client.wait_for_plan(client.now_ns())
