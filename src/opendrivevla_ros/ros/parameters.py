"""The parameters of vla_node as one table: defaults, units, limits, when each may change, and their JSON schema."""

import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from opendrivevla_ros.core.rig import CAMERA_NAMES
from opendrivevla_ros.policies.registry import PRECISIONS

Value = bool | int | float | str

START = "start"  # read once when the process starts
CONFIGURE = "configure"  # read by configure; clean up first to change it
ALWAYS = "always"  # takes effect at once

QOS_PREFIX = "qos_overrides."
RCLPY_PARAMETERS = ("use_sim_time", "start_type_description_service")


class ConfigurationError(ValueError):
    """Parameters that configure refuses."""


@dataclass(frozen=True)
class Entry:
    """One parameter. unit: empty for numbers without one. pattern: a regular expression that text must match."""

    name: str
    default: Value
    description: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] | tuple[int, ...] = ()
    pattern: str = ""
    when: str = CONFIGURE

    def problem(self, value: object) -> str:
        """One sentence that says what is wrong with a value, empty when it is fine."""
        kind = type(self.default)
        if type(value) is not kind and not (kind is float and type(value) is int):
            return f"parameter {self.name} is {value!r}, but must be a {kind.__name__}, for example {self.default!r}"
        if self.choices and value not in self.choices:
            return f"parameter {self.name} is {value!r}, but must be one of {', '.join(map(str, self.choices))}"
        if self.pattern and not re.fullmatch(self.pattern, str(value)):
            return f"parameter {self.name} is {value!r}, but must match {self.pattern}, for example {self.default!r}"
        if self.minimum is not None and self.maximum is not None:
            number = float(value)  # type: ignore[arg-type]
            if not self.minimum <= number <= self.maximum:
                limits = f"{self.minimum:g} to {self.maximum:g}{' ' + self.unit if self.unit else ''}"
                return f"parameter {self.name} is {value}, outside {limits}; set it within"
        return ""

    def descriptor(self) -> ParameterDescriptor:
        description = f"{self.description} [{self.unit}]" if self.unit else self.description
        constraints = f"one of: {', '.join(map(str, self.choices))}" if self.choices else self.pattern
        descriptor = ParameterDescriptor(
            name=self.name,
            description=description,
            additional_constraints=constraints,
            read_only=self.when == START,
        )
        if self.minimum is not None and self.maximum is not None:
            if isinstance(self.default, float):
                limits = FloatingPointRange(from_value=float(self.minimum), to_value=float(self.maximum))
                descriptor.floating_point_range = [limits]
            else:
                descriptor.integer_range = [IntegerRange(from_value=int(self.minimum), to_value=int(self.maximum))]
        return descriptor

    def schema(self) -> dict[str, Any]:
        """JSON Schema (draft 2020-12) of the value."""
        types = {bool: "boolean", int: "integer", float: "number", str: "string"}
        description = f"{self.description} [{self.unit}]" if self.unit else self.description
        schema: dict[str, Any] = {"type": types[type(self.default)], "description": description}
        schema["default"] = self.default
        if self.choices:
            schema["enum"] = list(self.choices)
        if self.pattern:
            schema["pattern"] = f"^({self.pattern})$"
        if self.minimum is not None:
            schema |= {"minimum": self.minimum, "maximum": self.maximum}
        return schema


TABLE: tuple[Entry, ...] = (
    Entry("autostart", True, "configure and activate by itself; false: a lifecycle manager does", when=START),
    Entry("policy", "opendrivevla-small", "a policy's name or the path of a checkpoint folder"),
    Entry("device", "cpu", "where the model runs: cpu, cuda or cuda:N", pattern=r"cpu|cuda(:\d+)?"),
    Entry("precision", "float32", "of the model's weights; int8: of its language model's", choices=PRECISIONS),
    Entry("seed", 0, "of random weights and of sampling", minimum=0, maximum=2**31 - 1),
    Entry(
        "camera_count",
        0,
        "cameras that the policy looks through: 3 (front, front left, front right) or 6, for an AutoVLA; 0: as it was"
        " made for",
        choices=(0, 3, 6),
    ),
    Entry("thinking_mode", "fast", "how long the model may reason", choices=("auto", "fast", "slow"), when=ALWAYS),
    Entry(
        "thinking.slow_threshold",
        0.5,
        "in auto the model thinks first where its own probability of doing so is at least this",
        unit="probability",
        minimum=0,
        maximum=1,
        when=ALWAYS,
    ),
    Entry(
        "thinking.max_tokens", 512, "tokens after which a thought is closed", minimum=0, maximum=100_000, when=ALWAYS
    ),
    Entry(
        "thinking.max_milliseconds",
        3000,
        "time after which a thought is closed; keep it well below deadline, after which there is no plan",
        unit="ms",
        minimum=0,
        maximum=600_000,
        when=ALWAYS,
    ),
    Entry("deadline", 5.0, "a plan this long after its stamp is refused; 0: never", unit="s", minimum=0, maximum=600),
    Entry("plan_timeout", 2.0, "without a plan for so long the state is FAULT", unit="s", minimum=0.1, maximum=600),
    Entry(
        "latency_budget",
        1.0,
        "age at which a plan is late: after two in a row samples and slow thinking are saved; 0: never",
        unit="s",
        minimum=0,
        maximum=60,
    ),
    Entry(
        "hang_timeout",
        20.0,
        "work of the model that takes longer ends the process, so that it is started anew; 0: never",
        unit="s",
        minimum=0,
        maximum=3600,
    ),
    Entry("rig_file", "", "path of the calibration file: cameras and where they sit on the vehicle"),
    Entry(
        "extrinsics",
        "file",
        "where the cameras sit: from rig_file; or tf: from /tf_static, with camera_info's intrinsics (needs tf2_ros)",
        choices=("file", "tf"),
    ),
    Entry(
        "intrinsics",
        "file",
        "file: from rig_file, which camera_info must agree with; camera_info: from its first message",
        choices=("file", "camera_info"),
    ),
    Entry("rectified", False, "the pictures are rectified: camera_info's P holds, its distortion does not"),
    Entry("base_frame", "base_link", "frame of plans and extrinsics: ground under the rear axle", pattern=r"\S+"),
    *(
        Entry(
            f"cameras.{camera}.transport",
            "compressed",
            "compressed: ~/input/<cam>/image/compressed; raw: ~/input/<cam>/image",
            choices=("compressed", "raw"),
        )
        for camera in CAMERA_NAMES
    ),
    Entry(
        "sync.method",
        "own",
        "own: this package's synchroniser; message_filters: ApproximateTimeSynchronizer, where installed",
        choices=("own", "message_filters"),
    ),
    Entry("sync.anchor", "cam_front", "the camera whose stamp is a plan's t0", choices=CAMERA_NAMES),
    Entry(
        "sync.slop",
        0.05,
        "largest distance of a picture's stamp from the anchor's",
        unit="s",
        minimum=0.001,
        maximum=1,
    ),
    Entry("sync.max_wait", 0.2, "longest wait for the other cameras", unit="s", minimum=0, maximum=10),
    Entry(
        "sync.missing_camera",
        "skip",
        "when a camera has no picture: skip the anchor, hold the last picture, or give a blank one",
        choices=("skip", "hold_last", "blank"),
    ),
    Entry("sync.hold_max_age", 0.5, "oldest picture that hold_last repeats", unit="s", minimum=0, maximum=10),
    Entry(
        "sync.frozen_after", 10, "a camera is frozen after so many equal pictures; 0: never", minimum=0, maximum=1000
    ),
    Entry("sync.gap_limit", 2.0, "a longer gap in the stamps clears all state", unit="s", minimum=0.1, maximum=60),
    Entry("odometry.world_frame", "odom", "frame_id that odometry must have; empty: that of the first message"),
    Entry("odometry.max_gap", 0.1, "largest gap that is interpolated", unit="s", minimum=0.001, maximum=5),
    Entry("odometry.max_speed", 70.0, "a faster move is a jump", unit="m/s", minimum=1, maximum=200),
    Entry("odometry.use_imu", False, "take acceleration from ~/input/imu, not from odometry"),
    Entry("command.timeout", 5.0, "an older command is stale", unit="s", minimum=0.1, maximum=3600),
    Entry(
        "command.default",
        "keep_forward",
        "assumed while there is no command, or a stale one",
        choices=("keep_forward", "turn_left", "turn_right"),
    ),
    Entry("vehicle.front", 3.414, "base_link to the front bumper, for drawings", unit="m", minimum=0, maximum=30),
    Entry("vehicle.rear", 0.67, "base_link to the rear bumper, for drawings", unit="m", minimum=0, maximum=30),
    Entry("vehicle.width", 1.73, "for drawings", unit="m", minimum=0.1, maximum=5),
    Entry("debug.prompt", False, "publish the exact text given to the model on ~/debug/prompt", when=ALWAYS),
    Entry("debug.jpeg_quality", 85, "of ~/debug/overview/compressed", minimum=1, maximum=100, when=ALWAYS),
    Entry("snapshot_folder", "~/.ros/vla_snapshots", "where ~/save_snapshot writes", pattern=r".+", when=ALWAYS),
)
ENTRIES: dict[str, Entry] = {entry.name: entry for entry in TABLE}


def contradictions(values: Mapping[str, Any]) -> list[str]:
    """Values that are fine by themselves and not together; one sentence each."""
    found = []
    if values["extrinsics"] == "file" and not values["rig_file"]:
        found.append("parameter rig_file is empty while extrinsics is 'file'; give the path of a calibration file")
    if values["sync.missing_camera"] == "hold_last" and values["sync.hold_max_age"] < values["sync.slop"]:
        ages = f"{values['sync.hold_max_age']:g} s is less than sync.slop {values['sync.slop']:g} s"
        found.append(f"parameter sync.hold_max_age {ages}; a held picture must be allowed to be older than a live one")
    if values["sync.gap_limit"] <= values["sync.slop"]:
        limits = f"{values['sync.gap_limit']:g} s is not more than sync.slop {values['sync.slop']:g} s"
        found.append(f"parameter sync.gap_limit {limits}; raise it")
    return found


def declare(node: Node, table: Iterable[Entry]) -> tuple[dict[str, Any], dict[str, str]]:
    """Declares a table's parameters; their values, always valid, and what is wrong with overrides, both by name.

    rclpy raises from the constructor for an override out of range; here it is one sentence, and the default holds.
    """
    overrides: Mapping[str, Parameter] = node._parameter_overrides
    values: dict[str, Any] = {}
    refused: dict[str, str] = {}
    for entry in table:
        value: Any = entry.default
        if entry.name in overrides:
            given = overrides[entry.name].value
            problem = entry.problem(given)
            if problem:
                refused[entry.name] = problem
            else:
                value = type(entry.default)(given)
        node.declare_parameter(entry.name, value, entry.descriptor(), ignore_override=True)
        values[entry.name] = value
    return values, refused


def unknown_parameters(node: Node, known: Container[str]) -> list[str]:
    """Names of overrides that are no parameter of the node's."""
    return [
        name
        for name in node._parameter_overrides
        if name not in known and name not in RCLPY_PARAMETERS and not name.startswith(QOS_PREFIX)
    ]


class Parameters:
    """The declared parameters of a node. `values[name]` is always valid; `problems()` is what was refused at start.

    contradictions: of values together. listed_in: the file that names all of them. on_change: told of the name of
    each that has changed. The defaults are vla_node's.
    """

    def __init__(
        self,
        node: Node,
        is_configured: Callable[[], bool],
        *,
        table: Sequence[Entry] = TABLE,
        contradictions: Callable[[Mapping[str, Any]], list[str]] = contradictions,
        listed_in: str = "config/vla.param.schema.json",
        on_change: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._is_configured, self._contradictions, self._on_change = is_configured, contradictions, on_change
        self._node, self._listed_in = node, listed_in
        self._entries = {entry.name: entry for entry in table}
        self.values, self._refused = declare(node, table)
        node.add_on_set_parameters_callback(self._on_set)

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def problems(self) -> list[str]:
        """Everything that makes configure refuse: bad overrides, unknown names, contradictions."""
        unknown = [
            f"parameter {name} is unknown; the parameters are listed in {self._listed_in}"
            for name in unknown_parameters(self._node, self._entries)
        ]
        return [*self._refused.values(), *unknown, *self._contradictions(self.values)]

    def unknown_qos_overrides(self) -> list[str]:
        """QoS overrides of endpoints that do not exist; known once all endpoints are made."""
        return [
            f"parameter {name} overrides no endpoint of this node; see `ros2 param list` for those that exist"
            for name in self._node._parameter_overrides
            if name.startswith(QOS_PREFIX) and not self._node.has_parameter(name)
        ]

    def _on_set(self, parameters: Iterable[Parameter]) -> SetParametersResult:
        entries = self._entries
        changed = {parameter.name: parameter.value for parameter in parameters if parameter.name in entries}
        for name, value in changed.items():
            problem = entries[name].problem(value)
            if not problem and entries[name].when == CONFIGURE and self._is_configured():
                problem = f"parameter {name} is read by configure; deactivate and clean up the node to change it"
            if problem:
                return SetParametersResult(successful=False, reason=problem)
        if changed and self._is_configured():
            together = self._contradictions(self.values | changed)
            if together:
                return SetParametersResult(successful=False, reason=together[0])
        self.values |= changed
        for name in changed:
            self._refused.pop(name, None)
            self._on_change(name)
        return SetParametersResult(successful=True)


def parameter_schema() -> dict[str, Any]:
    """The JSON schema of a ROS parameter file for vla_node."""
    root: dict[str, Any] = _group_schema()
    for entry in TABLE:
        group = root
        *groups, leaf = entry.name.split(".")
        for name in groups:
            group = group["properties"].setdefault(name, _group_schema())
        group["properties"][leaf] = entry.schema()
    root["properties"]["use_sim_time"] = {
        "type": "boolean",
        "description": "take the time from /clock, as for a bag",
        "default": False,
    }
    root["properties"]["qos_overrides"] = {
        "type": "object",
        "description": "per endpoint: <topic>: {publisher | subscription: {reliability, history, depth}}",
    }
    node = {"type": "object", "properties": {"ros__parameters": root}, "required": ["ros__parameters"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Parameters of opendrivevla_ros vla_node",
        "type": "object",
        "patternProperties": {"^/?[^/].*$": node},
        "additionalProperties": False,
    }


def _group_schema() -> dict[str, Any]:
    return {"type": "object", "properties": {}, "additionalProperties": False}
