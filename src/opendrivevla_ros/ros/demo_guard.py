"""The guard in the demo: how it is wired, armed, and what it said in the course of the drive."""

import time
from collections import Counter
from pathlib import Path
from typing import Any

from opendrivevla_ros.ros.listener import Heard

STATUS = "/plan_guard/output/status"
PLANS = "/plan_guard/output/trajectory"
RECORDED = {STATUS: "opendrivevla_ros/msg/GuardStatus", PLANS: "opendrivevla_ros/msg/PlannedTrajectory"}
WIRES = {
    "input/odometry": "/vla_node/input/odometry",
    "input/trajectory": "/vla_node/output/trajectory",
    "input/agents": "/vla_node/output/agents",
    "input/map_elements": "/vla_node/output/map_elements",
    "input/vla_status": "/vla_node/output/status",
    "save_snapshot": "/vla_node/save_snapshot",
}
ASK_AGAIN_S = 0.2
REASONS = 3


def arguments(output: Path) -> list[str]:
    """Of plan_guard's process; incidents go to a folder of the output."""
    given = ["--ros-args", "-p", "use_sim_time:=true", "-p", f"incidents.folder:={(output / 'incidents').resolve()}"]
    for name, topic in WIRES.items():
        given += ["-r", f"~/{name}:={topic}"]
    return given


class Arming:
    """Arms the guard once, as soon as it lets itself be armed. `poll` it while its node is spun."""

    def __init__(self, node: Any) -> None:
        from std_srvs.srv import SetBool

        self._request = SetBool.Request(data=True)
        self._client = node.create_client(SetBool, "/plan_guard/arm")
        self._asked, self._answer = 0.0, None
        self.done = False
        self.refusal = "it was never asked"

    def poll(self) -> None:
        """Asks, or takes the answer."""
        if self.done:
            return
        if self._answer is not None and self._answer.done():
            response = self._answer.result()
            self.done, self.refusal, self._answer = response.success, response.message, None
        elif self._answer is None and time.monotonic() - self._asked > ASK_AGAIN_S and self._client.service_is_ready():
            self._asked, self._answer = time.monotonic(), self._client.call_async(self._request)


def figures(heard: Heard, arming: Arming) -> dict[str, Any]:
    """How many of its cycles the armed guard was in each state, and the commonest reasons not to be NOMINAL."""
    from rclpy.serialization import deserialize_message

    from opendrivevla_ros.msg import GuardStatus, PlannedTrajectory

    names = {getattr(GuardStatus, name): name for name in ("DISARMED", "NOMINAL", "DEGRADED", "FALLBACK", "TAKEOVER")}
    cycles: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    sent: Counter[str] = Counter()
    for message in heard.messages:
        if message.topic == STATUS:
            status = deserialize_message(message.data, GuardStatus)
            if status.state != GuardStatus.DISARMED:
                cycles[names[status.state]] += 1
                reasons.update(_without_numbers(reason) for reason in status.reasons)
        elif message.topic == PLANS:
            plan = deserialize_message(message.data, PlannedTrajectory)
            sent["stops" if plan.source == PlannedTrajectory.FALLBACK else "plans"] += 1
    return {
        "armed": arming.done,
        "refused": "" if arming.done else arming.refusal,
        "cycles": dict(cycles),
        "reasons": dict(reasons.most_common(REASONS)),
        "sent": dict(sent),
    }


def _without_numbers(reason: str) -> str:
    """A reason with its numbers left out, so that the same ones count together."""
    return " ".join("#" if any(letter.isdigit() for letter in word) else word for word in reason.split())


def line(guard: dict[str, Any]) -> str:
    """The figures in a line."""
    if not guard["armed"]:
        return f"never armed: {guard['refused']}"
    total = max(sum(guard["cycles"].values()), 1)
    return ", ".join(f"{name} {count / total:.0%}" for name, count in guard["cycles"].items())
