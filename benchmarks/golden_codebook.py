"""Compares the action tokens' encoder and decoder with codebook.npz."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from benchmarks.golden_compare import Comparison, compare_arrays, compare_exact

from opendrivevla_ros.language.action_codebook import ActionCodebook, box_contours

LIMIT = 1e-9


def compare(folder: Path) -> Iterator[Comparison]:
    """Ids exactly, contours and poses as numbers; none where there is no folder/codebook.npz."""
    path = folder / "codebook.npz"
    if not path.is_file():
        return
    with np.load(path) as archive:
        stored = dict(archive)
    length, width = stored["box_length_width"]
    codebook = ActionCodebook(stored["contours"], length=length, width=width)
    contours = box_contours(stored["end_poses"], length=length, width=width)
    yield compare_arrays("codebook", "contours", contours, stored["contours"], limit=LIMIT)
    yield compare_arrays("codebook", "end_poses", codebook.end_poses, stored["end_poses"], limit=LIMIT)
    yield compare_exact("codebook", "ids", codebook.encode(stored["trajectories"]), stored["ids"])
    yield compare_arrays("codebook", "decoded", codebook.decode(stored["ids"]), stored["decoded"], limit=LIMIT)
