"""What a checkpoint folder holds, and what is wrong with it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import torch

from opendrivevla_ros.policies import checkpoint
from opendrivevla_ros.policies.errors import CheckpointError
from opendrivevla_ros.policies.loading import read_tokenizer
from opendrivevla_ros.policies.opendrivevla.config import OpenDriveVlaConfig
from opendrivevla_ros.policies.opendrivevla.model import empty_model, load_config


class Described(Protocol):
    """A checkpoint's configuration, of whatever policy."""

    @property
    def model_id(self) -> str: ...
    @property
    def trained(self) -> bool: ...


Config = TypeVar("Config", bound=Described)


@dataclass(frozen=True)
class Inspection:
    """config: None where it cannot be read. files: bytes by name. parameters: by room (perception, projectors,
    language). dtypes: parameters by type. weights_hash: SHA-256 of the weights, empty without them. problems: one
    sentence each; none where the folder can be loaded.
    """

    config: Described | None
    files: dict[str, int]
    parameters: dict[str, int]
    dtypes: dict[str, int]
    weights_hash: str
    problems: tuple[str, ...]


def inspect(folder: Path) -> Inspection:
    """Looks at everything in a folder, also after the first problem. Raises CheckpointError if there is no folder."""
    return inspected(folder, load_config=load_config, shapes_of=_shapes, room_of=_room, other_problems=_vocabulary)


def inspected(
    folder: Path,
    *,
    load_config: Callable[[Path], Config],
    shapes_of: Callable[[Config], dict[str, tuple[int, ...]]],
    room_of: Callable[[str], str],
    other_problems: Callable[[Path, Config], list[str]],
) -> Inspection:
    """`inspect` for a policy that tells how its configuration is read and which weights that needs.

    room_of: where an entry's parameters are counted. other_problems: of the files beside configuration and weights.
    """
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
            found = {name: shape for name, (_, shape) in entries.items()}
            checkpoint.check_keys(shapes_of(config), found, str(folder / checkpoint.WEIGHTS))
    except CheckpointError as error:
        problems.append(str(error))
    if config is not None:
        problems += other_problems(folder, config)
    parameters: Counter[str] = Counter()
    dtypes: Counter[str] = Counter()
    for name, (dtype, shape) in entries.items():
        count = torch.Size(shape).numel()
        parameters[room_of(name)] += count
        dtypes[str(dtype).removeprefix("torch.")] += count
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}
    return Inspection(config, files, dict(parameters), dict(dtypes), weights_hash, tuple(problems))


def _shapes(config: OpenDriveVlaConfig) -> dict[str, tuple[int, ...]]:
    return checkpoint.expected_shapes(empty_model(config))


def _vocabulary(folder: Path, config: OpenDriveVlaConfig) -> list[str]:
    """What is wrong with the tokenizer, where a language model has one."""
    try:
        if config.language is not None:
            read_tokenizer(folder, config.language.vocabulary_size)
    except CheckpointError as error:
        return [str(error)]
    return []


def _room(name: str) -> str:
    return "projectors" if ".mm_projector_" in name else name.split(".")[0]
