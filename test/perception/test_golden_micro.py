"""Every small part of the published perception, compared by the code behind benchmarks/golden.py."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from benchmarks import golden_micro


def test_every_stored_part_is_compared_and_agrees(golden_folder: Path) -> None:
    comparisons = list(golden_micro.compare(golden_folder))
    assert [comparison for comparison in comparisons if not comparison.passed] == []
    with np.load(golden_folder / "micro.npz") as archive:
        stored = {name.split(".")[0] for name in archive.files}
    assert len(stored) == 25
    assert {comparison.group for comparison in comparisons} == {f"micro.{part}" for part in stored}


@pytest.mark.parametrize("changed", ["tracker.ids", "memory.bank_out", "merge3.lane", "velo_update.ref_out"])
def test_a_changed_output_is_over_its_limit(golden_folder: Path, tmp_path: Path, changed: str) -> None:
    with np.load(golden_folder / "micro.npz") as archive:
        stored = dict(archive)
    stored[changed] = (
        ~stored[changed] if stored[changed].dtype == bool else stored[changed] + stored[changed].dtype.type(1)
    )
    np.savez(tmp_path / "micro.npz", **stored)
    shutil.copy(golden_folder / "weights.py", tmp_path)
    failed = {f"{c.group}.{c.name}" for c in golden_micro.compare(tmp_path) if not c.passed}
    assert failed == {f"micro.{changed}"}


def test_a_folder_without_the_file_compares_nothing(tmp_path: Path) -> None:
    assert list(golden_micro.compare(tmp_path)) == []
