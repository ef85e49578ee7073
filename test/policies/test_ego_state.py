"""The ego-state-only policy and its folder."""

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from policies.observations import make_observation

from opendrivevla_ros.core.ego import Command, DrivingCommand
from opendrivevla_ros.core.plan import PlanError, PlanFailure
from opendrivevla_ros.policies.ego_state import (
    INPUTS,
    EgoStateConfig,
    EgoStateNetwork,
    EgoStatePolicy,
    ego_numbers,
    save_ego_state,
)
from opendrivevla_ros.policies.registry import CheckpointError, kind_of, load_policy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    config = EgoStateConfig(hidden_size=8)
    save_ego_state(EgoStateNetwork(config), config, tmp_path / "ego", card="A card.\n")
    return tmp_path / "ego"


def test_a_saved_folder_is_loaded_by_the_registry_and_plans(folder: Path) -> None:
    assert kind_of(folder) == "ego_state"
    policy = load_policy(folder)
    assert isinstance(policy, EgoStatePolicy)
    assert policy.info.trained
    assert len(policy.info.weights_hash) == 64
    plan = policy.plan(make_observation())
    assert plan.trajectory.xy.shape == (6, 2)
    np.testing.assert_allclose(plan.trajectory.times, [0.5, 1.0, 1.5, 2.0, 2.5, 3.0])
    np.testing.assert_array_equal(load_policy(folder).plan(make_observation()).trajectory.xy, plan.trajectory.xy)
    assert "no pictures" in "".join(policy.answer(make_observation(), "what is there?"))


def test_the_command_and_the_motion_change_the_plan_and_the_pictures_do_not(folder: Path) -> None:
    policy, observation = load_policy(folder), make_observation()
    plan = policy.plan(observation).trajectory.xy
    left = replace(observation, command=DrivingCommand(Command.TURN_LEFT, "", False))
    assert not np.allclose(policy.plan(left).trajectory.xy, plan)
    assert not np.allclose(policy.plan(make_observation(speed=9.0)).trajectory.xy, plan)
    np.testing.assert_array_equal(policy.plan(replace(observation, frames=())).trajectory.xy, plan)


def test_the_network_gets_every_number_once() -> None:
    ego = make_observation().ego
    numbers = ego_numbers(ego, Command.TURN_RIGHT)
    assert numbers.shape == (INPUTS,)
    assert numbers[-3:].tolist() == [0.0, 0.0, 1.0]
    np.testing.assert_array_equal(numbers[:12].reshape(4, 3), ego.history)


def test_what_cannot_be_planned_has_a_reason(folder: Path) -> None:
    policy, observation = load_policy(folder), make_observation()
    with pytest.raises(PlanError, match="had passed") as late:
        policy.plan(observation, time.monotonic_ns() - 1)
    assert late.value.failure is PlanFailure.DEADLINE
    broken = replace(observation, ego=replace(observation.ego, steering=np.nan))
    with pytest.raises(PlanError, match="not finite") as wrong:
        policy.plan(broken)
    assert wrong.value.failure is PlanFailure.BAD_OBSERVATION


def test_a_folder_that_was_changed_or_lacks_something_is_refused(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="ego_state takes no options, but got samples"):
        load_policy(folder, samples=1)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 9}))
    with pytest.raises(CheckpointError, match=r"shape \[8, 21\], but the configuration needs \[9, 21\]"):
        load_policy(folder)
    (folder / "config.json").write_text(json.dumps({**config, "layers": 9}))
    with pytest.raises(CheckpointError, match="unknown keys"):
        load_policy(folder)
    (folder / "config.json").write_text(json.dumps(config))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match="truncated or was changed"):
        load_policy(folder)


def test_kinds_are_told_without_loading(folder: Path, tmp_path: Path) -> None:
    assert kind_of("constant_velocity") == "constant_velocity"
    assert kind_of("opendrivevla-small-random") == "opendrivevla"
    assert kind_of(tmp_path / "nowhere") == "opendrivevla"
    (folder / "config.json").write_text("[]")
    assert kind_of(folder) == "opendrivevla"
