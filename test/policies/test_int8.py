"""precision int8 of both policies: they plan and answer, their language model is small, and refusals are sentences."""

import sys
from contextlib import suppress

import numpy as np
import pytest
from policies.observations import make_observation

from opendrivevla_ros.core.plan import PlanError
from opendrivevla_ros.policies.errors import CheckpointError
from opendrivevla_ros.policies.registry import RANDOM, RANDOM_AUTOVLA, SHIPPED, load_policy


@pytest.mark.parametrize("name", [RANDOM, RANDOM_AUTOVLA, SHIPPED])
def test_the_language_model_takes_at_most_55_percent_of_bfloat16_and_28_of_float32(name: str) -> None:
    found = {
        precision: load_policy(name, precision=precision).weight_bytes for precision in ("float32", "bfloat16", "int8")
    }
    assert found["int8"].language <= 0.55 * found["bfloat16"].language
    assert found["int8"].language <= 0.28 * found["float32"].language
    others = {precision: one.whole - one.language for precision, one in found.items()}
    assert others["int8"] == others["bfloat16"] > 0


@pytest.mark.parametrize("name", [RANDOM, RANDOM_AUTOVLA])
def test_it_plans_with_samples_and_answers(name: str) -> None:
    policy = load_policy(name, precision="int8", samples=2)
    plan = policy.plan(make_observation())
    assert np.isfinite(plan.trajectory.xy).all()
    assert (np.linalg.eigvalsh(plan.trajectory.covariance) > 0).all()
    with suppress(PlanError):  # random weights may end a text before its first word
        assert "".join(policy.answer(make_observation(), "what is ahead?"))


def test_the_shipped_policy_plans_nearly_as_in_full_precision() -> None:
    full, int8 = (load_policy(SHIPPED, precision=precision, samples=0) for precision in ("float32", "int8"))
    observation = make_observation()
    apart = full.plan(observation).trajectory.xy - int8.plan(observation).trajectory.xy
    assert np.hypot(*apart.T).max() < 2.0


def test_an_unknown_precision_is_refused_with_the_known_ones() -> None:
    with pytest.raises(CheckpointError, match="'int4' is not supported; choose one of float32, bfloat16, int8"):
        load_policy(RANDOM, precision="int4")


@pytest.mark.parametrize("name", [RANDOM, RANDOM_AUTOVLA, SHIPPED])
def test_a_device_without_a_kernel_is_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match=r"'int8' has no kernel on device 'meta' .*; use device cpu, or "):
        load_policy(name, precision="int8", device="meta")


def test_without_torchao_it_is_refused_and_other_precisions_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(CheckpointError, match=r"needs torchao, which cannot be imported .*pip install"):
        load_policy(RANDOM, precision="int8")
    assert load_policy(RANDOM, precision="bfloat16").info.model_id == "opendrivevla-small-random"
