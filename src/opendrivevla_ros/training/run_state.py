"""The state of a run on disk: written whole or not at all, and everything that the next step depends on."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.whole_files import load_tensors, reading, save_tensors

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
    save_tensors(vars(state), folder / STATE_FILE, f"the state after step {state.step}")


def load_state(folder: Path) -> RunState | None:
    """The state saved in a folder, its tensors on the CPU, or None. Raises TrainingError for a broken file."""
    path = folder / STATE_FILE
    if not path.exists():
        return None
    what, remedy = "state of a run", "delete it to start anew"
    content = load_tensors(path, what, remedy)
    with reading(path, what, remedy):
        return RunState(**content)


def check_settings(found: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    """Raises TrainingError for the first setting that a saved run has otherwise."""
    for name, value in wanted.items():
        if found.get(name) != value:
            raise TrainingError(
                f"the run in {folder} has {name} {found.get(name)}, not {value};"
                " set it back to go on, or choose another folder"
            )
