"""An OpenDriveVLA that thinks before its plan, with random weights: modes, budgets, and one that does not think."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from policies.autovla.tiny import ticking
from policies.observations import make_observation, refused

from opendrivevla_ros.core.installation import install_file
from opendrivevla_ros.core.plan import PlanError, PlanFailure, Reasoning, ThinkingMode
from opendrivevla_ros.core.policy import ThinkingLimits
from opendrivevla_ros.language.small_tokenizer import build_small_tokenizer
from opendrivevla_ros.language.trajectory_text import TRAJECTORY_START, parse_trajectory
from opendrivevla_ros.policies.opendrivevla import frames
from opendrivevla_ros.policies.opendrivevla.config import parse_config, save_config, small
from opendrivevla_ros.policies.opendrivevla.model import OpenDriveVlaModel, random_model, save_model
from opendrivevla_ros.policies.opendrivevla.policy import OpenDriveVlaPolicy, PlanningOptions
from opendrivevla_ros.policies.opendrivevla.thinking import TEMPLATE, words_before_plan
from opendrivevla_ros.policies.registry import load_policy

TOKENIZER = build_small_tokenizer()
STOP = int(TOKENIZER.eos_token_id)
UNHURRIED = 10**6  # milliseconds


def make_model(*, thinks: bool = True) -> OpenDriveVlaModel:
    """The small preset, with a language model whose random weights are large enough to make its text lively."""
    model = random_model(replace(small(len(TOKENIZER), STOP), thinks=thinks), seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.language.named_parameters():
            if parameter.dim() == 2:
                scale = 0.5 if "embed" in name else 1.5 / parameter.shape[1] ** 0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return model


def make_policy(
    mode: ThinkingMode, *, thinks: bool = True, clock: Callable[[], int] = time.monotonic_ns, **limits: float
) -> OpenDriveVlaPolicy:
    torch.set_num_threads(1)
    policy = OpenDriveVlaPolicy(make_model(thinks=thinks), TOKENIZER, options=PlanningOptions(samples=2), clock=clock)
    policy.set_thinking_mode(mode)
    policy.set_thinking_limits(ThinkingLimits(**{"max_tokens": 12, "max_milliseconds": UNHURRIED, **limits}))
    return policy


def test_each_mode_writes_its_words_and_then_a_whole_plan() -> None:
    observation = make_observation()
    for mode, thought in ((ThinkingMode.FAST, 0), (ThinkingMode.SLOW, 12)):
        policy = make_policy(mode)
        assert policy.info.thinks
        plan = policy.plan(observation)
        assert (plan.reasoning.requested_mode, plan.reasoning.actual_mode) == (mode, mode)
        words, start, points = plan.raw_text.partition(TRAJECTORY_START)
        expected = frames.lidar_path_to_base(parse_trajectory(start + points), observation.rig.lidar_to_base)
        np.testing.assert_allclose(plan.trajectory.xy, expected)
        assert words == words_before_plan(plan.reasoning.text if thought else None)
        assert plan.token_counts["thought"] == thought
        assert plan.token_counts["forced"] > len(TOKENIZER.encode(words, add_special_tokens=False)) - thought
        assert 0 < plan.reasoning.slow_probability < 1
        assert list(plan.stage_times)[-4:] == ["language_prefill", "thinking", "language_decode", "rest"]
        assert (np.linalg.eigvalsh(plan.trajectory.covariance) > 0).all()


def test_without_a_thought_the_words_of_the_reasoning_are_the_plan() -> None:
    plan = make_policy(ThinkingMode.FAST).plan(make_observation())
    assert plan.reasoning.text.startswith(TRAJECTORY_START)
    assert plan.raw_text == TEMPLATE.fast + plan.reasoning.text


def test_auto_thinks_where_the_models_own_probability_reaches_the_threshold() -> None:
    probability = make_policy(ThinkingMode.FAST).plan(make_observation()).reasoning.slow_probability
    for threshold, actual in ((probability, ThinkingMode.SLOW), (probability + 1e-4, ThinkingMode.FAST)):
        reasoning = make_policy(ThinkingMode.AUTO, slow_threshold=threshold).plan(make_observation()).reasoning
        assert reasoning.requested_mode is ThinkingMode.AUTO
        assert reasoning.actual_mode is actual
        assert reasoning.slow_probability == pytest.approx(probability)


def test_a_thought_is_told_as_it_grows() -> None:
    told: list[Reasoning] = []
    plan = make_policy(ThinkingMode.SLOW).plan(make_observation(), on_thought=told.append)
    assert len(told) > 1
    assert told[-1] == plan.reasoning
    assert all(after.text.startswith(before.text) for before, after in pairwise(told))


def test_a_thought_ends_at_its_milliseconds_and_the_plan_still_comes() -> None:
    policy = make_policy(ThinkingMode.SLOW, max_tokens=200, max_milliseconds=100, clock=ticking(10))
    plan = policy.plan(make_observation())
    assert plan.token_counts["thought"] == 9
    assert len(plan.trajectory) == 6


def test_a_thought_without_end_leaves_room_for_the_plan() -> None:
    model = make_model()
    stops = [STOP, TOKENIZER.convert_tokens_to_ids(TRAJECTORY_START)]
    with torch.no_grad():  # what would end a thought has a logit of 0, and of a thousand others one is above
        model.language.model.embed_tokens.weight[stops] = 0.0
    policy = OpenDriveVlaPolicy(model, TOKENIZER, options=PlanningOptions(samples=2))
    policy.set_thinking_mode(ThinkingMode.SLOW)
    policy.set_thinking_limits(ThinkingLimits(max_tokens=10**6, max_milliseconds=UNHURRIED))
    plan = policy.plan(make_observation())
    positions = model.config.language.max_positions
    assert plan.token_counts["thought"] > 100
    assert plan.token_counts["prompt"] + plan.token_counts["thought"] < positions
    assert len(plan.trajectory) == 6


def test_a_prompt_that_leaves_no_room_for_the_words_around_a_thought_is_refused(monkeypatch) -> None:
    policy = make_policy(ThinkingMode.SLOW)
    monkeypatch.setattr(policy, "_positions", 200)
    refused(policy, make_observation(), PlanFailure.BAD_INSTRUCTION, "the model takes")


def test_who_saves_does_not_think_and_a_deadline_ends_a_thought_without_a_plan() -> None:
    policy = make_policy(ThinkingMode.SLOW)
    policy.set_economy(True)
    assert policy.plan(make_observation()).reasoning.actual_mode is ThinkingMode.FAST
    policy.set_economy(False)
    deadline_ns = time.monotonic_ns() + 2_000_000_000  # the first words take far less

    def listen(reasoning: Reasoning) -> None:
        while time.monotonic_ns() < deadline_ns:
            pass

    with pytest.raises(PlanError) as caught:
        policy.plan(make_observation(), deadline_ns=deadline_ns, on_thought=listen)
    assert caught.value.failure is PlanFailure.DEADLINE


# ------------------------------------------------------------------ one that does not think


def test_who_does_not_think_plans_fast_whatever_is_asked_and_has_no_probability() -> None:
    told: list[Reasoning] = []
    plans = []
    for mode in ThinkingMode:
        policy = make_policy(mode, thinks=False)
        assert not policy.info.thinks
        plans.append(policy.plan(make_observation(), on_thought=told.append))
        assert plans[-1].reasoning == Reasoning(plans[-1].raw_text, mode, ThinkingMode.FAST, None)
        assert "thinking" not in plans[-1].stage_times
    assert len({plan.raw_text for plan in plans}) == 1
    assert not told
    assert policy.info.objection(ThinkingMode.SLOW).startswith("opendrivevla-small does not think before it plans")
    assert not policy.info.objection(ThinkingMode.AUTO)
    assert not replace(policy.info, thinks=True).objection(ThinkingMode.SLOW)


def test_a_configuration_from_before_there_was_thinking_does_not_think(tmp_path: Path) -> None:
    shipped = json.loads(install_file("checkpoints/small/config.json").read_text())
    shipped.pop("thinks", None)
    assert not parse_config(shipped).thinks
    thinking = replace(parse_config(shipped), thinks=True)
    save_config(thinking, tmp_path / "config.json")
    assert parse_config(json.loads((tmp_path / "config.json").read_text())) == thinking


def test_a_checkpoint_folder_says_whether_it_thinks(tmp_path: Path) -> None:
    save_model(make_model(), tmp_path, card="random")
    TOKENIZER.save_pretrained(str(tmp_path))
    policy = load_policy(tmp_path, samples=0)
    assert policy.info.thinks
    policy.set_thinking_mode(ThinkingMode.SLOW)
    policy.set_thinking_limits(ThinkingLimits(max_tokens=3, max_milliseconds=UNHURRIED))
    assert policy.plan(make_observation()).token_counts["thought"] == 3
