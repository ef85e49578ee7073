"""Makes OpenDriveVLA policies: from a checkpoint folder, or small and random."""

import hashlib
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from opendrivevla_ros.language.small_tokenizer import build_small_tokenizer, load_tokenizer
from opendrivevla_ros.policies.errors import CheckpointError
from opendrivevla_ros.policies.opendrivevla import config as configs
from opendrivevla_ros.policies.opendrivevla.model import load_config, load_model, random_model
from opendrivevla_ros.policies.opendrivevla.policy import OpenDriveVlaPolicy, PlanningOptions
from opendrivevla_ros.safety.uncertainty import Calibration, CalibrationError


def from_folder(folder: Path, *, device: str, precision: str, seed: int, **options: Any) -> OpenDriveVlaPolicy:
    """The policy of a checkpoint folder. Raises CheckpointError."""
    planning = _planning_options(options)
    check_device(device)
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


def calibration_of(folder: Path, weights_hash: str) -> Calibration | None:
    """That of the folder's weights. Raises CheckpointError for one that is broken, or of other weights."""
    try:
        calibration = Calibration.load(folder)
    except CalibrationError as error:
        raise CheckpointError(str(error)) from error
    if calibration is not None and calibration.weights_hash != weights_hash:
        raise CheckpointError(
            f"{folder}/calibration.json is of other weights ({calibration.weights_hash[:12]}); delete it or make it"
            " anew with `odv calibrate`"
        )
    return calibration


def random_small(*, device: str, precision: str, seed: int, **options: Any) -> OpenDriveVlaPolicy:
    """The small preset with seeded random weights, to exercise the whole chain. It does not drive."""
    planning = _planning_options(options)
    check_device(device)
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


def leave_a_core() -> None:
    """Has torch work on one core fewer than there are: decoding, DDS and other processes need one too.

    Threads of OpenMP spin while they wait for one that has lost its core: with both of two busy cores, the small
    model's p95 was 3.8 s, with one of them 0.13 s. OMP_NUM_THREADS wins where it is set.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) - 1))


def read_tokenizer(folder: Path, rows: int) -> Any:
    """The tokenizer in a checkpoint folder, for an embedding of `rows`. Raises CheckpointError."""
    if not (folder / "tokenizer.json").is_file():
        raise CheckpointError(f"{folder} lacks tokenizer.json")
    try:
        tokenizer = load_tokenizer(folder)
    except Exception as error:  # the tokenizers library raises bare Exceptions for a file that it cannot read
        raise CheckpointError(f"the tokenizer in {folder} cannot be read: {str(error).splitlines()[0]}") from error
    if len(tokenizer) > rows:
        raise CheckpointError(f"the tokenizer in {folder} has {len(tokenizer)} tokens, but the embedding {rows} rows")
    return tokenizer


def _planning_options(options: dict[str, Any]) -> PlanningOptions:
    known = [field.name for field in fields(PlanningOptions)]
    if unknown := sorted(set(options) - set(known)):
        raise CheckpointError(f"opendrivevla has no option {unknown[0]!r}; its options are {', '.join(known)}")
    planning = PlanningOptions(**options)
    if not isinstance(planning.samples, int) or not 0 <= planning.samples <= 64:
        raise CheckpointError(f"samples must be a whole number from 0 to 64, not {planning.samples!r}")
    if not planning.temperature > 0:
        raise CheckpointError(f"temperature must be above 0, not {planning.temperature!r}")
    return planning


def check_device(device: str) -> None:
    """Raises CheckpointError for a device that torch does not know or find."""
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise CheckpointError(f"device {device!r} is not known; use cpu, cuda or cuda:N") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise CheckpointError(f"device {device!r} was asked for, but torch finds no CUDA device; use cpu")


def hash_of(model: nn.Module) -> str:
    """SHA-256 in hex of weights that come from no file."""
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.contiguous().view(torch.uint8).numpy().data if tensor.dim() else tensor.numpy().tobytes())
    return digest.hexdigest()
