"""The parameters of plan_guard, and the guard's settings that follow from them."""

from collections.abc import Callable, Iterable
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from opendrivevla_ros.ros.parameters import ALWAYS, START, ConfigurationError, Entry, declare, unknown_parameters
from opendrivevla_ros.safety.fallback import StopLimits
from opendrivevla_ros.safety.guard import GuardSettings
from opendrivevla_ros.safety.plan_checks import Body, Limits
from opendrivevla_ros.safety.supervisor import Patience


def _limit(name: str, description: str, unit: str, minimum: float, maximum: float) -> Entry:
    default = getattr(Limits(), name)
    return Entry(f"limits.{name}", default, description, unit, minimum, maximum, when=ALWAYS)


LIMITS: tuple[Entry, ...] = (
    _limit("points", "fewer points are no plan", "", 2, 100),
    _limit("horizon", "a plan that ends sooner from now is over", "s", 0.1, 30),
    _limit("speed", "of any step", "m/s", 0.1, 70),
    _limit("start", "of the vehicle from where the plan has it now", "m", 0.1, 20),
    _limit("behind", "of any coming point behind the vehicle", "m", 0, 20),
    _limit("curvature", "of any bend", "1/m", 0.001, 2),
    _limit("lateral_acceleration", "in any bend", "m/s2", 0.1, 15),
    _limit("acceleration", "of any step", "m/s2", 0.1, 15),
    _limit("braking", "of any step", "m/s2", 0.1, 15),
    _limit("jerk", "from step to step", "m/s3", 0.1, 100),
    _limit("heading_step", "between two points", "rad", 0.01, 3.2),
    _limit("speed_jump", "from the vehicle's speed to the plan's", "m/s", 0.1, 30),
    _limit("plan_jump", "from the plan before, at the same instants", "m", 0.1, 30),
    _limit("age", "of a plan, from its stamp", "s", 0.05, 30),
    _limit("hard_braking", "that the vehicle and all others can", "m/s2", 0.5, 15),
    _limit("reaction", "of the vehicle, before it brakes", "s", 0, 5),
    _limit("margin", "kept around every road user", "m", 0, 5),
    _limit("time_to_overlap", "sooner contact with a road user is a fault", "s", 0, 10),
)
STOP = StopLimits()
GUARD_TABLE: tuple[Entry, ...] = (
    Entry("autostart", True, "configure and activate by itself; false: a lifecycle manager does", when=START),
    Entry("rate", 20.0, "of cycles", "Hz", 5, 100, when=START),
    Entry(
        "fallback",
        "stop",
        "stop: a stop is sent in place of a plan; silence: nothing, the stack below has its own way to a safe state",
        choices=("stop", "silence"),
        when=ALWAYS,
    ),
    Entry("base_frame", "base_link", "child frame of the odometry", pattern=r"\S+", when=START),
    Entry("odometry.world_frame", "odom", "frame_id that odometry and plans must have", pattern=r"\S+", when=START),
    Entry("odometry.timeout", 0.15, "older odometry is none", "s", 0.02, 2, when=START),
    Entry("odometry.max_speed", 70.0, "a faster move is a jump", "m/s", 1, 200, when=START),
    Entry("heartbeat_timeout", 0.4, "without vla_node's status for so long it is gone", "s", 0.1, 10, when=ALWAYS),
    Entry("vehicle.front", 3.414, "base_link to the front bumper", "m", 0, 30, when=START),
    Entry("vehicle.rear", 0.67, "base_link to the rear bumper", "m", 0, 30, when=START),
    Entry("vehicle.width", 1.73, "of the vehicle", "m", 0.1, 5, when=START),
    *LIMITS,
    Entry(
        "stop.comfortable", StopLimits().comfortable, "braking with nobody in the way", "m/s2", 0.2, 10, when=ALWAYS
    ),
    Entry("stop.hard", StopLimits().hard, "the most braking of a stop", "m/s2", 0.5, 12, when=ALWAYS),
    Entry("stop.clearance", StopLimits().clearance, "kept to whoever is in the way", "m", 0, 20, when=ALWAYS),
    Entry("patience.healthy", 1.0, "all must have been well for so long before arming", "s", 0, 60, when=START),
    Entry("patience.recovered", 1.0, "before a model's plan is sent again", "s", 0, 60, when=START),
    Entry("patience.fallback", 5.0, "of it, before somebody must take over", "s", 0.1, 600, when=START),
)


class GuardParameters:
    """The declared parameters. on_change: told of every change of one that may change while the guard works."""

    def __init__(self, node: Node, on_change: Callable[[str], None]) -> None:
        self._node, self._on_change = node, on_change
        self._entries = {entry.name: entry for entry in GUARD_TABLE}
        self.values, self._refused = declare(node, GUARD_TABLE)
        node.add_on_set_parameters_callback(self._on_set)

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def check(self) -> None:
        """Raises ConfigurationError with everything that was wrong at the start."""
        problems = list(self._refused.values())
        problems += [
            f"parameter {name} is unknown; the parameters are listed in config/guard.param.yaml"
            for name in unknown_parameters(self._node, self._entries)
        ]
        problems += self._contradictions(self.values)
        if problems:
            raise ConfigurationError("; ".join(problems))

    def settings(self) -> GuardSettings:
        """Of the guard, from the values as they are now."""
        values, rate = self.values, self.values["rate"]
        limits = {entry.name.removeprefix("limits."): values[entry.name] for entry in LIMITS}
        cycles = {
            name: max(1, round(values[f"patience.{name}"] * rate)) for name in ("healthy", "recovered", "fallback")
        }
        return GuardSettings(
            body=Body(values["vehicle.front"], values["vehicle.rear"], values["vehicle.width"] / 2),
            plan=Limits(**limits),
            stop=StopLimits(values["stop.comfortable"], values["stop.hard"], values["stop.clearance"]),
            patience=Patience(**cycles),
        )

    @staticmethod
    def _contradictions(values: dict[str, Any]) -> list[str]:
        if values["stop.comfortable"] <= values["stop.hard"]:
            return []
        gentle, hard = values["stop.comfortable"], values["stop.hard"]
        return [f"parameter stop.comfortable is {gentle:g} m/s2, more than stop.hard {hard:g}; lower it"]

    def _on_set(self, parameters: Iterable[Parameter]) -> SetParametersResult:
        changed = {one.name: one.value for one in parameters if one.name in self._entries}
        problems = [problem for name, value in changed.items() if (problem := self._entries[name].problem(value))]
        if changed:
            problems += self._contradictions(self.values | changed)
        if problems:
            return SetParametersResult(successful=False, reason=problems[0])
        self.values |= changed
        for name in changed:
            self._on_change(name)
        return SetParametersResult(successful=True)
