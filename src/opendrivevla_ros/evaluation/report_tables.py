"""Figures as tables: a run's policies beside its baselines, and two runs beside each other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

LOWER, HIGHER, UNKNOWN = -1, 1, 0  # which way is better


@dataclass(frozen=True)
class Table:
    """header: of the columns, the first of which names the rows. better: (row, column) of cells to be marked."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    better: frozenset[tuple[int, int]] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Metric:
    """A figure of a row of results. value: None where the row has none. show: one as text, with what belongs to it.

    difference: of two values as text. better: which way. interval: its 95 % one, where the results tell.
    """

    label: str
    value: Callable[[Mapping[str, Any]], float | None]
    show: Callable[[Mapping[str, Any]], str]
    difference: Callable[[float], str]
    better: int
    interval: Callable[[Mapping[str, Any]], tuple[float, float]] | None = None


def number(label: str, *keys: str, better: int = UNKNOWN, digits: int = 2) -> Metric:
    """A figure at results[key][key]…, shown with so many digits."""

    def value(row: Mapping[str, Any]) -> float | None:
        return _at(row, keys)

    return Metric(label, value, lambda row: _text(value(row), digits), lambda by: f"{by:+.{digits}f}", better)


def percent(label: str, *keys: str, better: int = UNKNOWN, digits: int = 1) -> Metric:
    """A share of 1, shown in percent."""

    def value(row: Mapping[str, Any]) -> float | None:
        share = _at(row, keys)
        return None if share is None else 100 * share

    def show(row: Mapping[str, Any]) -> str:
        share = value(row)
        return "-" if share is None else f"{share:.{digits}f} %"

    return Metric(label, value, show, lambda by: f"{by:+.{digits}f} points", better)


def counted(label: str, key: str, better: int = UNKNOWN) -> Metric:
    """A share that is told as count, of and 95 % interval."""

    def value(row: Mapping[str, Any]) -> float | None:
        return 100 * row[key]["count"] / row[key]["of"] if row.get(key) and row[key]["of"] else None

    def interval(row: Mapping[str, Any]) -> tuple[float, float]:
        low, high = row[key]["interval"]
        return 100 * low, 100 * high

    def show(row: Mapping[str, Any]) -> str:
        share = value(row)
        if share is None:
            return "-"
        low, high = interval(row)
        return f"{row[key]['count']} of {row[key]['of']}, {share:.0f} % ({low:.0f} to {high:.0f})"

    return Metric(label, value, show, lambda by: f"{by:+.0f} points", better, interval)


def against_baselines(caption: str, metrics: Sequence[Metric], rows: Mapping[str, Mapping[str, Any]]) -> Table:
    """A row for each policy, a column for each figure that any of them has."""
    told = [metric for metric in metrics if any(metric.value(row) is not None for row in rows.values())]
    cells = tuple((name, *(metric.show(row) for metric in told)) for name, row in rows.items())
    return Table(caption, ("policy", *(metric.label for metric in told)), cells)


def side_by_side(
    caption: str,
    metrics: Sequence[Metric],
    runs: Sequence[tuple[str, Mapping[str, Any]]],
    *,
    comparable: bool,
) -> Table:
    """A row for each figure, a column for each of two runs, and what the second has more.

    The better one is marked where it is known which way is better, and where their intervals, if any, are apart.
    Runs that are not comparable get neither difference nor mark.
    """
    (first, a), (second, b) = runs
    rows: list[tuple[str, ...]] = []
    better: set[tuple[int, int]] = set()
    for metric in metrics:
        values = metric.value(a), metric.value(b)
        if values == (None, None):
            continue
        cells = [metric.label, metric.show(a), metric.show(b)]
        if comparable and values[0] is not None and values[1] is not None:
            by = values[1] - values[0]
            column, verdict = _verdict(metric, by, a, b, (first, second))
            cells += [metric.difference(by), verdict]
            if column is not None:
                better.add((len(rows), column))
        elif comparable:
            cells += ["-", "-"]
        rows.append(tuple(cells))
    header = ("", first, second, *((f"{second} less {first}", "better") if comparable else ()))
    return Table(caption, header, tuple(rows), frozenset(better))


def _verdict(
    metric: Metric, by: float, a: Mapping[str, Any], b: Mapping[str, Any], names: tuple[str, str]
) -> tuple[int | None, str]:
    """The column of the better one and its name, or why none is."""
    if metric.better == UNKNOWN:
        return None, "-"
    if metric.show(a) == metric.show(b):
        return None, "same"
    if metric.interval is not None:
        (low, high), (other_low, other_high) = metric.interval(a), metric.interval(b)
        if low <= other_high and other_low <= high:
            return None, "intervals overlap"
    column = 2 if by * metric.better > 0 else 1
    return column, names[column - 1]


def _at(row: Any, keys: Sequence[str]) -> float | None:
    for key in keys:
        row = row.get(key) if isinstance(row, dict) else None
    return None if row is None else float(row)


def _text(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
