"""Compares this package with reference outputs of the published model.

    python benchmarks/golden.py FOLDER

Prints a line per tensor group with its worst deviation and limit, and exits 1 if any is over its limit or if the
folder holds a file that nothing here compares. The modules of COMPARERS, beside this one, do the work.
"""

import argparse
import importlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
if __name__ == "__main__":  # as a script, only this file's own folder is on the path
    sys.path[0] = str(REPOSITORY)

from benchmarks.golden_compare import Comparison  # noqa: E402

PROSE = {".md"}
# Modules with a function `compare(folder)`, and the files that each compares or generates from.
COMPARERS = {
    "golden_checksums": ("checksums.json", "weights.py", "inputs.py"),
    "golden_frames": ("frame*_variant*.npz", "perception_keys.txt"),
    "golden_micro": ("micro.npz",),
    "golden_language": ("vla.npz", "vla_keys.txt", "vla_tiny_keys.txt", "prompts.json"),
    "golden_metrics": ("metrics.npz",),
    "golden_codebook": ("codebook.npz",),
}


def compare(folder: Path) -> Iterator[Comparison]:
    """All comparisons of all modules, each run when its first result is asked for."""
    for name in COMPARERS:
        yield from importlib.import_module(f"benchmarks.{name}").compare(folder)


def uncovered_files(folder: Path) -> list[str]:
    """Names of files in `folder` that no module compares or generates from."""
    covered = {path for patterns in COMPARERS.values() for pattern in patterns for path in folder.glob(pattern)}
    return sorted(
        path.name for path in folder.iterdir() if path.is_file() and path.suffix not in PROSE and path not in covered
    )


def worst_by_group(comparisons: Iterable[Comparison]) -> Iterator[tuple[Comparison, int, int]]:
    """For each group, in the order of its coming: its worst comparison, how many there are, and how many fail."""
    groups: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        groups.setdefault(comparison.group, []).append(comparison)
    for members in groups.values():
        failed = [member for member in members if not member.passed]
        yield max(failed or members, key=lambda member: member.deviation), len(members), len(failed)


def main() -> int:
    """0 if everything is within its limit, 1 if something is not, 2 if there is no such folder."""
    parser = argparse.ArgumentParser(
        description="Compares this package with reference outputs of the published model."
    )
    parser.add_argument("folder", type=Path, help="folder with reference files and their generators")
    folder = parser.parse_args().folder
    if not folder.is_dir():
        print(f"{folder} is no folder: name the one that holds the reference files", file=sys.stderr)
        return 2
    total = over = 0
    print(f"{'':4} {'tensor group':32} {'worst':>9} {'limit':>9} {'compared':>8}  where")
    for worst, number, failed in worst_by_group(compare(folder)):
        total, over = total + number, over + failed
        mark, note = ("OVER" if failed else "ok"), (f"  {worst.detail}" if worst.detail else "")
        print(f"{mark:4} {worst.group:32} {worst.deviation:9.1e} {worst.limit:9.1e} {number:8}  {worst.name}{note}")
    missed = uncovered_files(folder)
    for name in missed:
        print(f"OVER {name}: nothing here compares this file")
    print(f"{total} comparisons, {over} over the limit, {len(missed)} files not compared")
    return 1 if over or missed or not total else 0


if __name__ == "__main__":
    sys.exit(main())
