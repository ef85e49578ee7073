"""A blind policy: its language model is told of the ego motion and of nothing that the cameras saw."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from policies.observations import make_observation

from opendrivevla_ros.policies.opendrivevla.policy import OpenDriveVlaPolicy
from opendrivevla_ros.policies.registry import load_policy


@pytest.fixture(scope="module")
def blind() -> Iterator[OpenDriveVlaPolicy]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load_policy("opendrivevla-small-random", samples=0, blind=True, seed=3)  # with most seeds it has no answer
    torch.set_num_threads(threads)


def test_a_blind_plan_reads_no_token_of_the_scene_and_still_tells_what_perception_saw(blind) -> None:
    plan = blind.plan(make_observation())
    assert [plan.token_counts[kind] for kind in ("scene", "agents", "map")] == [0, 0, 0]
    assert plan.agents
    assert "Proposed trajectory" not in plan.prompt


def test_a_blind_plan_and_answer_do_not_depend_on_the_pictures(blind) -> None:
    observation = make_observation()
    plan, answer = blind.plan(observation), list(blind.answer(observation, "what is ahead?"))
    blind.reset()
    dark = make_observation()
    for picture in dark.frames:
        picture.image[:] = 0
    assert blind.plan(dark).raw_text == plan.raw_text
    assert list(blind.answer(dark, "what is ahead?")) == answer


def test_a_seeing_plan_reads_the_scene() -> None:
    seeing = load_policy("opendrivevla-small-random", samples=0)
    observation = make_observation()
    plan = seeing.plan(observation)
    assert min(plan.token_counts[kind] for kind in ("scene", "agents", "map")) > 0
    assert np.isfinite(plan.trajectory.xy).all()
