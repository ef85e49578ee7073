"""Reads what evaluations wrote into their output folders, and tells whether two of them can be compared."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opendrivevla_ros.evaluation.moments import MOMENTS_FILE, ResultsError, ShownMoment, read_moments

PARTS = ("closed-loop", "open-loop", "nuscenes", "bag", "text", "confidence", "faults")  # as a page shows them
# differ by intent, or change nothing
COMPARED = {"policy", "weights", "files", "beside", "device", "precision", "version"}
MOST_RUNS = 2  # of one part on a page


@dataclass(frozen=True)
class PartResults:
    """One part of one run. path: its file. settings: what it was made with. moments: its worst; None where none were
    kept.
    """

    run: str
    name: str
    path: Path
    settings: Mapping[str, Any]
    results: Mapping[str, Any]
    moments: tuple[ShownMoment, ...] | None


@dataclass(frozen=True)
class Run:
    """An output folder. name: for a reader; its folder's name where that tells the runs apart."""

    name: str
    folder: Path
    parts: Mapping[str, PartResults]


def read_runs(folders: Sequence[Path], version: str) -> tuple[Run, ...]:
    """All folders, in order. version: of this package, which the results have to be of.

    Raises ResultsError for a folder that is given twice, or holds no results, broken ones or those of another
    version, and where more than two hold the same part.
    """
    twice = [path for path, count in Counter(folder.resolve() for folder in folders).items() if count > 1]
    if twice:
        raise ResultsError(f"{twice[0]} is given twice; give every folder once")
    short = Counter(folder.resolve().name for folder in folders)
    runs = tuple(
        _read_run(folder, folder.resolve().name if short[folder.resolve().name] == 1 else str(folder), version)
        for folder in folders
    )
    for name in PARTS:
        holders = [str(run.folder) for run in runs if name in run.parts]
        if len(holders) > MOST_RUNS:
            raise ResultsError(
                f"{name} is in {', '.join(holders)}; a page sets two beside each other: leave out others"
            )
    return runs


def _read_run(folder: Path, name: str, version: str) -> Run:
    if not (folder / "results.json").is_file():
        problem = "holds no results.json" if folder.is_dir() else "is no folder with results"
        raise ResultsError(f"{folder} {problem}; give the output folder of an `odv evaluate` that ran to its end")
    results = _json(folder / "results.json")
    if "bags" in results and "events" in results:
        parts = {
            "bag": _part(folder, name, "bag", results.get("settings", {}), results, version, folder / "results.json")
        }
    else:
        parts = {}
        for part, found in results.items():
            if part not in PARTS:
                raise ResultsError(
                    f"{folder}/results.json has a part {part!r}, and a page can show {', '.join(PARTS)}"
                )
            path = folder / f"{part}.json"
            if not path.is_file():
                raise ResultsError(f"{path} is missing, with the settings of {folder}/results.json; evaluate again")
            content = _json(path)
            settings = content.get("settings", {})
            part_read = _part(folder, name, part, settings, found, version, path)
            if content.get("results") != found:
                raise ResultsError(
                    f"{path} and {folder}/results.json hold different results, as after an evaluation that was"
                    " stopped; run it to its end"
                )
            parts[part] = part_read
    if not parts:
        raise ResultsError(f"{folder}/results.json is empty; evaluate at least one part")
    return Run(name, folder, parts)


def _part(
    folder: Path,
    run: str,
    part: str,
    settings: Mapping[str, Any],
    results: Mapping[str, Any],
    version: str,
    path: Path,
) -> PartResults:
    if not isinstance(settings, dict) or not isinstance(results, dict):
        raise ResultsError(f"{path} holds no results of `odv evaluate`; evaluate again")
    written = settings.get("version")
    if written != version:
        by = f"version {written}" if written else "a version that did not say which"
        raise ResultsError(f"{path} was written by {by} and this is {version}; evaluate again with this one")
    kept = (folder / part / MOMENTS_FILE).is_file()
    return PartResults(run, part, path, settings, results, read_moments(folder / part) if kept else None)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultsError(f"cannot read {path}: {error.strerror}; evaluate again") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise ResultsError(f"{path} is broken JSON ({place}); remove it and evaluate again") from None
    except ValueError as error:
        raise ResultsError(f"{path} is no text file ({error}); remove it and evaluate again") from None
    if not isinstance(content, dict):
        raise ResultsError(f"{path} holds {type(content).__name__} in place of results; remove it and evaluate again")
    return content


def differences(first: PartResults, second: PartResults) -> tuple[str, ...]:
    """Why the figures of a part of two runs are not comparable, each a clause; nothing where they are."""
    found = []
    for key in dict.fromkeys([*first.settings, *second.settings]):
        a, b = first.settings.get(key), second.settings.get(key)
        if key in COMPARED or a == b:
            continue
        if isinstance(a, list) and isinstance(b, list):
            alone = {first.run: [one for one in a if one not in b], second.run: [one for one in b if one not in a]}
            told = [f"{_some(values)} only in {run}" for run, values in alone.items() if values]
            found.append(f"{key}: {'; '.join(told) or 'in another order'}")
        else:
            told = ["not given" if value is None else str(value) for value in (a, b)]
            found.append(f"{key}: {told[0]} in {first.run}, {told[1]} in {second.run}")
    counts = [part.results.get("plans", part.results.get("samples")) for part in (first, second)]
    if counts[0] != counts[1]:
        found.append(f"plans: {counts[0]} in {first.run}, {counts[1]} in {second.run}")
    return tuple(found)


def _some(values: Sequence[Any]) -> str:
    more = f" and {len(values) - 3} more" if len(values) > 3 else ""
    return ", ".join(map(str, values[:3])) + more
