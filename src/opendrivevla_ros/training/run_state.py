"""The state of a run on disk: written whole or not at all, and everything that the next step depends on."""

import os
import pickle
import random
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from opendrivevla_ros.training.errors import TrainingError

STATE_FILE = "run_state.pt"


@dataclass(frozen=True)
class RunState:
    """After `step` optimiser steps.

    settings: plain values that shape the curve; a run goes on only under the same. model, optimizer, schedule: state
    dictionaries. random: by rank, see `random_state`.
    """

    step: int
    settings: dict[str, Any]
    model: dict[str, Any]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    random: list[dict[str, Any]]


def random_state() -> dict[str, Any]:
    """The state of every random generator of this process, in plain values and tensors."""
    numpy_state: Any = np.random.get_state(legacy=False)
    words = numpy_state["state"]
    return {
        "python": random.getstate(),
        "numpy": {**numpy_state, "state": {**words, "key": words["key"].tolist()}},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Puts every random generator of this process back to what `random_state` saw."""
    random.setstate(state["python"])
    words = state["numpy"]["state"]
    key = np.array(words["key"], dtype=np.uint32)
    np.random.set_state({**state["numpy"], "state": {**words, "key": key}})
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def save_state(folder: Path, state: RunState) -> None:
    """Replaces the folder's state in one step; whatever happens while writing, the last one stays whole.

    Raises TrainingError where it cannot be written.
    """
    path = folder / STATE_FILE
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(vars(state), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(folder)
    except (OSError, RuntimeError) as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        kept = "the last saved state is whole" if path.exists() else "nothing was saved before"
        raise TrainingError(
            f"the state after step {state.step} cannot be written to {path} ({_reason(error)}); {kept};"
            " free disk space and start the same run again"
        ) from error


def load_state(folder: Path) -> RunState | None:
    """The state saved in a folder, its tensors on the CPU, or None. Raises TrainingError for a broken file."""
    path = folder / STATE_FILE
    if not path.exists():
        return None
    try:
        return RunState(**torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, EOFError, TypeError, pickle.UnpicklingError) as error:
        raise TrainingError(f"{path} is no whole state of a run; delete it to start anew") from error


def check_settings(found: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    """Raises TrainingError for the first setting that a saved run has otherwise."""
    for name, value in wanted.items():
        if found.get(name) != value:
            raise TrainingError(
                f"the run in {folder} has {name} {found.get(name)}, not {value};"
                " set it back to go on, or choose another folder"
            )


def _sync_folder(folder: Path) -> None:
    """Makes a rename survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
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
