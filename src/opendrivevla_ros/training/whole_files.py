"""Files of a run on disk: written whole or not at all, and told by name where one that was written is not whole."""

import json
import os
import pickle
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from opendrivevla_ros.training.errors import TrainingError

SEEN_BY = "seen_by.weights"  # of whom has seen what a folder holds


@contextmanager
def writing(path: Path, what: str) -> Iterator[Path]:
    """A file to write in place of `path`, whose place it takes at the end; until then what is there stays whole.

    Raises TrainingError where it cannot be written.
    """
    temporary = path.with_suffix(".tmp")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except (OSError, RuntimeError, SafetensorError) as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        kept = "the last saved one is whole" if path.exists() else "nothing was saved before"
        raise TrainingError(
            f"{what} cannot be written to {path} ({_reason(error)}); {kept}; free disk space and start the same run"
            " again"
        ) from error


@contextmanager
def reading(path: Path, what: str, remedy: str) -> Iterator[None]:
    """Raises TrainingError for a file that turns out not to be whole, or not to hold what it should."""
    try:
        yield
    except (
        OSError, RuntimeError, EOFError, TypeError, KeyError, ValueError, pickle.UnpicklingError, SafetensorError
    ) as error:  # fmt: skip
        raise TrainingError(f"{path} is no whole {what}; {remedy}") from error


def save_tensors(content: Any, path: Path, what: str) -> None:
    """Writes what `load_tensors` reads. Raises TrainingError where it cannot be written."""
    with writing(path, what) as temporary, temporary.open("wb") as file:  # else torch hides why it cannot
        torch.save(content, file)


def load_tensors(path: Path, what: str, remedy: str, *, mmap: bool = False) -> Any:
    """Tensors and plain values, on the CPU wherever they were saved. Raises TrainingError for a broken file."""
    with reading(path, what, remedy):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


def seen_by(folder: Path, weights: Mapping[str, Tensor]) -> Path:
    """The file in a folder of the weights that see what is kept there; what others have seen is deleted.

    Raises TrainingError where that file is broken or cannot be written.
    """
    path = folder / SEEN_BY
    if path.is_file():
        known = load_tensors(path, "file of weights", f"delete {folder} to look at those drives anew")
        if known.keys() == weights.keys() and all(torch.equal(known[name], weights[name]) for name in known):
            return path
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(dict(weights), path, "what has learned to see")
    return path


def save_json(content: Any, path: Path, what: str) -> None:
    """Writes plain values. Raises TrainingError where they cannot be written."""
    with writing(path, what) as temporary:
        temporary.write_text(json.dumps(content))


def _sync(path: Path) -> None:
    """Makes a file, or a rename in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: BaseException) -> str:
    """The operating system's words; torch hides them behind its own when a write fails inside `torch.save`."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return os.strerror(cause.errno) if cause.errno else str(cause)
        cause = cause.__cause__ or cause.__context__
    return str(error).splitlines()[0]
