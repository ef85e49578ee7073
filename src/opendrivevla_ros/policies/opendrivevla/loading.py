"""Makes OpenDriveVLA policies: from a checkpoint folder, or small and random."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from opendrivevla_ros.language.small_tokenizer import build_small_tokenizer
from opendrivevla_ros.policies.errors import CheckpointError
from opendrivevla_ros.policies.loading import (
    calibration_of,
    check_device,
    hash_of,
    leave_a_core,
    planning_options,
    read_tokenizer,
)
from opendrivevla_ros.policies.opendrivevla import config as configs
from opendrivevla_ros.policies.opendrivevla.model import load_config, load_model, random_model
from opendrivevla_ros.policies.opendrivevla.policy import OpenDriveVlaPolicy, PlanningOptions


def from_folder(folder: Path, *, device: str, precision: str, seed: int, **options: Any) -> OpenDriveVlaPolicy:
    """The policy of a checkpoint folder. Raises CheckpointError."""
    planning = planning_options(PlanningOptions, "opendrivevla", options)
    check_device(device, precision)
    config = load_config(folder)
    if config.language is None:
        raise CheckpointError(f"{folder} holds perception alone, which cannot plan; import a whole OpenDriveVLA")
    tokenizer = read_tokenizer(folder, config.language.vocabulary_size)
    leave_a_core()
    model, weights_hash = load_model(folder)
    calibration = calibration_of(folder, weights_hash)
    return OpenDriveVlaPolicy(
        model,
        tokenizer,
        weights_hash=weights_hash,
        device=device,
        precision=precision,
        seed=seed,
        options=planning,
        calibration=calibration,
    )


def random_small(*, device: str, precision: str, seed: int, **options: Any) -> OpenDriveVlaPolicy:
    """The small preset with seeded random weights, to exercise the whole chain. It does not drive."""
    planning = planning_options(PlanningOptions, "opendrivevla", options)
    check_device(device, precision)
    leave_a_core()
    tokenizer = build_small_tokenizer()
    config = configs.small(len(tokenizer), int(tokenizer.eos_token_id))
    model = random_model(replace(config, model_id="opendrivevla-small-random"), seed)
    return OpenDriveVlaPolicy(
        model,
        tokenizer,
        weights_hash=hash_of(model),
        device=device,
        precision=precision,
        seed=seed,
        options=planning,
    )
