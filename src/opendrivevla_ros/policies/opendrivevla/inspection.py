"""What a checkpoint folder holds, and what is wrong with it."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from opendrivevla_ros.policies import checkpoint
from opendrivevla_ros.policies.errors import CheckpointError
from opendrivevla_ros.policies.opendrivevla.config import OpenDriveVlaConfig
from opendrivevla_ros.policies.opendrivevla.loading import read_tokenizer
from opendrivevla_ros.policies.opendrivevla.model import empty_model, load_config


@dataclass(frozen=True)
class Inspection:
    """config: None where it cannot be read. files: bytes by name. parameters: by room (perception, projectors,
    language). dtypes: parameters by type. weights_hash: SHA-256 of the weights, empty without them. problems: one
    sentence each; none where the folder can be loaded.
    """

    config: OpenDriveVlaConfig | None
    files: dict[str, int]
    parameters: dict[str, int]
    dtypes: dict[str, int]
    weights_hash: str
    problems: tuple[str, ...]


def inspect(folder: Path) -> Inspection:
    """Looks at everything in a folder, also after the first problem. Raises CheckpointError if there is no folder."""
    checkpoint.require(folder)
    problems: list[str] = []
    entries: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
    weights_hash, config = "", None
    try:
        config = load_config(folder)
    except CheckpointError as error:
        problems.append(str(error))
    try:
        checkpoint.require(folder, checkpoint.WEIGHTS)
        weights_hash = checkpoint.sha256(folder / checkpoint.WEIGHTS)
        checkpoint.verified_hash(folder)
        entries = checkpoint.shapes(folder / checkpoint.WEIGHTS)
        if config is not None:
            expected = checkpoint.expected_shapes(empty_model(config))
            found = {name: shape for name, (_, shape) in entries.items()}
            checkpoint.check_keys(expected, found, str(folder / checkpoint.WEIGHTS))
    except CheckpointError as error:
        problems.append(str(error))
    if config is not None and config.language is not None:
        try:
            read_tokenizer(folder, config.language.vocabulary_size)
        except CheckpointError as error:
            problems.append(str(error))
    parameters: Counter[str] = Counter()
    dtypes: Counter[str] = Counter()
    for name, (dtype, shape) in entries.items():
        count = torch.Size(shape).numel()
        parameters[_room(name)] += count
        dtypes[str(dtype).removeprefix("torch.")] += count
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}
    return Inspection(config, files, dict(parameters), dict(dtypes), weights_hash, tuple(problems))


def _room(name: str) -> str:
    return "projectors" if ".mm_projector_" in name else name.split(".")[0]
