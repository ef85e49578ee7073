"""The model's thread: outcomes for every way an attempt can end, forgetting, and questions beside planning."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from opendrivevla_ros.msg import PlanStatus
from ros.harness import synthetic_rig, wait_until
from ros.samples import STAMP_NS, plan

from opendrivevla_ros.core.ego import DrivingCommand
from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.plan import Plan, PlanError, PlanFailure, Reasoning, ThinkingMode
from opendrivevla_ros.core.policy import PolicyInfo, ThinkingLimits
from opendrivevla_ros.core.rig import CAMERA_NAMES
from opendrivevla_ros.ros.inference import Answer, Inference, Job, Outcome, ThoughtSoFar
from opendrivevla_ros.sensing.assembler import ObservationAssembler
from opendrivevla_ros.sensing.images import CompressedImage, RawImage
from opendrivevla_ros.sensing.odometry import OdometryBuffer
from opendrivevla_ros.sensing.synchronizer import FrameSet, SyncedFrame

RIG = synthetic_rig()
PIXELS = np.zeros((90, 160, 3), np.uint8).tobytes()


class ScriptedPolicy:
    """Raises or returns what it is told, and remembers what was asked of it."""

    info = PolicyInfo("scripted", "", True, (16, 9))

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.error: Exception | None = None
        self.may_answer = threading.Event()
        self.thoughts: list[str] = []

    def reset(self) -> None:
        self.calls.append("reset")

    def set_thinking_mode(self, mode: ThinkingMode) -> None:
        self.calls.append(mode.name)

    def set_thinking_limits(self, limits: ThinkingLimits) -> None:
        self.calls.append(f"threshold {limits.slow_threshold}")

    def set_economy(self, saves: bool) -> None:
        self.calls.append(f"saves {saves}")

    def plan(self, observation: Observation, deadline_ns: int | None, on_thought: Callable[[Reasoning], None]) -> Plan:
        self.calls.append("plan")
        for text in self.thoughts:
            on_thought(Reasoning(text, ThinkingMode.AUTO, ThinkingMode.SLOW, 0.75))
        if self.error is not None:
            raise self.error
        return plan()

    def answer(self, observation: Observation, question: str) -> Iterator[str]:
        yield "one "
        self.may_answer.wait(5.0)
        yield "two"


class Bench:
    """An Inference with a scripted policy, and lists of what it says."""

    def __init__(self) -> None:
        self.policy = ScriptedPolicy()
        self.outcomes: list[Outcome] = []
        self.answers: list[Answer] = []
        self.thoughts: list[ThoughtSoFar] = []
        odometry = OdometryBuffer()
        for tick in range(20):
            odometry.add(
                STAMP_NS - (10 - tick) * 10_000_000,
                position=(tick * 0.05, 0.0, 0.0),
                quaternion_xyzw=(0.0, 0.0, 0.0, 1.0),
                linear=(5.0, 0.0, 0.0),
                angular=(0.0, 0.0, 0.0),
                frame_id="odom",
                child_frame_id="base_link",
            )
        assembler = ObservationAssembler(RIG, image_size=self.policy.info.image_size, workers=1)
        self.inference = Inference(
            self.policy,
            assembler,
            odometry,
            on_outcome=self.outcomes.append,
            on_thought=self.thoughts.append,
            on_answer=self.answers.append,
        )

    def attempt(
        self,
        generation: int = 1,
        mode: ThinkingMode = ThinkingMode.FAST,
        limits: ThinkingLimits = ThinkingLimits(),  # noqa: B008 (it is frozen)
        **images: Any,
    ) -> Outcome:
        """Submits one frame set and waits for its outcome."""
        good = RawImage("bgr8", 160, 90, 480, False, PIXELS)
        frames = {camera: SyncedFrame(camera, STAMP_NS, images.get(camera, good)) for camera in CAMERA_NAMES}
        count = len(self.outcomes)
        self.inference.submit(Job(generation, FrameSet(STAMP_NS, frames), DrivingCommand(), mode, None, limits))
        wait_until(lambda: len(self.outcomes) > count, "an outcome")
        return self.outcomes[-1]


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.policy.may_answer.set()
    bench.inference.stop(5.0)


def test_a_plan_comes_with_its_observation_and_stage_times_after_decoding(bench: Bench) -> None:
    outcome = bench.attempt()
    assert outcome.plan is not None
    assert outcome.observation is not None
    assert outcome.result == PlanStatus.OK
    assert list(outcome.stage_times) == ["decode", "network", "language"]


def test_a_thought_is_told_at_once_with_its_observation_and_then_only_now_and_then(bench: Bench) -> None:
    bench.policy.thoughts = [f"{count} words" for count in range(1000)]
    for attempt in (1, 2):
        outcome = bench.attempt()
        assert outcome.plan is not None
        mine = [thought for thought in bench.thoughts if thought.observation is outcome.observation]
        assert mine[0].reasoning == Reasoning("0 words", ThinkingMode.AUTO, ThinkingMode.SLOW, 0.75)
        assert mine[0].job is outcome.job, attempt
        assert len(mine) < 100


def test_the_limits_of_thinking_are_set_only_when_they_change(bench: Bench) -> None:
    wary = ThinkingLimits(slow_threshold=0.2)
    for limits in (ThinkingLimits(), wary, wary, ThinkingLimits()):
        bench.attempt(limits=limits)
    assert [call for call in bench.policy.calls if call.startswith("threshold")] == ["threshold 0.2", "threshold 0.5"]


def test_memory_is_dropped_for_a_new_generation_and_the_mode_set_only_when_it_changes(bench: Bench) -> None:
    bench.attempt(1)
    bench.attempt(1)
    bench.attempt(2, ThinkingMode.SLOW)
    assert bench.policy.calls == ["reset", "FAST", "plan", "plan", "reset", "SLOW", "plan"]


def test_a_picture_that_cannot_be_decoded_never_reaches_the_policy(bench: Bench) -> None:
    outcome = bench.attempt(cam_back=CompressedImage(b"\xff\xd8 no picture"))
    assert (outcome.plan, outcome.result) == (None, PlanStatus.BAD_IMAGE)
    assert "cam_back" in outcome.reason
    assert "plan" not in bench.policy.calls


@pytest.mark.parametrize(
    ("error", "result", "check"),
    [
        (PlanError(PlanFailure.BAD_TEXT, "no plan in it"), PlanStatus.BAD_TEXT, "bad_text"),
        (PlanError(PlanFailure.DEADLINE, "too late"), PlanStatus.DEADLINE, "deadline"),
        (MemoryError("full"), PlanStatus.OUT_OF_MEMORY, "out_of_memory"),
        (ZeroDivisionError("oops"), PlanStatus.INTERNAL, "internal"),
    ],
)
def test_every_failure_of_the_policy_has_its_result_and_the_next_attempt_plans(
    bench: Bench, error: Exception, result: int, check: str
) -> None:
    bench.policy.error = error
    outcome = bench.attempt()
    assert (outcome.plan, outcome.result, outcome.failed_checks) == (None, result, (check,))
    assert str(error) in outcome.reason
    bench.policy.error = None
    assert bench.attempt().plan is not None


def test_an_unexpected_error_drops_the_policys_memory_and_keeps_its_trace(bench: Bench) -> None:
    bench.policy.error = ZeroDivisionError("oops")
    assert "ZeroDivisionError" in bench.attempt().trace
    bench.policy.error = None
    bench.attempt()
    assert bench.policy.calls.count("reset") == 2


def test_a_trajectory_that_is_not_finite_is_no_plan(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = plan()
    broken.trajectory.xy[2, 0] = np.nan
    monkeypatch.setattr(bench.policy, "plan", lambda observation, deadline_ns, on_thought: broken)
    assert bench.attempt().result == PlanStatus.INTERNAL


def test_a_question_before_the_first_observation_says_so(bench: Bench) -> None:
    assert bench.inference.ask("What is ahead?")
    last = wait_until(lambda: next((a for a in bench.answers if a.done), None), "the end of an answer")
    assert "no observation yet" in last.error


def test_plans_go_on_between_the_pieces_of_an_answer(bench: Bench) -> None:
    bench.attempt()
    bench.inference.ask("What is ahead?")
    assert not bench.inference.ask("And behind?")
    wait_until(lambda: bench.answers, "the first piece")
    bench.policy.may_answer.set()
    assert bench.attempt().plan is not None
    wait_until(lambda: bench.answers[-1].done, "the end of the answer")
    assert "".join(answer.piece for answer in bench.answers) == "one two"
    assert bench.answers[-1].error == ""
    assert bench.inference.ask("And now?")


def test_a_cancelled_question_ends_after_the_piece_in_progress(bench: Bench) -> None:
    bench.attempt()
    bench.inference.ask("What is ahead?")
    wait_until(lambda: bench.answers, "the first piece")
    bench.inference.cancel_question()
    bench.policy.may_answer.set()
    wait_until(lambda: bench.answers[-1].done, "the end of the answer")
    assert bench.answers[-1].error == "cancelled"
    assert len(bench.answers) <= 3
