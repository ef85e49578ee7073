"""A vla_node whose policy fails as the environment's FAILURE says, after three plans: it hangs, is slow, or its device
breaks for a while.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.plan import Plan, PlanError, PlanFailure
from opendrivevla_ros.policies.baselines import ConstantVelocityPolicy
from opendrivevla_ros.ros import loading
from opendrivevla_ros.ros.vla_node import main

GOOD_PLANS, BROKEN_PLANS, SLOW_S = 3, 10, 0.4


class FailingPolicy(ConstantVelocityPolicy):
    """Constant velocity, until it fails."""

    def __init__(self, failure: str) -> None:
        super().__init__()
        self._failure, self._plans, self._saves = failure, 0, False

    def set_economy(self, saves: bool) -> None:
        self._saves = saves

    def plan(self, observation: Observation, deadline_ns: int | None, on_thought: Any) -> Plan:
        self._plans += 1
        failed = self._plans - GOOD_PLANS
        if self._failure == "hang" and failed > 0:
            time.sleep(3600)
        if self._failure == "device" and 0 < failed <= BROKEN_PLANS:
            raise PlanError(PlanFailure.DEVICE, "the accelerator failed: CUDA error 700")
        if self._failure == "slow" and not self._saves and 0 < failed < 50:
            time.sleep(SLOW_S)
        return replace(super().plan(observation, deadline_ns), token_counts={"plan": self._plans})

    def answer(self, observation: Observation, question: str) -> Iterator[str]:
        yield "nothing"


def load_policy(*_: Any, **__: Any) -> FailingPolicy:
    return FailingPolicy(os.environ["FAILURE"])


if __name__ == "__main__":
    loading.load_policy = load_policy  # type: ignore[assignment]
    main()
