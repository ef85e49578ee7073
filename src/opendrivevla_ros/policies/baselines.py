"""Policies without a model, to compare with and to try everything around a policy at no cost."""

import time
from collections.abc import Callable, Iterator

import numpy as np

from opendrivevla_ros.core.ego import EgoState
from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.plan import Plan, PlanError, PlanFailure, Reasoning, ThinkingMode
from opendrivevla_ros.core.policy import PolicyInfo, ThinkingLimits
from opendrivevla_ros.core.trajectory import FUTURE_TIMES_S, Trajectory

ACCELERATION_SIGMA = 1.0  # m/s^2: what a driver may do that constant velocity does not foresee
CONFIDENCE = 0.5  # it sees nothing, so it has no reason for more or less


class WordlessPolicy:
    """What policies without words share: nothing is kept, nothing is thought about, no question is answered.

    Such a policy gives its `info`, its `explanation`, a sentence, and `waypoints`.
    """

    info: PolicyInfo
    explanation: str

    def __init__(self) -> None:
        self._requested_mode = ThinkingMode.FAST

    def waypoints(self, observation: Observation) -> tuple[Array, Array | None]:
        """Positions [6, 2] of base_link at FUTURE_TIMES_S, in base_link now; their covariance [6, 2, 2], if any."""
        raise NotImplementedError

    def reset(self) -> None:
        """There is nothing to forget."""

    def set_thinking_mode(self, mode: ThinkingMode) -> None:
        """There is nothing to think about; plans report FAST."""
        self._requested_mode = mode

    def set_thinking_limits(self, limits: ThinkingLimits) -> None:
        """There is nothing to limit."""

    def set_economy(self, saves: bool) -> None:
        """There is nothing to save."""

    def plan(
        self,
        observation: Observation,
        deadline_ns: int | None = None,
        on_thought: Callable[[Reasoning], None] | None = None,
    ) -> Plan:
        """The waypoints, or PlanError for an ego state that is not finite or a deadline already past.

        on_thought: is told nothing.
        """
        started_ns = time.monotonic_ns()
        if deadline_ns is not None and started_ns >= deadline_ns:
            late_ms = (started_ns - deadline_ns) / 1e6
            raise PlanError(PlanFailure.DEADLINE, f"the deadline had passed {late_ms:.0f} ms before planning began")
        if not observation.ego.is_finite:
            raise PlanError(PlanFailure.BAD_OBSERVATION, "the ego state holds values that are not finite")
        points, covariance = self.waypoints(observation)
        return Plan(
            stamp_ns=observation.stamp_ns,
            trajectory=Trajectory.from_waypoints(FUTURE_TIMES_S, points, observation.ego.speed, covariance),
            confidence=CONFIDENCE,
            reasoning=Reasoning(self.explanation, self._requested_mode, ThinkingMode.FAST),
            stage_times={"extrapolate": (time.monotonic_ns() - started_ns) / 1e9},
        )

    def answer(self, observation: Observation, question: str) -> Iterator[str]:
        """Says that it cannot answer."""
        yield f"{self.explanation} It cannot answer questions about the scene."


class ConstantVelocityPolicy(WordlessPolicy):
    """Keeps speed and yaw rate: six points, 0.5 s apart. Ignores the pictures and the command."""

    info = PolicyInfo(model_id="constant_velocity", weights_hash="", trained=True, image_size=(1, 1))
    explanation = "This baseline sees no pictures: it keeps the present speed and yaw rate for three seconds."

    def waypoints(self, observation: Observation) -> tuple[Array, Array | None]:
        """The continued arc; its covariance is that of an acceleration of ACCELERATION_SIGMA."""
        covariance = (0.5 * ACCELERATION_SIGMA * FUTURE_TIMES_S**2)[:, None, None] ** 2 * np.eye(2)
        return continued_arc(observation.ego, FUTURE_TIMES_S), covariance


def continued_arc(ego: EgoState, times: Array) -> Array:
    """Positions [N, 2] of base_link at `times` [N] (s), in base_link now, at constant body velocity and yaw rate."""
    angle = float(ego.angular_velocity[2]) * times
    # integral over t of (cos, sin)(yaw_rate * t); sinc keeps it exact as the yaw rate goes to zero
    along = times * np.sinc(angle / np.pi)
    across = times * np.sin(angle / 2) * np.sinc(angle / (2 * np.pi))
    vx, vy = ego.velocity[:2]
    return np.column_stack([vx * along - vy * across, vx * across + vy * along])
