"""Reads weights as others publish them: safetensors or PyTorch files, whole or in shards, and never runs their code.

PyTorch files are pickles, which can hold code; `torch.load` is only ever called with weights_only=True, and a file
that needs more is refused.
"""

import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from opendrivevla_ros.policies import checkpoint
from opendrivevla_ros.policies.errors import CheckpointError

WHOLE_FILES = ("model.safetensors", "pytorch_model.bin")
PICKLE_SUFFIXES = (".bin", ".pth", ".pt", ".ckpt")

Progress = Callable[[int, int], None]  # bytes written, bytes in all


@dataclass(frozen=True)
class Imported:
    """What came of an import. notes: one sentence for everything that was decided or is not as published."""

    folder: Path
    weights_hash: str
    config: Any
    notes: tuple[str, ...]


class PublishedWeights:
    """The tensors of one checkpoint, read one at a time.

    entries: dtype and shape by name, ordered by file so that each file is opened once.
    """

    def __init__(self, files: Mapping[Path, list[str] | None]) -> None:
        """files: each with the names that its index promises, or None where there is no index."""
        self.entries: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
        self._file_of: dict[str, Path] = {}
        self._open: tuple[Path, Any] | None = None
        for path, promised in files.items():
            found = self._entries(path)
            if promised is not None and (missing := sorted(set(promised) - set(found))):
                raise CheckpointError(f"{path} lacks {missing[0]}, which the checkpoint's index says it holds")
            self.entries.update(found)
            self._file_of.update(dict.fromkeys(found, path))

    def tensor(self, name: str) -> Tensor:
        """One tensor, on the CPU."""
        content = self._content(self._file_of[name])
        return content[name] if isinstance(content, dict) else content.get_tensor(name)

    def _entries(self, path: Path) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        if path.suffix not in PICKLE_SUFFIXES:
            return checkpoint.shapes(path)
        return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in self._content(path).items()}

    def _content(self, path: Path) -> Any:
        if self._open is None or self._open[0] != path:
            self._open = None  # frees the last file before the next is read
            content = read_pickled_tensors(path) if path.suffix in PICKLE_SUFFIXES else safe_open(path, framework="pt")
            self._open = (path, content)
        return self._open[1]


def open_published(source: Path) -> PublishedWeights:
    """The weights of a published folder, or of one .pth file. Raises CheckpointError."""
    if source.is_file():
        return PublishedWeights({source: None})
    for name in WHOLE_FILES:
        index = source / f"{name}.index.json"
        if index.is_file():
            return PublishedWeights(_shards(source, index))
        if (source / name).is_file():
            return PublishedWeights({source / name: None})
    expected = ", ".join([*WHOLE_FILES, *(f"{name}.index.json" for name in WHOLE_FILES)])
    raise CheckpointError(f"{source} holds none of {expected}")


def _shards(source: Path, index: Path) -> dict[Path, list[str] | None]:
    data = checkpoint.read_json(index)
    weight_map = data.get("weight_map") if isinstance(data, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map from tensor names to files")
    files: dict[Path, list[str] | None] = {}
    for name, file in sorted(weight_map.items(), key=lambda item: str(item[1])):
        if not isinstance(file, str) or Path(file).name != file:
            raise CheckpointError(f"{index} points {name} to {file!r}, which is not a file name in its own folder")
        if not (source / file).is_file():
            raise CheckpointError(f"{source} lacks the shard {file}, which its index names; download it again")
        promised = files.setdefault(source / file, [])
        assert promised is not None
        promised.append(name)
    return files


def read_pickled_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a PyTorch file, by name; of a training checkpoint those under "state_dict" or "model".

    Raises CheckpointError for a file with code in it, a truncated one, or one without named tensors.
    """
    if not zipfile.is_zipfile(path):
        raise CheckpointError(
            f"{path} is not a whole PyTorch file: it is truncated, or no zip archive as PyTorch has written since 1.6"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S+)", str(error))
        what = f"asks for {asked[1]}, which is code" if asked else "is no plain pickle of tensors"
        raise CheckpointError(f"{path} is refused: its pickle {what}; only tensors are ever read") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path} is not a whole PyTorch file: {reason}") from error
    if isinstance(content, dict):
        content = next(
            (content[key] for key in ("state_dict", "model") if isinstance(content.get(key), dict)), content
        )
    if not isinstance(content, dict) or not content or not all(isinstance(t, Tensor) for t in content.values()):
        raise CheckpointError(f"{path} holds no dictionary of named tensors")
    return dict(content)


def write_published(
    folder: Path,
    weights: PublishedWeights,
    names: Mapping[str, str],
    *,
    dtype: torch.dtype | None = None,
    fills: Mapping[str, Tensor] = MappingProxyType({}),
    progress: Progress = lambda done, total: None,
) -> str:
    """Writes a checkpoint's weights; returns their SHA-256.

    names: by own name the published one. dtype: to write them in; None for their own. fills: entries that no file has.
    """
    # in the order of the source's files, so that each is opened once
    own_of = {published: own for own, published in names.items()}
    entries = {
        own_of[published]: (dtype or stored, shape)
        for published, (stored, shape) in weights.entries.items()
        if published in own_of
    }
    entries.update({name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in fills.items()})
    total = sum(kind.itemsize * torch.Size(shape).numel() for kind, shape in entries.values())
    done = 0

    def on_written(size: int) -> None:
        nonlocal done
        done += size
        progress(done, total)

    return checkpoint.write_weights(
        folder, entries, lambda own: fills[own] if own in fills else weights.tensor(names[own]), on_written
    )
