"""Gathers the results of one run, or of two, into the sections of a page: tables, plots and the worst moments."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opendrivevla_ros.evaluation import report_human, report_sections
from opendrivevla_ros.evaluation.moments import ResultsError
from opendrivevla_ros.evaluation.report_figures import Figures
from opendrivevla_ros.evaluation.report_results import PARTS, PartResults, Run, differences, read_runs

MOST_LISTED = 14  # values of a setting


@dataclass(frozen=True)
class Section:
    """One part of an evaluation. parts: of each run that has it. notes: what a reader has to know before comparing."""

    name: str
    title: str
    lead: str
    parts: tuple[PartResults, ...]
    notes: tuple[str, ...]
    figures: Figures


@dataclass(frozen=True)
class Report:
    """version: of this package. identities: of each run, what it is as (name, value)."""

    version: str
    runs: tuple[Run, ...]
    identities: tuple[tuple[tuple[str, str], ...], ...]
    sections: tuple[Section, ...]

    @property
    def title(self) -> str:
        """What was evaluated."""
        return "Evaluation of " + ", ".join(run.name for run in self.runs)


@dataclass(frozen=True)
class _Kind:
    title: str
    lead: str
    gather: Callable[[Sequence[PartResults], bool], Figures]


_WORLD = "These are figures of the synthetic driving world; they cannot be held against published nuScenes figures."
_KINDS = {
    "closed-loop": _Kind(
        "Closed loop",
        f"The policy drives itself to a goal, beside an expert that knows the true state. {_WORLD}",
        report_sections.closed_loop,
    ),
    "open-loop": _Kind(
        "Open loop",
        "The expert drives; twice a second the policy says where it would drive, and is held against where the expert"
        f" then went. A plan that did not come counts as one that stands still. {_WORLD}",
        report_sections.open_loop,
    ),
    "nuscenes": _Kind(
        "nuScenes, open loop",
        "Twice a second the policy says where it would drive, and is held against where the human then went."
        " A plan that did not come counts as one that stands still, a step beyond its scene's end as 0, as published.",
        report_human.nuscenes,
    ),
    "bag": _Kind(
        "Bags, beside the human",
        "Twice a second the policy says where it would drive, and is held against where the human then went; plans"
        " that did not come are left out and counted below. The human is no truth: where both differ, look.",
        report_human.bag,
    ),
    "text": _Kind(
        "Captions and answers",
        f"What the policy says of a scene, beside the same model without scene tokens. {_WORLD}",
        report_sections.text,
    ),
    "confidence": _Kind(
        "Confidence",
        f"A plan is good where its point 3 s ahead is no further than 2 m from where the expert drives. {_WORLD}",
        report_sections.confidence,
    ),
    "faults": _Kind(
        "Faults, with the guard",
        "What is broken while the guard drives, and what it makes of it. In the synthetic driving world.",
        report_sections.faults,
    ),
}


def gather_report(folders: Sequence[Path], version: str) -> Report:
    """The sections of output folders of `odv evaluate`. version: of this package.

    Raises ResultsError, see `read_runs`, and for results that are not what their part's name says.
    """
    runs = read_runs(folders, version)
    found = [_section(name, runs) for name in PARTS if any(name in run.parts for run in runs)]
    return Report(version, runs, tuple(_identity(run) for run in runs), tuple(found))


def _section(name: str, runs: Sequence[Run]) -> Section:
    kind = _KINDS[name]
    parts = tuple(run.parts[name] for run in runs if name in run.parts)
    if len(parts) > 1:
        for part in parts:
            _gathered(kind, [part], comparable=True)  # tells which run is broken
    reasons = differences(*parts) if len(parts) == 2 else ()
    figures = _gathered(kind, parts, comparable=not reasons)
    notes = []
    if reasons:
        notes.append(
            "Not comparable: these runs were made with different settings, so no difference is shown and none is"
            f" marked as better. {'. '.join(reasons)}."
        )
    return Section(name, kind.title, kind.lead, parts, (*notes, *figures.notes), figures)


def _gathered(kind: _Kind, parts: Sequence[PartResults], *, comparable: bool) -> Figures:
    try:
        return kind.gather(parts, comparable)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, StopIteration) as error:
        problem = f"{type(error).__name__}: {error}"
        raise ResultsError(
            f"{parts[0].path} holds no {parts[0].name} results that can be shown ({problem}); remove it and evaluate"
            " again"
        ) from None


def _identity(run: Run) -> tuple[tuple[str, str], ...]:
    """Policy, weights, version and settings of a run, each setting once where its parts agree on it."""
    told: dict[str, dict[str, str]] = {}  # by setting and value, the parts
    for part in run.parts.values():
        for key, value in part.settings.items():
            for name, text in _settings(key, value, str(part.settings.get("policy"))):
                told.setdefault(name, {}).setdefault(text, part.name)
                if told[name][text] != part.name:
                    told[name][text] += f", {part.name}"
    order = sorted(told, key=lambda name: (name != "policy", not name.startswith("weights"), name != "version"))
    rows = [("folder", str(run.folder)), ("parts", ", ".join(run.parts))]
    for name in order:
        values = told[name]
        rows += [(name if len(values) == 1 else f"{name} ({of})", value) for value, of in values.items()]
    return tuple(rows)


def _settings(key: str, value: Any, policy: str) -> list[tuple[str, str]]:
    if key == "weights" and isinstance(value, Mapping):
        return [(f"weights of {Path(source).name}", str(digest)) for source, digest in value.items() if digest]
    if key == "weights" and value:
        return [(f"weights of {Path(policy).name}", str(value))]
    if key == "files":
        return []  # they tell whether a part must be evaluated again; the weights are named
    if isinstance(value, list | tuple):
        more = f" and {len(value) - MOST_LISTED} more" if len(value) > MOST_LISTED else ""
        text = ", ".join(str(one) for one in value[:MOST_LISTED]) + more
        return [(key, text)] if value else []
    return [] if value in (None, "") else [(key, str(value))]
