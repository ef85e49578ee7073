"""AutoVLA as a policy, tiny and random: whole plans of five seconds or reasons, whatever comes in."""

import re
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from policies.autovla.tiny import (
    PROPOSING,
    ticking,
    tiny_codebook,
    tiny_config,
    tiny_model,
    tiny_policy,
    tiny_tokenizer,
)
from policies.observations import make_ego, make_observation, make_rig, refused

from opendrivevla_ros.core.ego import Command, DrivingCommand
from opendrivevla_ros.core.geometry import planar_transform
from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.plan import PlanError, PlanFailure, Reasoning, ThinkingMode
from opendrivevla_ros.core.policy import ThinkingLimits
from opendrivevla_ros.language.action_tokens import ActionTokenError, ActionTokens
from opendrivevla_ros.perception.ego_query import EgoAnswer
from opendrivevla_ros.policies.autovla.config import ALL_CAMERAS
from opendrivevla_ros.policies.autovla.model import AutoVlaModel
from opendrivevla_ros.policies.autovla.policy import AutoVlaPolicy, PlanningOptions
from opendrivevla_ros.policies.autovla.prompt import FAST_WORDS, answer_text
from opendrivevla_ros.policies.errors import CheckpointError

ACTIONS = re.compile(r"<action_(\d+)>")


@pytest.fixture(scope="module")
def loaded() -> AutoVlaPolicy:
    torch.set_num_threads(1)
    return tiny_policy(thinking=ThinkingLimits(max_tokens=12, max_milliseconds=10**6))


@pytest.fixture
def policy(loaded: AutoVlaPolicy) -> AutoVlaPolicy:
    loaded.reset()
    loaded.set_thinking_mode(ThinkingMode.FAST)
    loaded.set_economy(False)
    return loaded


def with_picture(observation: Observation, camera: str, **changes: object) -> Observation:
    frames = [replace(frame, **changes) if frame.camera == camera else frame for frame in observation.frames]
    return replace(observation, frames=tuple(frames))


def actions_of(text: str) -> list[int]:
    return [int(number) for number in ACTIONS.findall(text)]


def test_a_plan_is_ten_points_that_its_ten_actions_lead_to(policy: AutoVlaPolicy) -> None:
    plan = policy.plan(make_observation())
    actions = actions_of(plan.raw_text)
    assert len(actions) == 10
    np.testing.assert_allclose(plan.trajectory.times, np.arange(1, 11) * 0.5)
    np.testing.assert_allclose(plan.trajectory.xy, tiny_codebook().decode(actions)[:, :2])
    assert (np.linalg.eigvalsh(plan.trajectory.covariance) > 0).all()
    assert 0 <= plan.confidence <= 1
    assert 0 < plan.doubt.token_probability < 1
    assert plan.doubt.spread > 0
    assert plan.agents == plan.map_elements == ()
    assert {"preprocess", "vision", "language_prefill", "thinking", "language_decode"} <= set(plan.stage_times)
    assert plan.token_counts["video"] == 3 * policy.config.video_tokens == 48
    assert plan.token_counts["generated"] == 10


def test_a_plan_goes_where_sight_proposes_as_nearly_as_its_errors_say() -> None:
    path = torch.tensor([[0.0, 2.0 * step] for step in range(1, 7)])  # in the lidar's frame, ahead
    off = []
    for error in (0.05, 50.0):
        model = tiny_model(sight_width=16, proposal_scales=((0.5, 0.5),) * 6)
        assert model.sight is not None
        answer = EgoAnswer(torch.zeros(1, 16), path[None], torch.full((1, 6, 2), 2 * error))
        model.sight.proposed = lambda cells, egos, answer=answer: answer  # type: ignore[method-assign, misc]
        plan = tiny_policy(model).plan(make_observation())
        off.append(np.abs(plan.trajectory.xy[:6] - np.outer(np.arange(1, 7), [2.0, 0.0])).max())
    assert off[0] < 0.3
    assert off[1] > 1.0


def test_a_plan_is_as_unsure_as_its_proposal_times_what_was_measured() -> None:
    model = tiny_model(sight_width=16, proposal_scales=((3.0, 0.5),) * 6)
    assert model.sight is not None
    path = torch.tensor([[0.0, 2.0 * step] for step in range(1, 7)])
    answer = EgoAnswer(torch.zeros(1, 16), path[None], torch.tensor([0.1, 2.0]).expand(1, 6, 2))  # to the side, ahead
    model.sight.proposed = lambda cells, egos: answer  # type: ignore[method-assign]
    policy = tiny_policy(model)
    policy.set_economy(True)  # no samples
    plan = policy.plan(make_observation())
    assert plan.doubt.expected_error == pytest.approx(np.hypot(0.3, 1.0))
    np.testing.assert_allclose(plan.trajectory.covariance[:6, 0, 0], 0.01 + 2 * 1.0**2, rtol=1e-5)
    np.testing.assert_allclose(plan.trajectory.covariance[:6, 1, 1], 0.01 + 2 * 0.3**2, rtol=1e-5)


def test_in_bfloat16_sight_still_proposes_in_float32() -> None:
    model = tiny_model(**PROPOSING)
    assert model.sight is not None
    proposed, paths = model.sight.proposed, []

    def noted(cells: torch.Tensor, egos: torch.Tensor) -> EgoAnswer:
        answer = proposed(cells, egos)
        paths.append(answer.paths)
        return answer

    model.sight.proposed = noted  # type: ignore[method-assign]
    tiny_policy(model, precision="bfloat16").plan(make_observation())
    assert [path.dtype for path in paths] == [torch.float32]
    assert not torch.equal(paths[0], paths[0].bfloat16().float())  # nor was it rounded on the way


def test_fast_and_slow_are_forced_and_written_in_their_templates(policy: AutoVlaPolicy) -> None:
    fast = policy.plan(make_observation())
    policy.set_thinking_mode(ThinkingMode.SLOW)
    slow = policy.plan(make_observation())
    assert fast.raw_text == answer_text("".join(written(fast.raw_text)))
    assert slow.raw_text == answer_text("".join(written(slow.raw_text)), slow.reasoning.text)
    assert (fast.reasoning.requested_mode, fast.reasoning.actual_mode) == (ThinkingMode.FAST, ThinkingMode.FAST)
    assert (slow.reasoning.requested_mode, slow.reasoning.actual_mode) == (ThinkingMode.SLOW, ThinkingMode.SLOW)
    assert fast.reasoning.text == FAST_WORDS
    assert fast.reasoning.slow_probability == slow.reasoning.slow_probability
    assert (fast.token_counts["thought"], slow.token_counts["thought"]) == (0, 12)
    assert len(slow.trajectory) == 10


def written(text: str) -> list[str]:
    return [match.group() for match in ACTIONS.finditer(text)]


def test_auto_follows_the_models_own_probability_past_the_threshold() -> None:
    model = tiny_model()
    probability = tiny_policy(model).plan(make_observation()).reasoning.slow_probability
    for threshold, actual in ((probability - 1e-4, ThinkingMode.SLOW), (probability + 1e-4, ThinkingMode.FAST)):
        policy = tiny_policy(model, thinking=ThinkingLimits(slow_threshold=threshold, max_tokens=3))
        policy.set_thinking_mode(ThinkingMode.AUTO)
        reasoning = policy.plan(make_observation()).reasoning
        assert reasoning.requested_mode is ThinkingMode.AUTO
        assert reasoning.actual_mode is actual


def test_a_thought_streams_before_its_plan_comes(policy: AutoVlaPolicy) -> None:
    policy.set_thinking_mode(ThinkingMode.SLOW)
    told: list[Reasoning] = []
    plan = policy.plan(make_observation(), on_thought=told.append)
    assert len(told) > 1
    assert told[-1] == plan.reasoning
    assert len({len(reasoning.text) for reasoning in told}) == len(told)
    assert all(plan.reasoning.text.startswith(reasoning.text) for reasoning in told)


def test_a_budget_in_milliseconds_closes_a_thought_that_still_answers() -> None:
    limits = ThinkingLimits(max_tokens=200, max_milliseconds=100)
    policy = tiny_policy(thinking=limits, clock=ticking(10))
    policy.set_thinking_mode(ThinkingMode.SLOW)
    plan = policy.plan(make_observation())
    assert plan.token_counts["thought"] == 9
    assert len(plan.trajectory) == 10


def test_a_thought_that_never_closes_leaves_room_for_the_plan() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.lm_head.weight[tiny_tokenizer().eos_token_id] = 0.0  # the one word that would end it is never likeliest
    policy = tiny_policy(model, thinking=ThinkingLimits(max_tokens=10**6, max_milliseconds=10**6))
    policy.set_thinking_mode(ThinkingMode.SLOW)
    plan = policy.plan(make_observation())
    assert plan.token_counts["thought"] > 500
    assert len(actions_of(plan.raw_text)) == 10


def test_saving_neither_thinks_nor_samples_whatever_was_asked_for(policy: AutoVlaPolicy) -> None:
    policy.set_thinking_mode(ThinkingMode.SLOW)
    policy.set_economy(True)
    plan = policy.plan(make_observation())
    assert plan.doubt.spread is None
    assert plan.reasoning.actual_mode is ThinkingMode.FAST
    assert plan.reasoning.requested_mode is ThinkingMode.SLOW


@pytest.mark.parametrize("mode", ThinkingMode)
def test_the_same_drive_gives_the_same_plans_from_the_same_seed(mode: ThinkingMode) -> None:
    drives = []
    for _ in range(2):
        policy = tiny_policy(seed=3, thinking=ThinkingLimits(max_tokens=5))
        policy.set_thinking_mode(mode)
        drives.append([policy.plan(make_observation(0.5 * index)) for index in range(3)])
    for first, second in zip(*drives, strict=True):
        assert first.raw_text == second.raw_text
        np.testing.assert_array_equal(first.trajectory.covariance, second.trajectory.covariance)


def test_a_greedy_plan_does_not_depend_on_what_was_sampled_beside_it() -> None:
    model = tiny_model()
    alone = tiny_policy(model, options=PlanningOptions(samples=0)).plan(make_observation())
    beside = tiny_policy(model, options=PlanningOptions(samples=5), seed=9).plan(make_observation())
    assert alone.raw_text == beside.raw_text
    np.testing.assert_allclose(alone.doubt.token_probability, beside.doubt.token_probability, rtol=1e-4)


# ------------------------------------------------------------------ what it sees


def drive(policy: AutoVlaPolicy, *seconds: float) -> np.ndarray:
    """The probabilities of the last plan, which change with whatever is seen."""
    for when in seconds:
        plan = policy.plan(make_observation(when))
    return np.array([plan.reasoning.slow_probability, plan.doubt.token_probability])


def test_pictures_of_the_past_are_seen_and_forgotten_at_a_reset(policy: AutoVlaPolicy) -> None:
    alone = drive(policy, 1.5)
    policy.reset()
    followed = drive(policy, 0.0, 0.5, 1.0, 1.5)
    assert not np.allclose(alone, followed)
    policy.reset()
    np.testing.assert_allclose(drive(policy, 1.5), alone, rtol=1e-6)


def test_only_pictures_of_the_last_one_and_a_half_seconds_count(policy: AutoVlaPolicy) -> None:
    short = drive(policy, 1.0, 1.5, 2.0, 2.5)
    policy.reset()
    np.testing.assert_allclose(drive(policy, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5), short, rtol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        lambda o: replace(o, ego=replace(o.ego, base_to_world=planar_transform(300.0, 50.0, 0.0))),
        lambda o: replace(o, ego=replace(o.ego, world_frame="map")),
    ],
    ids=["jump", "other_world_frame"],
)
def test_a_past_that_this_observation_does_not_follow_is_dropped(policy: AutoVlaPolicy, change) -> None:
    observation = change(make_observation(0.5))
    alone = policy.plan(observation).reasoning.slow_probability
    policy.reset()
    policy.plan(make_observation(0.0))
    assert policy.plan(observation).reasoning.slow_probability == pytest.approx(alone, rel=1e-6)


def test_three_cameras_are_blind_to_the_others_and_six_are_not() -> None:
    black = np.zeros((225, 400, 3), np.uint8)
    seen, dark = make_observation(), with_picture(make_observation(), "cam_back", image=black)
    for cameras, blind in ((None, True), (ALL_CAMERAS, False)):
        model = tiny_model() if cameras is None else tiny_model(cameras=cameras)
        first, second = (tiny_policy(model).plan(one).reasoning.slow_probability for one in (seen, dark))
        assert (first == second) is blind
    assert tiny_policy(tiny_model(cameras=ALL_CAMERAS)).plan(seen).token_counts["video"] == 96


def test_every_camera_of_three_is_looked_at(policy: AutoVlaPolicy) -> None:
    found = set()
    for camera in ("", *policy.config.cameras):
        policy.reset()
        observation = with_picture(make_observation(), camera, image=np.zeros((225, 400, 3), np.uint8))
        found.add(policy.plan(observation).reasoning.slow_probability)
    assert len(found) == 4


def test_an_observation_without_a_camera_that_is_needed_is_refused_and_forgotten(policy: AutoVlaPolicy) -> None:
    alone = drive(policy, 0.5)
    policy.reset()
    whole = make_observation(0.0)
    missing = replace(whole, frames=tuple(frame for frame in whole.frames if frame.camera != "cam_front_left"))
    refused(policy, missing, PlanFailure.BAD_OBSERVATION, "no picture of cam_front_left")
    np.testing.assert_allclose(drive(policy, 0.5), alone, rtol=1e-6)


def test_a_camera_that_it_does_not_need_may_be_missing(policy: AutoVlaPolicy) -> None:
    whole = make_observation()
    fewer = replace(whole, frames=tuple(frame for frame in whole.frames if frame.camera.startswith("cam_front")))
    assert len(policy.plan(fewer).trajectory) == 10


def test_a_blank_camera_is_a_black_picture_now_and_no_picture_later(policy: AutoVlaPolicy) -> None:
    black = np.zeros((225, 400, 3), np.uint8)
    blank = with_picture(make_observation(0.5), "cam_front", image=black, blank=True, stamp_ns=0)
    dark = with_picture(make_observation(0.5), "cam_front", image=black)
    found = []
    for now in (blank, dark):
        policy.reset()
        policy.plan(make_observation(0.0))
        found.append([policy.plan(now).reasoning.slow_probability])
        found[-1].append(policy.plan(make_observation(1.0)).reasoning.slow_probability)
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    assert found[0][1] != pytest.approx(found[1][1], rel=1e-6)


def test_the_command_and_the_drivers_words_are_read(policy: AutoVlaPolicy) -> None:
    found = set()
    for command in (DrivingCommand(), DrivingCommand(Command.TURN_LEFT), DrivingCommand(text="stop at the kiosk")):
        policy.reset()
        plan = policy.plan(replace(make_observation(), command=command))
        found.add(plan.reasoning.slow_probability)
    assert len(found) == 3


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize("size", [(1200, 900), (100, 56), (1, 1)])
def test_a_picture_that_does_not_fit_its_calibration_is_refused(policy: AutoVlaPolicy, size: tuple[int, int]) -> None:
    image = np.zeros((size[1], size[0], 3), np.uint8)
    observation = with_picture(make_observation(), "cam_front_right", image=image)
    refused(policy, observation, PlanFailure.BAD_OBSERVATION, "the picture of cam_front_right is")


@pytest.mark.parametrize(
    "image",
    [np.full((225, 400, 3), np.nan, np.float32), np.zeros((225, 400), np.uint8), np.zeros((0, 0, 3), np.uint8), None],
    ids=["nan_pixels", "grey", "empty", "none"],
)
def test_a_picture_that_is_not_bytes_of_bgr_is_refused(policy: AutoVlaPolicy, image: object) -> None:
    observation = with_picture(make_observation(), "cam_front", image=image)
    refused(policy, observation, PlanFailure.BAD_OBSERVATION, "picture of cam_front")


def test_an_ego_state_that_no_car_has_is_refused(policy: AutoVlaPolicy) -> None:
    for velocity, message in (([np.nan, 0, 0], "not finite"), ([500.0, 0, 0], "more than the 100 m/s")):
        ego = replace(make_ego(), velocity=np.array(velocity))
        refused(policy, replace(make_observation(), ego=ego), PlanFailure.BAD_OBSERVATION, message)


def test_a_rig_that_does_not_fit_is_refused(policy: AutoVlaPolicy) -> None:
    rig = make_rig()
    cameras = (replace(rig.cameras[0], camera_to_base=rig["cam_back"].camera_to_base), *rig.cameras[1:])
    observation = make_observation(rig=replace(rig, cameras=cameras))
    refused(policy, observation, PlanFailure.BAD_OBSERVATION, "cam_front: looks to")


@pytest.mark.parametrize("text", ["<|im_end|>", "a\nb", "x" * 501])
def test_words_that_the_prompt_must_not_carry_are_refused(policy: AutoVlaPolicy, text: str) -> None:
    observation = replace(make_observation(), command=DrivingCommand(text=text))
    refused(policy, observation, PlanFailure.BAD_INSTRUCTION, "the instruction ")


def test_a_deadline_that_passes_ends_the_plan(policy: AutoVlaPolicy) -> None:
    with pytest.raises(PlanError) as caught:
        policy.plan(make_observation(), deadline_ns=time.monotonic_ns())
    assert caught.value.failure is PlanFailure.DEADLINE


def test_a_deadline_that_passes_within_a_thought_ends_the_plan(policy: AutoVlaPolicy) -> None:
    policy.set_thinking_mode(ThinkingMode.SLOW)
    told: list[Reasoning] = []
    deadline_ns = time.monotonic_ns() + 2_000_000_000  # the first words take far less

    def listen(reasoning: Reasoning) -> None:
        told.append(reasoning)
        while time.monotonic_ns() < deadline_ns:
            pass

    with pytest.raises(PlanError) as caught:
        policy.plan(make_observation(), deadline_ns=deadline_ns, on_thought=listen)
    assert caught.value.failure is PlanFailure.DEADLINE
    assert len(told) == 1


def test_weights_that_are_not_finite_give_a_reason_and_no_plan() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.model.visual.merger.mlp[2].bias.fill_(float("nan"))
    refused(tiny_policy(model), make_observation(), PlanFailure.INTERNAL, "not finite")


def test_ids_that_are_no_actions_are_refused() -> None:
    actions = ActionTokens(tiny_tokenizer(), tiny_codebook())
    for token in (actions.first_id - 1, actions.stop_id):
        with pytest.raises(ActionTokenError, match="is no action"):
            actions.actions([token])


def test_a_tokenizer_or_codebook_of_another_model_makes_no_policy() -> None:
    other = AutoVlaModel(tiny_config(codebook_sha256="0" * 64))
    with pytest.raises(CheckpointError, match="would mean other motions"):
        tiny_policy(other)


# ------------------------------------------------------------------ answers


def test_an_answer_comes_in_pieces_and_changes_no_plan(policy: AutoVlaPolicy) -> None:
    undisturbed = drive(policy, 0.0, 0.5)
    policy.reset()
    drive(policy, 0.0)
    pieces = list(policy.answer(make_observation(0.5), "What is ahead?"))
    assert "".join(pieces)
    np.testing.assert_allclose(drive(policy, 0.5), undisturbed, rtol=1e-6)


@pytest.mark.parametrize("question", ["", "  ", "<think>", "x" * 501])
def test_a_question_that_cannot_be_asked_is_refused(policy: AutoVlaPolicy, question: str) -> None:
    with pytest.raises(PlanError) as caught:
        list(policy.answer(make_observation(), question))
    assert caught.value.failure is PlanFailure.BAD_INSTRUCTION
