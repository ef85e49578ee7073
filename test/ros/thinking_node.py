"""A vla_node whose policy writes on at a thought until the file of the environment's GATE is there."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.plan import Plan, Reasoning, ThinkingMode
from opendrivevla_ros.policies.baselines import ConstantVelocityPolicy
from opendrivevla_ros.ros import loading
from opendrivevla_ros.ros.vla_node import main

WORD, WORD_S = "bus ", 0.02


class ThinkingPolicy(ConstantVelocityPolicy):
    """Constant velocity, after a thought."""

    info = replace(ConstantVelocityPolicy.info, thinks=True)

    def plan(self, observation: Observation, deadline_ns: int | None, on_thought: Callable[[Reasoning], None]) -> Plan:
        plan = super().plan(observation, deadline_ns)
        if self._requested_mode is ThinkingMode.FAST:
            return plan
        reasoning = Reasoning("", self._requested_mode, ThinkingMode.SLOW, 0.75)
        while not Path(os.environ["GATE"]).exists():
            reasoning = replace(reasoning, text=reasoning.text + WORD)
            on_thought(reasoning)
            time.sleep(WORD_S)  # as a model writes
        return replace(plan, reasoning=reasoning)

    def answer(self, observation: Observation, question: str) -> Iterator[str]:
        yield "nothing"


def load_policy(*_: Any, **__: Any) -> ThinkingPolicy:
    return ThinkingPolicy()


if __name__ == "__main__":
    loading.load_policy = load_policy  # type: ignore[assignment]
    main()
