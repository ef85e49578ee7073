"""From frame sets and refusals to published plans and statuses: the node's work between configure and clean up.

Everything here runs in the executor's thread, but for what `Inference` does in its own.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.node import Node
from rclpy.publisher import Publisher

from opendrivevla_ros.core.plan import PlanFailure, ThinkingMode
from opendrivevla_ros.core.policy import DrivingPolicy, ThinkingLimits
from opendrivevla_ros.core.rig import CAMERA_NAMES, CameraRig
from opendrivevla_ros.ros.conversions import plan_status_message
from opendrivevla_ros.ros.economy import REASON, Economy
from opendrivevla_ros.ros.health import Health, Phase
from opendrivevla_ros.ros.inference import Answer, Inference, Job, Outcome, ThoughtSoFar
from opendrivevla_ros.ros.inputs import Inputs, Result
from opendrivevla_ros.ros.outputs import Outputs
from opendrivevla_ros.ros.palette import Footprint
from opendrivevla_ros.ros.parameters import Parameters
from opendrivevla_ros.ros.qos import Endpoints
from opendrivevla_ros.sensing.assembler import ObservationAssembler
from opendrivevla_ros.sensing.refusals import ObservationFailure, Refusal, Refused

WARN_PERIOD_S = 5.0
STOP_TIMEOUT_S = 1.0
BROKEN = (PlanFailure.OUT_OF_MEMORY.value, PlanFailure.DEVICE.value)
LACKS_INPUT = (Refusal.MISSING_CAMERA, Refusal.ODOMETRY_MISSING, Refusal.ODOMETRY_STALE)


class Planner:
    """Inputs, inference and outputs of one configuration.

    plan_status: where the outcome of every attempt goes. post: has a function called in the executor's thread.
    on_answer: told of pieces of answers, in that thread.
    """

    def __init__(
        self,
        node: Node,
        endpoints: Endpoints,
        parameters: Parameters,
        health: Health,
        *,
        rig: CameraRig,
        policy: DrivingPolicy,
        plan_status: Publisher,
        post: Callable[[Callable[[], None]], None],
        on_answer: Callable[[Answer], None],
    ) -> None:
        self._node, self._parameters, self._health, self._plan_status = node, parameters, health, plan_status
        self._generation = 0
        self._warned: dict[tuple[str, str], float] = {}
        self.last_attempt: Outcome | None = None
        self._economy = Economy(parameters["latency_budget"])
        self.banner = policy.info.model_id
        if not policy.info.trained:
            self.banner += " (random weights: its plans mean nothing)"
        footprint = Footprint(parameters["vehicle.front"], parameters["vehicle.rear"], parameters["vehicle.width"])
        self.inputs = Inputs(node, endpoints, parameters, rig, on_result=self._on_result, is_ready=self._is_ready)
        self._outputs = Outputs(endpoints, footprint, post)
        self.inference = Inference(
            policy,
            ObservationAssembler(rig, image_size=policy.info.image_size),
            self.inputs.odometry,
            on_outcome=lambda outcome: post(partial(self._on_outcome, outcome)),
            on_thought=lambda thought: post(partial(self._publish_thought, thought)),
            on_answer=lambda answer: post(partial(on_answer, answer)),
        )

    def forget_everything(self) -> None:
        """Clears all temporal state: buffers, the waiting frame set, the model's memory, an open question."""
        self._forget_plans()
        self.last_attempt = None
        self.inputs.clear()
        self.inference.cancel_question()

    def clock_jumped(self, by_s: float) -> None:
        reason = f"the clock jumped by {by_s:+.3f} s: all temporal state is dropped"
        self.forget_everything()
        self._warn("clock", "clock_jump", reason)
        self._refuse(0, ObservationFailure.CLOCK_JUMP.value, reason, (Refusal.CLOCK_JUMP.value,))

    def stop(self) -> bool:
        """Ends the threads; False when the model is still at work after STOP_TIMEOUT_S."""
        self._generation += 1  # an outcome that is still to come belongs to nobody
        self.inference.cancel_question()
        self._outputs.close()
        return self.inference.stop(STOP_TIMEOUT_S)

    def _is_ready(self) -> bool:
        if self._health.phase is not Phase.ACTIVE:
            return False
        clock_came = self._node.get_clock().now().nanoseconds > 0
        self._health.not_ready = "" if clock_came else "use_sim_time is set and /clock has not come yet"
        return clock_came

    def _on_result(self, result: Result) -> None:
        if isinstance(result, Refused):
            self._on_refused(result)
            return
        stamp_ns = result.anchor_stamp_ns
        for camera in CAMERA_NAMES:
            problem = self.inputs.monitor.problem(camera)
            if problem:
                self._on_refused(Refused(Refusal.BAD_CALIBRATION, problem, camera, stamp_ns, ends_attempt=True))
                return
        self._health.formed += 1
        age_s, deadline_s = self._age_s(stamp_ns), self._parameters["deadline"]
        if deadline_s and abs(age_s) > deadline_s:
            where = f"{abs(age_s):.1f} s {'old' if age_s > 0 else 'in the future'}"
            reason = f"the anchor picture is {where}, the limit is {deadline_s} s; is use_sim_time missing for a bag?"
            self._warn("clock", "deadline", reason)
            self._refuse(stamp_ns, PlanFailure.DEADLINE.value, reason, ("deadline",))
            return
        self.inference.submit(
            Job(
                generation=self._generation,
                frames=result,
                command=self.inputs.command.at(time.monotonic_ns()),
                mode=ThinkingMode.FAST if self._economy.saves else self.thinking_mode,
                limits=self._limits,
                saves=self._economy.saves,
                deadline_ns=time.monotonic_ns() + round((deadline_s - age_s) * 1e9) if deadline_s else None,
            )
        )

    @property
    def thinking_mode(self) -> ThinkingMode:
        """That the parameter asks for."""
        return ThinkingMode[self._parameters["thinking_mode"].upper()]

    @property
    def _limits(self) -> ThinkingLimits:
        return ThinkingLimits(
            slow_threshold=float(self._parameters["thinking.slow_threshold"]),
            max_tokens=self._parameters["thinking.max_tokens"],
            max_milliseconds=self._parameters["thinking.max_milliseconds"],
        )

    def _on_refused(self, refused: Refused) -> None:
        if refused.reason.clears_state:
            self._forget_plans()
        cause = self._health.recent(refused.source) if refused.reason in LACKS_INPUT else None
        result, reason = refused.reason.failure, refused.message
        checks: tuple[str, ...] = (refused.reason.value,)
        if cause is not None and cause.reason is not refused.reason:
            # What the source was last refused for says more than that it is missing.
            reason, checks = f"{reason}; before that: {cause.message}", (*checks, cause.reason.value)
            if cause.reason.failure is ObservationFailure.BAD_ODOMETRY:
                result = cause.reason.failure
        self._health.note(refused)
        self._warn(refused.source, refused.reason.value, reason)
        if refused.ends_attempt or refused.reason.clears_state or refused.reason is Refusal.BAD_COMMAND:
            is_silence = refused.reason is Refusal.MISSING_CAMERA and refused.source == self._parameters["sync.anchor"]
            self._refuse(0 if is_silence else refused.stamp_ns, result.value, reason, checks)

    def _is_of_now(self, job: Job) -> bool:
        """Whether a job is of a time after the last reset."""
        return job.generation == self._generation and self._health.phase is Phase.ACTIVE

    def _publish_thought(self, thought: ThoughtSoFar) -> None:
        if self._is_of_now(thought.job):
            self._outputs.publish_thought(thought.observation, thought.reasoning)

    def _on_outcome(self, outcome: Outcome) -> None:
        if not self._is_of_now(outcome.job):
            return
        self.last_attempt = outcome
        self._health.stage_times = outcome.stage_times
        observation, plan, frames = outcome.observation, outcome.plan, outcome.job.frames
        stamp_ns = frames.anchor_stamp_ns
        details: dict[str, Any] = {
            "degraded": self._degraded(outcome),
            "skew_s": frames.skew_ns / 1e9,
            "stage_times": outcome.stage_times,
        }
        if observation is None or plan is None:
            self._warn("policy", "/".join(outcome.failed_checks), f"{outcome.reason}\n{outcome.trace}".rstrip())
            if outcome.result in BROKEN:
                self._health.broken = outcome.reason
            if outcome.result == PlanFailure.DEADLINE.value:
                self._economy.took(float("inf"))
            self._refuse(stamp_ns, outcome.result, outcome.reason, outcome.failed_checks, **details)
        else:
            prompt, period_s = self._parameters["debug.prompt"], self._health.period_s
            self._outputs.publish(observation, plan, banner=self.banner, period_s=period_s, prompt=prompt)
            age_s = self._age_s(stamp_ns)
            self._economy.took(age_s)
            self._health.planned(age_s=age_s, skew_s=details["skew_s"], degraded=details["degraded"])
            self._health.token_counts, self._health.reasoning = plan.token_counts, plan.reasoning
            self._plan_status.publish(
                plan_status_message(
                    stamp_ns=stamp_ns,
                    frame_id=observation.ego.world_frame,
                    age_s=age_s,
                    token_counts=plan.token_counts,
                    **details,
                )
            )
        if observation is not None:
            status = outcome.reason or self.banner
            self._outputs.draw(observation, plan, status=status, jpeg_quality=self._parameters["debug.jpeg_quality"])

    def _degraded(self, outcome: Outcome) -> tuple[str, ...]:
        command, degraded = outcome.job.command, outcome.job.frames.degraded
        if outcome.job.saves:
            degraded = (*degraded, REASON)
        if command.is_default and self.inputs.command.is_stale(time.monotonic_ns()):
            return (*degraded, f"command stale, {command.command.name} assumed")
        return degraded

    def _refuse(self, stamp_ns: int, result: int, reason: str, checks: tuple[str, ...], **details: Any) -> None:
        """Publishes that an attempt gave no plan. stamp_ns: 0 where there was no anchor picture."""
        self._health.refused(reason, checks)
        self._plan_status.publish(
            plan_status_message(
                stamp_ns=stamp_ns or self._node.get_clock().now().nanoseconds,
                result=result,
                reason=reason,
                failed_checks=checks,
                age_s=self._age_s(stamp_ns) if stamp_ns else 0.0,
                **details,
            )
        )

    def _forget_plans(self) -> None:
        """The model's memory and the waiting frame set are of another time."""
        self._generation += 1
        self._economy.forget()
        self._health.resets += 1
        self._health.forget()
        self.inference.discard()

    def _age_s(self, stamp_ns: int) -> float:
        return (self._node.get_clock().now().nanoseconds - stamp_ns) / 1e9

    def _warn(self, source: str, kind: str, text: str) -> None:
        """Logs at most once in WARN_PERIOD_S per source and kind."""
        now = time.monotonic()
        if now - self._warned.get((source, kind), -WARN_PERIOD_S) >= WARN_PERIOD_S:
            self._warned[source, kind] = now
            self._node.get_logger().warning(text)
