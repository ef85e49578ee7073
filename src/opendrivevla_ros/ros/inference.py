"""The model's side of the node: frame sets in, outcomes out, in the worker's thread. No rclpy."""

import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from opendrivevla_ros.core.ego import DrivingCommand
from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.plan import Plan, PlanError, PlanFailure, Reasoning, ThinkingMode
from opendrivevla_ros.core.policy import DrivingPolicy, ThinkingLimits
from opendrivevla_ros.ros.worker import NewestWinsWorker
from opendrivevla_ros.sensing.assembler import ObservationAssembler
from opendrivevla_ros.sensing.odometry import OdometryBuffer
from opendrivevla_ros.sensing.refusals import ObservationError
from opendrivevla_ros.sensing.synchronizer import FrameSet

# Between two reports of a thought: as fast as is read, and so that ten of them, which a queue of the topic holds, are
# a second's worth and never push out a plan's own words.
THOUGHT_PERIOD_NS = 100_000_000


@dataclass(frozen=True)
class Job:
    """One attempt to plan. generation: rises when all temporal state is to be forgotten.

    limits: of thinking. saves: see `economy`. deadline_ns: on the clock of time.monotonic_ns; None: no deadline.
    """

    generation: int
    frames: FrameSet
    command: DrivingCommand
    mode: ThinkingMode
    deadline_ns: int | None
    limits: ThinkingLimits = field(default_factory=ThinkingLimits)
    saves: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of a job: a plan, or a result code of msg/PlanStatus with a reason.

    stage_times: seconds by stage, decoding first. trace: of an error nobody expected, for the log.
    """

    job: Job
    observation: Observation | None = None
    plan: Plan | None = None
    result: int = 0
    reason: str = ""
    failed_checks: tuple[str, ...] = ()
    stage_times: dict[str, float] = field(default_factory=dict)
    trace: str = ""


@dataclass(frozen=True)
class ThoughtSoFar:
    """What a policy has written of a thought, on the way to the outcome of a job."""

    job: Job
    observation: Observation
    reasoning: Reasoning


@dataclass(frozen=True)
class Answer:
    """A piece of an answer to a question; the last one has `done`, and `error` when there is none."""

    stamp_ns: int
    piece: str = ""
    done: bool = False
    error: str = ""


class Inference:
    """Plans with a policy in a thread of its own, and answers questions piece by piece between plans.

    on_outcome, on_thought, on_answer: called in that thread. The policy is used by no other.
    """

    def __init__(
        self,
        policy: DrivingPolicy,
        assembler: ObservationAssembler,
        odometry: OdometryBuffer,
        *,
        on_outcome: Callable[[Outcome], None],
        on_thought: Callable[[ThoughtSoFar], None],
        on_answer: Callable[[Answer], None],
    ) -> None:
        self._policy, self._assembler, self._odometry = policy, assembler, odometry
        self._on_outcome, self._on_thought, self._on_answer = on_outcome, on_thought, on_answer
        self._generation: int | None = None
        self._mode: ThinkingMode | None = None
        self._limits = ThinkingLimits()  # with which every policy begins
        self._saves = False
        self._observation: Observation | None = None
        self._question: str | None = None
        self._cancelled = False
        self._pieces: Iterator[str] | None = None
        self._asked_stamp_ns = 0
        self._lock = threading.Lock()
        self.replaced = 0  # frame sets that a newer one pushed out of the slot
        self._worker = NewestWinsWorker[Job]("inference", self._run, self._answer_a_piece)

    def submit(self, job: Job) -> None:
        self.replaced += self._worker.submit(job)

    def discard(self) -> None:
        """Forgets the frame set that waits; the outcome of one in progress still comes."""
        self._worker.discard()

    def ask(self, question: str) -> bool:
        """Answers about the newest observation through `on_answer`; False while another question is open."""
        with self._lock:
            if self._question is not None:
                return False
            self._question, self._cancelled = question, False
        self._worker.wake()
        return True

    def cancel_question(self) -> None:
        """Ends the open question after the piece in progress; its last Answer still comes."""
        self._cancelled = True

    @property
    def is_busy(self) -> bool:
        return self._worker.is_busy

    @property
    def busy_s(self) -> float:
        """Seconds that the work in progress has taken; 0 where there is none."""
        return self._worker.busy_s

    def stop(self, timeout_s: float) -> bool:
        """Ends the thread; False when the work in progress takes longer than the timeout."""
        stopped = self._worker.stop(timeout_s)
        if stopped:
            self._assembler.close()
        return stopped

    def _run(self, job: Job) -> None:
        if job.generation != self._generation:
            self._observation = None
        self._on_outcome(self._attempt(job))

    def _attempt(self, job: Job) -> Outcome:
        started = time.monotonic()
        observation = None
        stages: dict[str, float] = {}
        try:
            if job.generation != self._generation:
                self._policy.reset()
                self._generation = job.generation
            if job.mode != self._mode:
                self._policy.set_thinking_mode(job.mode)
                self._mode = job.mode
            if job.limits != self._limits:
                self._policy.set_thinking_limits(job.limits)
                self._limits = job.limits
            if job.saves != self._saves:
                self._policy.set_economy(job.saves)
                self._saves = job.saves
            observation = self._assembler.assemble(job.frames, self._odometry, job.command)
            stages["decode"] = time.monotonic() - started
            self._observation = observation
            plan = self._policy.plan(observation, job.deadline_ns, self._thinking_aloud(job, observation))
            stages |= plan.stage_times
            _require_finite(plan)
        except ObservationError as error:
            refused = error.refused
            reason = refused.message
            return Outcome(job, None, None, refused.reason.failure.value, reason, (refused.reason.value,), stages)
        except PlanError as error:
            check = error.failure.name.lower()
            return Outcome(job, observation, None, error.failure.value, str(error), (check,), stages)
        except MemoryError as error:
            return self._crash(job, observation, PlanFailure.OUT_OF_MEMORY, error, stages)
        except Exception as error:
            return self._crash(job, observation, PlanFailure.INTERNAL, error, stages)
        return Outcome(job, observation, plan, stage_times=stages)

    def _thinking_aloud(self, job: Job, observation: Observation) -> Callable[[Reasoning], None]:
        """Passes on what a policy tells of its thought, at most once in THOUGHT_PERIOD_NS."""
        told_ns = time.monotonic_ns() - THOUGHT_PERIOD_NS

        def tell(reasoning: Reasoning) -> None:
            nonlocal told_ns
            now_ns = time.monotonic_ns()
            if now_ns - told_ns >= THOUGHT_PERIOD_NS:
                told_ns = now_ns
                self._on_thought(ThoughtSoFar(job, observation, reasoning))

        return tell

    def _crash(
        self,
        job: Job,
        observation: Observation | None,
        failure: PlanFailure,
        error: BaseException,
        stages: dict[str, float],
    ) -> Outcome:
        self._generation = None  # what the policy remembers may be half-written
        reason = f"the policy failed with {type(error).__name__}: {error}; its memory was dropped"
        check = failure.name.lower()
        trace = traceback.format_exc()
        return Outcome(job, observation, None, failure.value, reason, (check,), stages, trace)

    def _answer_a_piece(self) -> bool:
        """One step of the open question; False when there is none."""
        with self._lock:
            question = self._question
        if question is None:
            return False
        try:
            if self._pieces is None:
                if self._observation is None:
                    return self._finish("there is no observation yet; ask again when plans arrive")
                self._asked_stamp_ns = self._observation.stamp_ns
                self._pieces = iter(self._policy.answer(self._observation, question))
            piece = None if self._cancelled else next(self._pieces, None)
        except Exception as error:
            return self._finish(str(error) or type(error).__name__)
        if piece is None:
            return self._finish("cancelled" if self._cancelled else "")
        self._on_answer(Answer(self._asked_stamp_ns, piece))
        return True

    def _finish(self, error: str) -> bool:
        self._pieces = None
        with self._lock:
            self._question = None
        self._on_answer(Answer(self._asked_stamp_ns, done=True, error=error))
        return False


def _require_finite(plan: Plan) -> None:
    trajectory = plan.trajectory
    arrays = (trajectory.times, trajectory.xy, trajectory.yaw, trajectory.velocity, trajectory.covariance)
    if not all(np.isfinite(array).all() for array in arrays):
        raise PlanError(PlanFailure.INTERNAL, "the policy's trajectory is not finite; report this with a snapshot")
