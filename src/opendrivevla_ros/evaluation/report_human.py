"""The sections of a report where a human drove: nuScenes and bags."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from opendrivevla_ros.evaluation.published import PUBLISHED, SAMPLES, SPLIT
from opendrivevla_ros.evaluation.report_figures import (
    HORIZONS,
    MAIN_PLANS,
    NO_BREAK,
    PLANS,
    Figures,
    caption_of,
    horizons,
    main_figures,
    named,
    tested_scores,
    transposed,
)
from opendrivevla_ros.evaluation.report_plots import Plot, bars_plot
from opendrivevla_ros.evaluation.report_results import PartResults
from opendrivevla_ros.evaluation.report_tables import (
    HIGHER,
    LOWER,
    Table,
    against_baselines,
    number,
    percent,
    side_by_side,
)

_LEFT_OUT = {
    "missing": "have no record",
    "unknown": "are not of the split",
    "duplicated": "were recorded more than once",
}


_ORIENTED = (
    percent("oriented boxes, vehicles (ST-P3)", "collision", "stp3", "average", better=LOWER, digits=2),
    percent("and pedestrians (ST-P3)", "collision_all", "stp3", "average", better=LOWER, digits=2),
)
_OFFICIAL = (
    number("NDS", "detection", "nd_score", better=HIGHER, digits=3),
    number("mean AP", "detection", "mean_ap", better=HIGHER, digits=3),
    number("AMOTA", "tracking", "amota", better=HIGHER, digits=3),
    number("AMOTP", "tracking", "amotp", better=LOWER, digits=3),
    number("identity switches", "tracking", "ids", better=LOWER, digits=0),
)


def nuscenes(parts: Sequence[PartResults], comparable: bool) -> Figures:
    """Plans beside the baselines and, where all of the same data was planned, beside what others have published."""
    metrics = PLANS + _ORIENTED
    tables = []
    if len(parts) == 2:
        rows = [
            (part.run, {**part.results, **scores}) for part, scores in zip(parts, tested_scores(parts), strict=True)
        ]
        caption = "The policies beside each other"
        tables.append(side_by_side(caption, metrics + _OFFICIAL, rows, comparable=comparable))
    for part in parts:
        tables.append(against_baselines(caption_of(part, parts, "Plans"), metrics, part.results["policies"]))
        if part.results["detection"]:
            caption = caption_of(part, parts, "Detection and tracking, by nuscenes-devkit")
            tables.append(transposed(caption, _OFFICIAL, part.results))
    whole = [part for part in parts if _is_published_data(part)]
    if whole:
        tables.append(_published_table(whole, parts))
    notes = [note for part in parts for note in _nuscenes_notes(part)]
    main = main_figures(metrics, MAIN_PLANS, tested_scores(parts))
    return Figures(tuple(tables), (horizons(parts, "the human"),), tuple(notes), main)


def _is_published_data(part: PartResults) -> bool:
    results = part.results
    return bool(results["split"] == SPLIT and results["samples"] == SAMPLES and results["complete"])


def _nuscenes_notes(part: PartResults) -> list[str]:
    """What is in no figure, and what the figures cannot be held against."""
    results, notes = part.results, []
    if not _is_published_data(part):
        notes.append(
            f"{part.run}: published figures are of all {SAMPLES} samples of nuScenes' split {SPLIT}; these are of"
            f" {results['samples']} samples of the split {results['split']}, so none are shown beside them."
        )
    problems = results["problems"]
    notes += [f"{part.run}: {scene} is not in the figures: {why}" for scene, why in problems["scenes"].items()]
    notes += [
        f"{part.run}: {len(problems[kind])} samples are in no figure, because they {why}."
        for kind, why in _LEFT_OUT.items()
        if problems[kind]
    ]
    return notes


def _published_table(whole: Sequence[PartResults], parts: Sequence[PartResults]) -> Table:
    rows = []
    for part in whole:
        scores = part.results["policies"][part.results["policy"]]
        for key, convention in (("uniad", "UniAD"), ("stp3", "ST-P3")):
            keys = (*HORIZONS, "average")
            metres = [f"{scores['displacement'][key][horizon]:.2f}" for horizon in keys]
            shares = [f"{100 * scores['occupancy'][key][horizon]:.2f}" for horizon in keys]
            source = "this evaluation"
            rows.append((named(part, parts, part.results["policy"]), convention, *metres, *shares, source))
    for known in PUBLISHED:
        figures = ["-" if value is None else f"{value:.2f}" for value in (*known.l2, *known.collisions)]
        rows.append((known.model, known.convention, *figures, known.source))
    header = ["", "convention"]
    header += [f"{what} {at}" for what in ("L2, m,", "collisions, %,") for at in ("1 s", "2 s", "3 s", "average")]
    return Table("Beside published figures of nuScenes", (*header, "source"), tuple(rows))


def bag(parts: Sequence[PartResults], comparable: bool) -> Figures:
    """Distances from the human by speed and turn, beside blind policies; comfort, jitter, events."""
    metrics = (
        *(
            number(f"L2 at{NO_BREAK}{second}{NO_BREAK}s, m", "all", "l2", str(second), better=LOWER)
            for second in (1, 2, 3)
        ),
        number("average (UniAD), m", "all", "uniad", better=LOWER),
        number("average up to (ST-P3), m", "all", "stp3", better=LOWER),
        *(number(f"{name} (UniAD), m", "all", "baselines", key, "uniad") for key, name in _blind(parts).items()),
        number("lengthwise at 3 s, m", "all", "lengthwise", better=LOWER),
        number("sideways at 3 s, m", "all", "sideways", better=LOWER),
        number("heading at 3 s, rad", "all", "heading", better=LOWER),
        percent("comfortable plans", "comfortable", better=HIGHER, digits=0),
        percent("comfortable ways of the human", "human_comfortable", digits=0),
        number("from plan to plan, m, p50", "jitter", "p50", better=LOWER),
        number("from plan to plan, m, p95", "jitter", "p95", better=LOWER),
        number("a plan takes, s, p50", "latency_s", "p50", better=LOWER),
        number("a plan takes, s, p95", "latency_s", "p95", better=LOWER),
        percent("more than 2 m off at 3 s", "confidence", "bad_share", better=LOWER),
        number("expected calibration error", "confidence", "calibration_error", better=LOWER, digits=3),
        number("area under the curve", "confidence", "area", better=HIGHER, digits=3),
        number("plans", "plans", digits=0),
    )
    rows = {part.run: part.results for part in parts}
    if len(parts) == 2:
        tables = [side_by_side("The policies beside each other", metrics, list(rows.items()), comparable=comparable)]
    else:
        tables = [transposed("All plans", metrics, parts[0].results)]
    for part in parts:
        tables += [_bag_kinds(part, parts), _bag_list(part, parts)]
    failed = [
        f"{part.run}: without a plan {_failures(part.results['failures'])}."
        for part in parts
        if part.results["failures"]
    ]
    main = main_figures(metrics, ("average (UniAD), m", "constant velocity (UniAD), m", "plans"), list(rows.values()))
    return Figures(tuple(tables), tuple(_bag_plots(parts)), tuple(failed), main)


def _blind(parts: Sequence[PartResults]) -> dict[str, str]:
    """The policies that see nothing beside the one that drives, by their names in the results, as words."""
    names = dict.fromkeys(name for part in parts for name in part.results["all"]["baselines"])
    return {name: name.replace("_", " ") for name in names}


def _failures(failures: Mapping[str, int]) -> str:
    return ", ".join(f"{count} times for {name.replace('_', ' ')}" for name, count in failures.items())


def _bag_plots(parts: Sequence[PartResults]) -> list[Plot]:
    bands = list(dict.fromkeys(band for part in parts for band in part.results["by_speed"]))
    planned: dict[str, list[float | None]] = {}
    baselines: dict[str, list[float | None]] = {}
    for part in parts:
        rows = part.results["by_speed"]
        planned[named(part, parts, "policy")] = [rows[band]["uniad"] if band in rows else None for band in bands]
        for key, name in _blind([part]).items():
            baseline = [rows[band]["baselines"][key]["uniad"] if band in rows else None for band in bands]
            if baselines.setdefault(name, baseline) != baseline:  # other bags, or other plans that did not come
                baselines[f"{name}, {part.run}"] = baseline
    by_speed = "Average distance from the human (UniAD), by speed"
    edges = parts[0].results["distances"]["metres"]
    bins = [f"< {edges[0]:g}", *(f"{low:g}-{high:g}" for low, high in pairwise(edges)), f"≥ {edges[-1]:g}"]
    counts = {named(part, parts, "policy"): part.results["distances"]["counts"] for part in parts}
    by_distance = "Plans by their greatest distance from the human, metres"
    return [
        bars_plot(by_speed, "metres", [_band(band) for band in bands], {**planned, **baselines}),
        bars_plot(by_distance, "plans", bins, counts, digits=0),
    ]


def _band(name: str) -> str:
    return name.replace(" m/s and more", "+ m/s").replace(" to ", "-")


def _bag_kinds(part: PartResults, parts: Sequence[PartResults]) -> Table:
    kinds = {**part.results["by_speed"], **part.results["by_turn"]}
    metrics = (
        number("plans", "plans", digits=0),
        *(number(f"L2 at{NO_BREAK}{second}{NO_BREAK}s, m", "l2", str(second)) for second in (1, 2, 3)),
        number("average (UniAD), m", "uniad"),
        *(number(f"{name} (UniAD), m", "baselines", key, "uniad") for key, name in _blind([part]).items()),
        number("ahead at 3 s, m", "ahead"),
        number("left at 3 s, m", "left"),
    )
    table = against_baselines(caption_of(part, parts, "By speed, and by what the human does"), metrics, kinds)
    return Table(table.caption, ("", *table.header[1:]), table.rows)


def _bag_list(part: PartResults, parts: Sequence[PartResults]) -> Table:
    rows = tuple(
        (row["bag"], str(row["plans"]), str(row["unknown"]), row["problem"] or "-") for row in part.results["bags"]
    )
    return Table(caption_of(part, parts, "Bags"), ("bag", "plans", "without a whole future", "problem"), rows)
