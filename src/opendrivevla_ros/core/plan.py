"""What a policy answers: a plan with everything seen and thought on the way, or a reason why there is none."""

from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.core.trajectory import Trajectory


class ThinkingMode(Enum):
    """How long the model may reason; the values are those of srv/SetThinkingMode."""

    AUTO = 0
    FAST = 1
    SLOW = 2


@dataclass(frozen=True)
class Agent:
    """A tracked road user, in base_link at t0.

    position: [3] box centre, m. size: [3] length, width, height, m. yaw: radians. velocity: [2] m/s.
    predicted: [K, 2] future centres every 0.5 s, metres; empty where the policy predicts none.
    """

    track_id: int
    label: str
    score: float
    position: Array
    size: Array
    yaw: float
    velocity: Array
    predicted: Array = field(default_factory=lambda: np.zeros((0, 2)))


@dataclass(frozen=True)
class MapElement:
    """A polyline of the road, in base_link at t0. points: [N, 2] metres; closed: the last joins the first."""

    label: str
    score: float
    points: Array
    closed: bool = False


@dataclass(frozen=True)
class Reasoning:
    """The model's words (in fast mode, its plan or what it says in place of a thought) and how it came to them.

    While a thought is being written, `text` is what there is of it so far.

    requested_mode, actual_mode: the thinking mode asked for, and the one that was used, FAST or SLOW.
    slow_probability: with which the model itself would have thought first, [0, 1]; None for one that has no choice.
    """

    text: str = ""
    requested_mode: ThinkingMode = ThinkingMode.FAST
    actual_mode: ThinkingMode = ThinkingMode.FAST
    slow_probability: float | None = None


@dataclass(frozen=True)
class Doubt:
    """What a model's own numbers say of its plan.

    token_probability: geometric mean of the probabilities of what it decided, [0, 1]. spread: mean distance of the
    waypoints of plans that were drawn beside it, metres; None where none were. expected_error: how far off its
    point 3 s ahead is expected to be, metres; None from a model that expects nothing.
    """

    token_probability: float
    spread: float | None = None
    expected_error: float | None = None


@dataclass(frozen=True)
class Plan:
    """The outcome of one `DrivingPolicy.plan`.

    confidence: [0, 1], see `safety.uncertainty`; doubt: what it is made from, None for a policy that has none. prompt:
    the exact text given to the model; raw_text: its unparsed answer (both empty for policies without language).
    stage_times: seconds by stage name, in order. token_counts: by kind, for example prompt, generated, forced.
    """

    stamp_ns: int
    trajectory: Trajectory
    confidence: float
    reasoning: Reasoning = Reasoning()
    agents: tuple[Agent, ...] = ()
    map_elements: tuple[MapElement, ...] = ()
    stage_times: dict[str, float] = field(default_factory=dict)
    token_counts: dict[str, int] = field(default_factory=dict)
    doubt: Doubt | None = None
    prompt: str = ""
    raw_text: str = ""


class PlanFailure(Enum):
    """Why no plan came from an observation; the values are those of msg/PlanStatus."""

    BAD_OBSERVATION = 10  # pictures, calibration or ego state the model cannot take
    BAD_INSTRUCTION = 11  # free text that is too long or holds characters the prompt must not carry
    DEADLINE = 12  # the deadline passed before a whole plan was there
    BAD_TEXT = 13  # the model's text is not a plan
    OUT_OF_MEMORY = 14
    DEVICE = 15  # the accelerator failed
    INTERNAL = 16


class PlanError(Exception):
    """No plan could be formed. Carries the reason as a code and one sentence that names value, limit and remedy."""

    def __init__(self, failure: PlanFailure, message: str) -> None:
        super().__init__(message)
        self.failure = failure
