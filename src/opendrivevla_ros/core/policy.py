"""The contract between a driving policy and whoever runs it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.plan import Plan, Reasoning, ThinkingMode


@dataclass(frozen=True)
class PolicyInfo:
    """What a policy is. weights_hash: SHA-256 of the weights file in hex, empty where there are none.

    trained: False where the weights are random, so that nobody mistakes noise for driving.
    image_size: (width, height) the model needs; decoding may shrink a picture as long as it stays at least so large.
    thinks: it can write down a thought before its plan.
    """

    model_id: str
    weights_hash: str
    trained: bool
    image_size: tuple[int, int]
    device: str = "cpu"
    thinks: bool = False

    def objection(self, mode: ThinkingMode) -> str:
        """One sentence where a thinking mode is asked for that the policy does not have; empty where it has it.

        AUTO leaves it to the policy, and one that does not think decides for a plan at once.
        """
        if self.thinks or mode is not ThinkingMode.SLOW:
            return ""
        return (
            f"{self.model_id} does not think before it plans: asked for slow thinking, it plans fast; choose a policy"
            " that thinks, or thinking mode fast"
        )


@dataclass(frozen=True)
class ThinkingLimits:
    """When a model thinks first, and how long.

    slow_threshold: in AUTO it does where its own probability of doing so is at least this, [0, 1]. max_tokens,
    max_milliseconds: of a thought; what comes first closes it, and the plan is taken from what was thought by then.
    Raises ValueError.
    """

    slow_threshold: float = 0.5
    max_tokens: int = 512
    max_milliseconds: int = 3000

    def __post_init__(self) -> None:
        if not 0.0 <= self.slow_threshold <= 1.0:
            raise ValueError(f"slow_threshold is a probability, not {self.slow_threshold!r}; give 0 to 1")
        for name in ("max_tokens", "max_milliseconds"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} of a thought is {getattr(self, name)}; give 0 or more")


class DrivingPolicy(Protocol):
    """Plans from observations that come in the order of time, one call at a time."""

    @property
    def info(self) -> PolicyInfo: ...

    def reset(self) -> None:
        """Forgets all temporal state."""

    def set_thinking_mode(self, mode: ThinkingMode) -> None:
        """Asks for a thinking mode from the next plan on; what a plan really used stands in its reasoning."""

    def set_thinking_limits(self, limits: ThinkingLimits) -> None:
        """When it may think, and how long, from the next plan on; until then by the defaults."""

    def set_economy(self, saves: bool) -> None:
        """Has plans cost as little as they can from the next one on: without samples, with fast thinking."""

    def plan(
        self,
        observation: Observation,
        deadline_ns: int | None = None,
        on_thought: Callable[[Reasoning], None] | None = None,
    ) -> Plan:
        """The plan from one observation, or PlanError.

        deadline_ns: on the clock of time.monotonic_ns; past it a PlanError(DEADLINE) comes in place of a plan.
        on_thought: told of a slow thought as it is written, each time with all of it so far; the writing waits for it.
        """

    def answer(self, observation: Observation, question: str) -> Iterator[str]:
        """Answers a question about the scene, in pieces as they come, without touching temporal state."""
