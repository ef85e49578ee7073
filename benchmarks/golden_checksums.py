"""Holds the generated weights and inputs to their checksums, so that a deviation elsewhere is the network's."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from benchmarks.golden_compare import Comparison, compare_exact, load_module

FRAME_PARTS = ("images_u8", "img", "lidar2img", "can_bus", "l2g_r", "l2g_t", "timestamp")
VLA_PARTS = ("img_feat", "map_things", "map_stuff", "agents")


def compare(folder: Path) -> Iterator[Comparison]:
    """One comparison for each entry of checksums.json; none where there is no such file."""
    path = folder / "checksums.json"
    if not path.is_file():
        return
    for name, expected in json.loads(path.read_text()).items():
        yield compare_exact("checksums", name, digest(folder, name), expected)


def digest(folder: Path, name: str) -> str:
    """The SHA-256 of what an entry of checksums.json names, generated anew; ValueError for an unknown name."""
    weights, inputs = load_module(folder / "weights.py"), load_module(folder / "inputs.py")
    arrays: Iterable[np.ndarray]
    if match := re.fullmatch(r"perception_weights_variant(\d+)", name):
        arrays = (
            weights.generate(*entry, int(match[1])) for entry in _entries(folder / "perception_keys.txt", weights)
        )
    elif name == "vla_tiny_weights":
        entries = _entries(folder / "vla_tiny_keys.txt", weights)
        arrays = (weights.generate(*entry) for entry in entries if entry[0] != "lm_head.weight")
    elif match := re.fullmatch(r"frame(\d+)_variant(\d+)_(\w+)", name):
        frame = inputs.frame(int(match[1]), int(match[2]), match[3])
        arrays = (np.asarray(frame[part]) for part in FRAME_PARTS)
    elif match := re.fullmatch(r"sample_indices_(\d+)", name):
        arrays = [inputs.sample_indices(int(match[1]))]
    elif match := re.fullmatch(r"vla_case_(\w+)", name):
        case = inputs.vla_case(match[1])
        arrays = (case[part] for part in VLA_PARTS if case[part] is not None)
    else:
        raise ValueError(f"checksums.json names {name}, and nothing generates that: add it to golden_checksums.py")
    total = hashlib.sha256()
    for array in arrays:
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def _entries(path: Path, weights: object) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of each entry that is generated."""
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            name, shape, *_ = line.split("\t")
            if not weights.is_constant(name):  # type: ignore[attr-defined]
                yield name, tuple(json.loads(shape))
