"""A report as one HTML page that needs nothing else: no network, no script, no font, no other file."""

import base64
from collections.abc import Sequence
from html import escape
from itertools import zip_longest

from opendrivevla_ros.evaluation.moment_drawing import draw_moment
from opendrivevla_ros.evaluation.moments import ShownMoment
from opendrivevla_ros.evaluation.report import Report, Section
from opendrivevla_ros.evaluation.report_plots import Plot
from opendrivevla_ros.evaluation.report_results import PartResults
from opendrivevla_ros.evaluation.report_style import STYLE
from opendrivevla_ros.evaluation.report_tables import Table

PROSE = 45  # letters: a longer cell is read as text
_KEY = (
    '<p class="key" aria-hidden="true"><span><i class="k plan"></i>plan</span>'
    '<span><i class="k reference"></i>{reference}</span><span><i class="k agent"></i>{agents}</span>'
    '<span><i class="k map"></i>{lines}</span><span><i class="k ego"></i>own vehicle</span></p>'
)


def page(report: Report) -> str:
    """The page. Whatever comes from results, settings or a model is escaped."""
    sections = "".join(_section(section) for section in report.sections)
    links = "".join(f'<li><a href="#{section.name}">{escape(section.title)}</a></li>' for section in report.sections)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:;'
        " style-src 'unsafe-inline'\">"
        f"<title>{escape(report.title)}</title><style>{STYLE}</style></head><body>"
        '<a class="skip" href="#main">To the figures</a>'
        f"<header><p class=over>opendrivevla_ros {escape(report.version)}</p><h1>{escape(report.title)}</h1>"
        f'{_identities(report)}</header><nav aria-label="Sections"><ul>{links}</ul></nav>'
        f'<main id="main">{sections}</main></body></html>\n'
    )


def _identities(report: Report) -> str:
    cards = []
    for run, rows in zip(report.runs, report.identities, strict=True):
        told = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows)
        cards.append(f'<section class="card"><h2>{escape(run.name)}</h2><dl>{told}</dl></section>')
    return f'<div class="cards">{"".join(cards)}</div>'


def _section(section: Section) -> str:
    notes = "".join(f'<p class="note" role="note">{escape(note)}</p>' for note in section.notes)
    plots = "".join(_plot(plot) for plot in section.figures.plots)
    main = _main(section.figures.main)
    tables = "".join(_table(table) for table in section.figures.tables)
    return (
        f'<section class="part" id="{section.name}" aria-labelledby="{section.name}-title">'
        f'<h2 id="{section.name}-title">{escape(section.title)}</h2><p class="lead">{escape(section.lead)}</p>'
        f'{notes}<div class="plots">{plots}{main}</div>{tables}{_moments(section)}</section>'
    )


def _main(figures: Sequence[tuple[str, str]]) -> str:
    told = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(figure)}</dd></div>" for figure, name in figures)
    return f'<dl class="main">{told}</dl>' if told else ""


def _plot(plot: Plot) -> str:
    svg = plot.svg.replace("<svg", f'<svg role="img" aria-label="{escape(plot.alt)}"', 1)
    return f'<figure class="plot"><figcaption>{escape(plot.caption)}</figcaption>{svg}</figure>'


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.header)
    body = "".join(
        "<tr>"
        + "".join(_cell(text, column, (row, column) in table.better) for column, text in enumerate(cells))
        + "</tr>"
        for row, cells in enumerate(table.rows)
    )
    label = escape(table.caption)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}"><table><caption>{label}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(text: str, column: int, better: bool) -> str:
    if column == 0:
        return f'<th scope="row">{escape(text)}</th>'
    if len(text) > PROSE:
        return f'<td class="prose">{escape(text)}</td>'
    return f'<td class="better">{escape(text)}</td>' if better else f"<td>{escape(text)}</td>"


def _moments(section: Section) -> str:
    """The worst moments, those of two runs beside each other."""
    if section.name not in ("open-loop", "nuscenes", "bag"):
        return ""
    key = _KEY.format(
        reference="expert" if section.name == "open-loop" else "human",
        agents="others, as the plan named them" if section.name == "bag" else "others, as they were",
        lines="map, as it is" if section.name == "open-loop" else "map, as the plan named it",
    )
    ranks = zip_longest(*([_article(part, moment) for moment in part.moments or ()] for part in section.parts))
    both = len(section.parts) == 2
    heads = "".join(f'<h4 class="run">{escape(part.run)}</h4>' for part in section.parts) if both else ""
    body = "".join(article or "<div></div>" for rank in ranks for article in rank)
    missing = "".join(_no_moments(part) for part in section.parts if not part.moments)
    grid = "moments two" if both else "moments"
    return (
        f"<h3>The worst moments</h3><p>Where plan and reference are farthest apart, worst first; dots every 0.5 s."
        f' Plans that did not come have no picture.</p>{missing}{key}<div class="{grid}">{heads}{body}</div>'
    )


def _no_moments(part: PartResults) -> str:
    problem = (
        "none came with a plan"
        if part.moments is not None
        else f"none were kept; remove {part.path} and evaluate again to keep them"
    )
    return f'<p class="note" role="note">{escape(part.run)}: {problem}.</p>'


def _article(part: PartResults, moment: ShownMoment) -> str:
    """One moment: the front camera, the view from above, and what the model said."""
    if moment.front:
        data = base64.b64encode(moment.front).decode("ascii")
        alt = escape(f"Front camera of {moment.title}")
        front = f'<img src="data:image/jpeg;base64,{data}" alt="{alt}">'
    else:
        front = '<p class="nothing">no picture of the front camera</p>'
    words = f"<blockquote>{escape(moment.words)}</blockquote>" if moment.words else ""
    return (
        f'<article><h4><span class="metres">{moment.metres:.1f} m</span> {escape(moment.title)}</h4>'
        f'<div class="pictures"><div>{front}<p class="facts">{escape(moment.facts)}</p>{words}</div>'
        f"{draw_moment(moment)}</div></article>"
    )
