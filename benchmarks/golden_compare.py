"""One comparison with a reference array, in any of the forms in which the reference files hold arrays.

A file holds an array `x` whole, as `x__sample` (values at the folder's `sample_indices`, with `x__shape` and
`x__stats` = mean, standard deviation, largest magnitude), or as `x__bits` (packed booleans, with `x__shape`).
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

LIMIT = 1e-4
TIGHT_LIMIT = 5e-5  # backbone, pyramid, BEV


@dataclass(frozen=True)
class Comparison:
    """A tensor group's name, the array's name within it, and how far it is off.

    deviation: largest difference over largest reference magnitude for numbers; share of differing entries for
    discrete values. It passes up to and including `limit`.
    """

    group: str
    name: str
    deviation: float
    limit: float
    detail: str = ""

    @property
    def passed(self) -> bool:
        return self.deviation <= self.limit  # a NaN does not


def load_module(path: Path) -> ModuleType:
    """Imports a Python file by its path: the folder's own generators, which exist nowhere else."""
    spec = importlib.util.spec_from_file_location(f"reference_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the reference folder must hold its generators")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stored_shape(stored: Mapping[str, np.ndarray], key: str) -> tuple[int, ...] | None:
    """The whole shape of array `key`, or None where the file does not hold it."""
    if key in stored:
        return stored[key].shape
    shape = f"{key}__shape"
    return tuple(int(side) for side in stored[shape]) if shape in stored else None


def as_array(value: Any) -> np.ndarray:
    """A numpy array of a tensor, array or number."""
    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)


def compare_tensor(
    group: str,
    name: str,
    actual: Any,
    stored: Mapping[str, np.ndarray],
    key: str,
    *,
    folder: Path,
    limit: float = LIMIT,
) -> Comparison:
    """Compares numbers with array `key` of a file, in whichever form it is there; booleans as shares of bits.

    A sampled array is also held to its mean and standard deviation. Another shape, or no such array, fails.
    """
    array = as_array(actual)
    shape = stored_shape(stored, key)
    if shape != array.shape:
        return Comparison(group, name, float("inf"), limit, f"shape {array.shape}, reference {shape}")
    if f"{key}__bits" in stored:
        expected = np.unpackbits(stored[f"{key}__bits"], count=array.size).astype(bool)
        return _share(group, name, array.astype(bool).ravel(), expected, limit)
    if key in stored:
        return compare_arrays(group, name, array, stored[key], limit=limit)
    sample_indices = load_module(folder / "inputs.py").sample_indices
    mean, deviation, largest = stored[f"{key}__stats"]
    sample = array.ravel()[sample_indices(array.size)].astype(np.float64)
    wide = array.astype(np.float64)
    differences = [
        np.abs(sample - stored[f"{key}__sample"]).max(),
        abs(wide.mean() - mean),
        abs(wide.std() - deviation),
    ]
    return Comparison(group, name, float(max(differences) / max(largest, 1e-30)), limit)


def compare_arrays(group: str, name: str, actual: Any, expected: Any, *, limit: float = LIMIT) -> Comparison:
    """Compares numbers with numbers: largest difference over largest reference magnitude."""
    array, reference = as_array(actual).astype(np.float64), as_array(expected).astype(np.float64)
    if array.shape != reference.shape:
        return Comparison(group, name, float("inf"), limit, f"shape {array.shape}, reference {reference.shape}")
    if not array.size:
        return Comparison(group, name, 0.0, limit)
    difference = np.abs(array - reference).max()
    return Comparison(group, name, float(difference / max(np.abs(reference).max(), 1e-30)), limit)


def compare_exact(group: str, name: str, actual: Any, expected: Any) -> Comparison:
    """Compares ids, labels, text or flags: the share that differs must be zero."""
    array, reference = np.asarray(as_array(actual)), np.asarray(as_array(expected))
    if array.shape != reference.shape:
        return Comparison(group, name, 1.0, 0.0, f"shape {array.shape}, reference {reference.shape}")
    return _share(group, name, array.ravel(), reference.ravel(), 0.0)


def _share(group: str, name: str, actual: np.ndarray, expected: np.ndarray, limit: float) -> Comparison:
    different = int((actual != expected).sum())
    detail = f"{different} of {actual.size} differ" if different else ""
    return Comparison(group, name, different / max(actual.size, 1), limit, detail)
