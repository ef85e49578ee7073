"""The plots of a report, as SVG to be put into a page, whose colours they take.

Matplotlib knows no CSS variables, so that plots are drawn in stand-in colours that are then exchanged.
"""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, FAINT = "#010101", "#020202"
SERIES = ("#030301", "#030302", "#030303", "#030304", "#030305", "#030306")
_VARIABLES = {INK: "var(--ink)", FAINT: "var(--line)"} | {
    color: f"var(--series-{index})" for index, color in enumerate(SERIES, start=1)
}
# Letters stay letters: they are read aloud and found, and take the page's font. Names are no formulas.
_PLAIN: dict[Any, Any] = {"svg.fonttype": "none", "font.family": "sans-serif", "text.parse_math": False}
MARKERS = ("o", "s", "^", "D", "v", "P")
HORIZONS_S = (1, 2, 3)
WIDTH_INCHES = 5.8


@dataclass(frozen=True)
class Plot:
    """svg: the element. alt: what it shows, for who cannot see it."""

    caption: str
    svg: str
    alt: str


@mpl.rc_context(_PLAIN)
def horizon_plot(errors: Mapping[str, Sequence[float]], what: str) -> Plot:
    """Mean distance, metres, at 1, 2 and 3 s by name. what: from what, for example "the expert"."""
    figure, axes = _axes(3.2)
    for index, (name, values) in enumerate(errors.items()):
        axes.plot(HORIZONS_S, values, label=_label(name), **_style(index))
    axes.set(xticks=HORIZONS_S, xlabel="seconds ahead", ylabel=f"metres from {what}", ylim=(0, None))
    _legend(axes)
    told = "; ".join(f"{name} {', '.join(f'{value:.2f}' for value in values)}" for name, values in errors.items())
    caption = f"Mean distance from {what}, at each time"
    return Plot(caption, _svg(figure, caption), f"Metres at 1, 2 and 3 s: {told}.")


@mpl.rc_context(_PLAIN)
def share_plot(
    caption: str,
    bars: Mapping[str, Mapping[str, float | None]],
    points: Mapping[str, Mapping[str, float | None]],
) -> Plot:
    """Shares of 1 by name and row: the policies as bars, their baselines as points; None where there is none."""
    rows = list(next(iter(bars.values())))
    figure, axes = _axes(0.9 + 0.3 * len(rows) * (0.55 + 0.45 * len(bars)))
    height = 0.72 / len(bars)
    for index, (name, shares) in enumerate(bars.items()):
        at = np.arange(len(rows)) + (index - (len(bars) - 1) / 2) * height
        lengths = [100 * (shares.get(row) or 0.0) for row in rows]
        axes.barh(at, lengths, height=0.92 * height, color=SERIES[index], label=_label(name))
        for place, row in zip(at, rows, strict=True):
            if shares.get(row) is None:
                axes.text(2, place, "not driven", color=INK, fontsize=8, va="center")
    for index, (name, shares) in enumerate(points.items(), start=len(bars)):
        there = [(place, 100 * share) for place, row in enumerate(rows) if (share := shares.get(row)) is not None]
        style = {**_style(index), "linestyle": "none", "markerfacecolor": "none", "clip_on": False, "zorder": 5}
        axes.plot([share for _, share in there], [place for place, _ in there], label=_label(name), **style)
    axes.set_yticks(range(len(rows)), [row.replace("_", " ") for row in rows])
    axes.set(xlim=(0, 100), xlabel="percent")
    axes.tick_params(axis="y", pad=9)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    _legend(axes, above=True)
    told = "; ".join(
        f"{name}: {', '.join(f'{row} {100 * share:.0f} %' for row, share in shares.items() if share is not None)}"
        for name, shares in {**bars, **points}.items()
    )
    return Plot(caption, _svg(figure, caption), told)


@mpl.rc_context(_PLAIN)
def bars_plot(
    caption: str, unit: str, rows: Sequence[str], series: Mapping[str, Sequence[float | None]], digits: int = 2
) -> Plot:
    """Figures by name, one for each row, upright bars."""
    figure, axes = _axes(3.2)
    width = 0.8 / len(series)
    for index, (name, values) in enumerate(series.items()):
        at = np.arange(len(rows)) + (index - (len(series) - 1) / 2) * width
        heights = [value or 0.0 for value in values]
        drawn = axes.bar(at, heights, width=0.92 * width, color=SERIES[index], label=_label(name))
        labels = ["-" if value is None else f"{value:.{digits}f}" for value in values]
        axes.bar_label(drawn, labels, padding=2, color=INK, fontsize=8)
    axes.set_xticks(range(len(rows)), list(rows))
    axes.set_ylabel(unit)
    axes.margins(y=0.12)
    axes.grid(axis="x", visible=False)
    _legend(axes, above=True)
    told = "; ".join(
        f"{name}: {', '.join(f'{row} {_told(value, digits)}' for row, value in zip(rows, values, strict=True))}"
        for name, values in series.items()
    )
    return Plot(caption, _svg(figure, caption), told)


@mpl.rc_context(_PLAIN)
def reliability_plot(bins: Mapping[str, Sequence[tuple[float, float, int]]]) -> Plot:
    """Mean confidence, share of good plans and their count in each bin, by name; the diagonal is what is said."""
    figure, axes = _axes(4.2)
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=(0, (4, 3)), alpha=0.6)
    axes.text(0.80, 0.86, "as confident\nas right", color=INK, fontsize=9, ha="right", va="bottom", alpha=0.8)
    for index, (name, of) in enumerate(bins.items()):
        confidence, good, counts = (np.array(values, dtype=np.float64) for values in zip(*of, strict=True))
        axes.plot(confidence, good, color=SERIES[index], linewidth=1.6, label=_label(name))
        sizes = 20 + 240 * counts / counts.max()
        axes.scatter(confidence, good, s=sizes, marker=MARKERS[index], color=SERIES[index], alpha=0.85, zorder=4)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="share of good plans", aspect="equal")
    _legend(axes)
    told = "; ".join(
        f"{name}: {', '.join(f'{good:.2f} of {count} plans at {mean:.2f}' for mean, good, count in of)}"
        for name, of in bins.items()
    )
    caption = "Reliability of the confidence; larger marks stand for more plans"
    return Plot(caption, _svg(figure, caption), f"Share of good plans by confidence. {told}.")


def _axes(height: float) -> tuple[Figure, Axes]:
    """Axes that leave their colours to the page."""
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    figure.patch.set_alpha(0.0)
    axes = figure.subplots()
    axes.set_facecolor("none")
    axes.grid(color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(FAINT)
    axes.tick_params(colors=INK, length=0, labelsize=10)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    return figure, axes


def _style(index: int) -> dict[str, Any]:
    color = SERIES[index % len(SERIES)]
    return {"color": color, "marker": MARKERS[index % len(MARKERS)], "linewidth": 2.0, "markersize": 6}


def _label(name: str) -> str:
    """As it is, but that Matplotlib leaves names out which begin with an underscore."""
    return f" {name}" if name.startswith("_") else name


def _legend(axes: Axes, *, above: bool = False) -> None:
    place: dict[str, Any] = {"loc": "best"}
    if above:
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 3}
    axes.legend(frameon=False, labelcolor=INK, fontsize=10, **place)


def _svg(figure: Figure, caption: str) -> str:
    """The element alone; its ids come from the caption, and are not those of another plot on the page."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": caption}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    used = set(re.findall(r"#([\w-]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r"font: [^;\"]*?([\d.]+px)[^;\"]*", r"font-size: \1", svg)
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, variable)
    return svg


def _told(value: float | None, digits: int) -> str:
    return "none" if value is None else f"{value:.{digits}f}"
