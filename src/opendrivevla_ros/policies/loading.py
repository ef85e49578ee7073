"""What loading any policy with a network takes: device, threads, tokenizer, calibration and options."""

import hashlib
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from opendrivevla_ros.language.quantisation import QuantisationError, require_int8
from opendrivevla_ros.language.small_tokenizer import load_tokenizer
from opendrivevla_ros.policies.errors import CheckpointError
from opendrivevla_ros.safety.uncertainty import Calibration, CalibrationError

MOST_SAMPLES = 64


@dataclass(frozen=True)
class PlanningOptions:
    """samples: plans drawn beside the greedy one, for the covariance. temperature: of those draws.

    Raises CheckpointError for what no plan can be drawn with.
    """

    samples: int = 3
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.samples, int) or not 0 <= self.samples <= MOST_SAMPLES:
            raise CheckpointError(f"samples must be a whole number from 0 to {MOST_SAMPLES}, not {self.samples!r}")
        if not self.temperature > 0:
            raise CheckpointError(f"temperature must be above 0, not {self.temperature!r}")


Options = TypeVar("Options", bound=PlanningOptions)


def planning_options(kind: type[Options], policy: str, options: dict[str, Any], *also: str) -> Options:
    """A policy's options from their names, without those of `also`. Raises CheckpointError for an unknown one."""
    known = [*(field.name for field in fields(kind)), *also]
    if unknown := sorted(set(options) - set(known)):
        raise CheckpointError(f"{policy} has no option {unknown[0]!r}; its options are {', '.join(known)}")
    return kind(**{name: value for name, value in options.items() if name not in also})


def check_device(device: str, precision: str) -> None:
    """Raises CheckpointError for a device that torch does not know or find, or that has no kernel for `precision`."""
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise CheckpointError(f"device {device!r} is not known; use cpu, cuda or cuda:N") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise CheckpointError(f"device {device!r} was asked for, but torch finds no CUDA device; use cpu")
    if precision == "int8":
        try:
            require_int8(device)
        except QuantisationError as error:
            raise CheckpointError(str(error)) from error


@dataclass(frozen=True)
class WeightBytes:
    """What a policy's weights take in memory: those of its language model, and all."""

    language: int
    whole: int


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


def hash_of(model: nn.Module) -> str:
    """SHA-256 in hex of weights that come from no file."""
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.contiguous().view(torch.uint8).numpy().data if tensor.dim() else tensor.numpy().tobytes())
    return digest.hexdigest()
