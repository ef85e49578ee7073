"""What the sections of a report are made of, and what several of them tell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opendrivevla_ros.evaluation.report_plots import Plot, horizon_plot
from opendrivevla_ros.evaluation.report_results import PartResults
from opendrivevla_ros.evaluation.report_tables import HIGHER, LOWER, Metric, Table, number, percent

HORIZONS = ("one_second", "two_seconds", "three_seconds")
NO_BREAK = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class Figures:
    """tables, plots: in the order of reading. notes: what a reader must not overlook. main: (figure, its name) of a
    single run, for who reads no further.
    """

    tables: tuple[Table, ...]
    plots: tuple[Plot, ...] = ()
    notes: tuple[str, ...] = ()
    main: tuple[tuple[str, str], ...] = ()


_DISPLACEMENT = (
    *(
        number(f"L2 at{NO_BREAK}{second}{NO_BREAK}s, m", "displacement", "uniad", key, better=LOWER)
        for second, key in enumerate(HORIZONS, start=1)
    ),
    number("average (UniAD), m", "displacement", "uniad", "average", better=LOWER),
    number("average up to (ST-P3), m", "displacement", "stp3", "average", better=LOWER),
)
PLANS = (
    *_DISPLACEMENT,
    percent("plans that collide", "collides", better=LOWER),
    percent("occupancy test (UniAD)", "occupancy", "uniad", "average", better=LOWER, digits=2),
    percent("occupancy test (ST-P3)", "occupancy", "stp3", "average", better=LOWER, digits=2),
    percent("with pedestrians (ST-P3)", "occupancy_all", "stp3", "average", better=LOWER, digits=2),
    number("driver score", "driver_score", better=HIGHER, digits=3),
    number("plans asked for", "samples", digits=0),
    number("without a plan", "failures", better=LOWER, digits=0),
)
MAIN_PLANS = ("average (UniAD), m", "plans that collide", "driver score")


def tested_scores(parts: Sequence[PartResults]) -> list[Mapping[str, Any]]:
    """The scores of each run's policy under test."""
    return [part.results["policies"][part.results["policy"]] for part in parts]


def main_figures(
    metrics: Sequence[Metric], labels: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> tuple[tuple[str, str], ...]:
    """These figures, of a single run that has them; two runs have a table of their own."""
    if len(rows) != 1:
        return ()
    told = [metric for metric in metrics if metric.label in labels and metric.value(rows[0]) is not None]
    return tuple((metric.show(rows[0]), metric.label) for metric in told)


def horizons(parts: Sequence[PartResults], what: str) -> Plot:
    errors: dict[str, list[float]] = {}
    for part in parts:
        for name, scores in part.results["policies"].items():
            tested = name == part.results["policy"]
            values = [scores["displacement"]["uniad"][key] for key in HORIZONS]
            label = named(part, parts, name) if tested else name
            if errors.setdefault(label, values) != values:
                errors[f"{label}, {part.run}"] = values
    return horizon_plot(errors, what)


def transposed(caption: str, metrics: Sequence[Metric], row: Mapping[str, Any]) -> Table:
    """A row for each figure that is there."""
    rows = tuple((metric.label, metric.show(row)) for metric in metrics if metric.value(row) is not None)
    return Table(caption, ("figure", "value"), rows)


def caption_of(part: PartResults, parts: Sequence[PartResults], caption: str) -> str:
    return caption if len(parts) == 1 else f"{part.run}: {caption}"


def named(part: PartResults, parts: Sequence[PartResults], name: str) -> str:
    return name if len(parts) == 1 else part.run
