"""The parameters of plan_guard, and the guard's settings that follow from them."""

from collections.abc import Mapping
from typing import Any

from opendrivevla_ros.ros.parameters import ALWAYS, START, Entry
from opendrivevla_ros.safety.fallback import StopLimits
from opendrivevla_ros.safety.guard import GuardSettings
from opendrivevla_ros.safety.plan_checks import Limits
from opendrivevla_ros.safety.road_users import Body
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
    _limit("sideways_jump", "from the line of the plan before", "m", 0.1, 30),
    _limit("age", "of a plan, from its stamp", "s", 0.05, 30),
    _limit("hard_braking", "that the vehicle and all others can", "m/s2", 0.5, 15),
    _limit("reaction", "of the vehicle, before it brakes", "s", 0, 5),
    _limit("margin", "kept around every road user", "m", 0, 5),
    _limit("time_to_overlap", "sooner contact with a road user is a fault", "s", 0, 10),
)
STOP = StopLimits()
PATIENCE = ("healthy", "recovered", "fallback")
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
    Entry("scene_age", 1.0, "road users that were seen longer ago are not known", "s", 0.1, 10, when=ALWAYS),
    Entry(
        "takeover.least_confidence",
        0.0,
        "less in every one of takeover.unsure_plans plans asks for a take-over; 0: never",
        "",
        0,
        1,
        when=ALWAYS,
    ),
    Entry("takeover.unsure_plans", 3, "in a row", "", 1, 100, when=ALWAYS),
    Entry(
        "incidents.folder",
        "~/.ros/vla_incidents",
        "gets a folder whenever a stop takes the place of plans",
        pattern=r".+",
        when=START,
    ),
    Entry("incidents.period", 10.0, "after an incident, none is written for so long", "s", 0, 3600, when=START),
    Entry("incidents.megabytes", 500.0, "of all of them, the oldest go; 0: none is written", "MB", 0, 1e6, when=START),
    Entry("incidents.odometry", 10.0, "so much of it is kept for an incident", "s", 1, 60, when=START),
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


def guard_contradictions(values: Mapping[str, Any]) -> list[str]:
    """Values that are fine by themselves and not together; one sentence each."""
    gentle, hard = values["stop.comfortable"], values["stop.hard"]
    if gentle <= hard:
        return []
    return [f"parameter stop.comfortable is {gentle:g} m/s2, more than stop.hard {hard:g}; lower it"]


def guard_settings(values: Mapping[str, Any]) -> GuardSettings:
    """Of the guard, from values of GUARD_TABLE; patience is counted in cycles."""
    cycles = {name: max(1, round(values[f"patience.{name}"] * values["rate"])) for name in PATIENCE}
    return GuardSettings(
        body=Body(values["vehicle.front"], values["vehicle.rear"], values["vehicle.width"] / 2),
        plan=Limits(**{entry.name.removeprefix("limits."): values[entry.name] for entry in LIMITS}),
        stop=StopLimits(values["stop.comfortable"], values["stop.hard"], values["stop.clearance"]),
        patience=Patience(**cycles),
        scene_age=values["scene_age"],
        least_confidence=values["takeover.least_confidence"],
        unsure_plans=values["takeover.unsure_plans"],
    )
