"""Makes AutoVLA policies: from a checkpoint folder, or small and random."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from opendrivevla_ros.language.action_codebook import ActionCodebook
from opendrivevla_ros.language.action_lattice import lattice
from opendrivevla_ros.language.action_tokens import ActionTokens
from opendrivevla_ros.policies import checkpoint
from opendrivevla_ros.policies.autovla import config as configs
from opendrivevla_ros.policies.autovla.config import ALL_CAMERAS, FRONT_CAMERAS, AutoVlaConfig
from opendrivevla_ros.policies.autovla.model import (
    CODEBOOK,
    AutoVlaModel,
    codebook_hash,
    load_codebook,
    load_model,
    random_model,
)
from opendrivevla_ros.policies.autovla.policy import AutoVlaPolicy
from opendrivevla_ros.policies.autovla.tokenizer import build_tokenizer
from opendrivevla_ros.policies.errors import CheckpointError
from opendrivevla_ros.policies.loading import (
    PlanningOptions,
    calibration_of,
    check_device,
    hash_of,
    leave_a_core,
    planning_options,
    read_tokenizer,
)


def from_folder(folder: Path, *, device: str, precision: str, seed: int, **options: Any) -> AutoVlaPolicy:
    """The policy of a checkpoint folder. Raises CheckpointError.

    options: fields of `PlanningOptions`, and `cameras`: 3 or 6 in place of the checkpoint's own.
    """
    cameras, planning = _options(options)
    check_device(device, precision)
    checkpoint.require(folder, CODEBOOK)
    codebook = load_codebook(folder / CODEBOOK)
    leave_a_core()
    model, weights_hash = load_model(folder)
    _look_through(model, cameras)
    tokenizer = read_tokenizer(folder, model.autovla_config.language.vocabulary_size)
    calibration = calibration_of(folder, weights_hash)
    return AutoVlaPolicy(
        model,
        tokenizer,
        codebook,
        weights_hash=weights_hash,
        device=device,
        precision=precision,
        seed=seed,
        options=planning,
        calibration=calibration,
    )


def random_small(*, device: str, precision: str, seed: int, **options: Any) -> AutoVlaPolicy:
    """The small preset with seeded random weights, to exercise the whole chain. It does not drive."""
    cameras, planning = _options(options)
    check_device(device, precision)
    leave_a_core()
    codebook = lattice()
    tokenizer = build_tokenizer(codebook)
    model = random_model(replace(small_config(tokenizer, codebook), model_id="autovla-small-random"), seed)
    _look_through(model, cameras)
    return AutoVlaPolicy(
        model,
        tokenizer,
        codebook,
        weights_hash=hash_of(model),
        device=device,
        precision=precision,
        seed=seed,
        options=planning,
    )


def small_config(tokenizer: Any, codebook: ActionCodebook) -> AutoVlaConfig:
    """The small preset for a tokenizer and the codebook whose actions it has."""
    return configs.small(
        len(tokenizer),
        int(tokenizer.eos_token_id),
        actions=len(codebook),
        first_action_id=ActionTokens(tokenizer, codebook).first_id,
        codebook_sha256=codebook_hash(codebook),
    )


def _options(options: dict[str, Any]) -> tuple[int | None, PlanningOptions]:
    planning = planning_options(PlanningOptions, "autovla", options, "cameras")
    cameras = options.get("cameras")
    if cameras not in (None, 3, 6):
        raise CheckpointError(f"cameras must be 3 or 6, not {cameras!r}")
    return cameras, planning


def _look_through(model: AutoVlaModel, cameras: int | None) -> None:
    """Has the model take the videos of three or six cameras; no weight depends on their number."""
    if cameras is not None:
        names = FRONT_CAMERAS if cameras == 3 else ALL_CAMERAS
        model.autovla_config = replace(model.autovla_config, cameras=names)
