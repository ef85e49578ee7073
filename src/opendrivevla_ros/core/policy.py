"""The contract between a driving policy and whoever runs it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.plan import Plan, ThinkingMode


@dataclass(frozen=True)
class PolicyInfo:
    """What a policy is. weights_hash: SHA-256 of the weights file in hex, empty where there are none.

    trained: False where the weights are random, so that nobody mistakes noise for driving.
    image_size: (width, height) the model needs; decoding may shrink a picture as long as it stays at least so large.
    """

    model_id: str
    weights_hash: str
    trained: bool
    image_size: tuple[int, int]
    device: str = "cpu"


class DrivingPolicy(Protocol):
    """Plans from observations that come in the order of time, one call at a time."""

    @property
    def info(self) -> PolicyInfo: ...

    def reset(self) -> None:
        """Forgets all temporal state."""

    def set_thinking_mode(self, mode: ThinkingMode) -> None:
        """Asks for a thinking mode from the next plan on; what a plan really used stands in its reasoning."""

    def set_economy(self, saves: bool) -> None:
        """Has plans cost as little as they can from the next one on: without samples, with fast thinking."""

    def plan(self, observation: Observation, deadline_ns: int | None = None) -> Plan:
        """The plan from one observation, or PlanError.

        deadline_ns: on the clock of time.monotonic_ns; past it a PlanError(DEADLINE) comes in place of a plan.
        """

    def answer(self, observation: Observation, question: str) -> Iterator[str]:
        """Answers a question about the scene, in pieces as they come, without touching temporal state."""
