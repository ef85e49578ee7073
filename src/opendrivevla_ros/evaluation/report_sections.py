"""The sections of a report about the driving world: which figures, which way is better, and as which plot."""

from collections.abc import Sequence

from opendrivevla_ros.evaluation.report_figures import (
    MAIN_PLANS,
    PLANS,
    Figures,
    caption_of,
    horizons,
    main_figures,
    named,
    tested_scores,
    transposed,
)
from opendrivevla_ros.evaluation.report_plots import reliability_plot, share_plot
from opendrivevla_ros.evaluation.report_results import PartResults
from opendrivevla_ros.evaluation.report_tables import (
    HIGHER,
    LOWER,
    Table,
    against_baselines,
    counted,
    number,
    percent,
    side_by_side,
)

FEW_SCENARIOS = 5  # of a family, below which its share says little


_DRIVER_PARTS = tuple(
    number(part.replace("_", " "), "driver_parts", part, better=HIGHER, digits=3)
    for part in ("no_collision", "drivable", "progress", "time_to_collision", "comfort")
)
_DRIVES = (
    counted("passed", "passed", better=HIGHER),
    counted("collisions", "collisions", better=LOWER),
    number("at fault", "at_fault", better=LOWER, digits=0),
    number("off road", "off_road", better=LOWER, digits=0),
    number("out of lane", "out_of_lane", better=LOWER, digits=0),
    number("too late", "too_late", better=LOWER, digits=0),
    percent("route driven", "completion", better=HIGHER, digits=0),
    percent("of it in the expert's time", "progress_of_expert", better=HIGHER, digits=0),
    counted("command carried out", "command_carried_out", better=HIGHER),
)
_MANNERS = (
    number("s behind the expert", "seconds_behind_expert", better=LOWER, digits=1),
    number("hardest braking, m/s²", "hardest_braking"),
    number("mean acceleration, m/s²", "mean_acceleration"),
    number("mean lateral, m/s²", "mean_lateral_acceleration"),
    number("mean jerk, m/s³", "mean_jerk"),
    number("plan, ms, p50", "plan_ms", "p50", better=LOWER, digits=0),
    number("plan, ms, p95", "plan_ms", "p95", better=LOWER, digits=0),
    number("plans", "plans", digits=0),
)


def closed_loop(parts: Sequence[PartResults], comparable: bool) -> Figures:
    """Outcomes beside the baselines, shares by family, manners."""
    tested = [_tested_driver(part) for part in parts]
    drivers = [part.results["drivers"] for part in parts]
    tables = []
    if len(parts) == 2:
        rows = [(part.run, of[name]) for part, of, name in zip(parts, drivers, tested, strict=True)]
        tables.append(side_by_side("The policies beside each other", _DRIVES + _MANNERS, rows, comparable=comparable))
    for part, of in zip(parts, drivers, strict=True):
        tables += [
            against_baselines(caption_of(part, parts, "Outcomes; in brackets 95 % intervals"), _DRIVES, of),
            against_baselines(caption_of(part, parts, "Manners"), _MANNERS, of),
        ]
    bars: dict[str, dict[str, float | None]] = {}
    points: dict[str, dict[str, float | None]] = {}
    for part, name in zip(parts, tested, strict=True):
        shares = _family_shares(part)
        bars[named(part, parts, name)] = shares[name]
        for other, row in part.results["drivers"].items():
            if other == name or row["sight"] not in ("seeing", "true state"):
                continue
            if points.setdefault(other, shares[other]) != shares[other]:
                points[f"{other}, {part.run}"] = shares[other]
    families = dict.fromkeys(family for shares in bars.values() for family in shares)
    bars = {name: {family: shares.get(family) for family in families} for name, shares in bars.items()}
    plot = share_plot("Scenarios passed, by family", bars, points)
    main = main_figures(
        _DRIVES, ("passed", "collisions", "route driven"), [of[name] for of, name in zip(drivers, tested, strict=True)]
    )
    return Figures(tuple(tables), (plot,), tuple(_seed_notes(parts)), main)


def _seed_notes(parts: Sequence[PartResults]) -> list[str]:
    few: dict[int, list[str]] = {}
    for part in parts:
        few.setdefault(len(part.results["seeds"]), []).append(part.run)
    return [
        f"{' and '.join(names)}: {count} scenario{'s' * (count > 1)} of each family, so these shares are coarse."
        for count, names in few.items()
        if count < FEW_SCENARIOS
    ]


def _tested_driver(part: PartResults) -> str:
    """The name of the policy that was under test, with its own eyes."""
    policy = part.settings["policy"]
    return next(
        name for name, row in part.results["drivers"].items() if row["policy"] == policy and row["sight"] == "seeing"
    )


def _family_shares(part: PartResults) -> dict[str, dict[str, float | None]]:
    by_family = part.results["passed_by_family"]
    return {
        name: {
            family: row[name]["count"] / row[name]["of"] if row[name]["of"] else None
            for family, row in by_family.items()
        }
        for name in part.results["drivers"]
    }


def open_loop(parts: Sequence[PartResults], comparable: bool) -> Figures:
    """Plans beside the baselines, and what perception saw."""
    tables = []
    if len(parts) == 2:
        seen = dict.fromkeys(name for part in parts for name in part.results["detection"]["classes"])
        lines = dict.fromkeys(name for part in parts for name in part.results["map"]["overlap"])
        metrics = (
            *PLANS,
            number("detection, mean AP", "detection", "mean_average_precision", better=HIGHER),
            *(
                number(f"AP of {name}", "detection", "classes", name, "average_precision", better=HIGHER)
                for name in seen
            ),
            *(
                number(f"map overlap, {name.replace('_', ' ')}", "map", "overlap", name, better=HIGHER)
                for name in lines
            ),
            number("identity switches a track", "identity", "switches_per_track", better=LOWER),
            percent("instants of tracks found", "identity", "recall", better=HIGHER),
        )
        rows = [(part.run, {**part.results, **part.results["policies"][part.results["policy"]]}) for part in parts]
        tables.append(side_by_side("The policies beside each other", metrics, rows, comparable=comparable))
    for part in parts:
        policies = part.results["policies"]
        tables += [
            against_baselines(caption_of(part, parts, "Plans"), PLANS, policies),
            against_baselines(
                caption_of(part, parts, "Driver score (PDMS), what it is made of"), _DRIVER_PARTS, policies
            ),
            _family_table(part, parts),
            _detection_table(part, parts),
        ]
    return Figures(
        tuple(tables), (horizons(parts, "the expert"),), main=main_figures(PLANS, MAIN_PLANS, tested_scores(parts))
    )


def text(parts: Sequence[PartResults], comparable: bool) -> Figures:
    """BLEU-4 and right answers, with and without scene tokens."""
    kinds = dict.fromkeys(kind for part in parts for kind in part.results["seeing"]["bleu"])
    questions = dict.fromkeys(kind for part in parts for kind in part.results["seeing"]["accuracy"])
    metrics = (
        *(number(f"BLEU-4, {kind.replace('_', ' ')}", "bleu", kind, better=HIGHER, digits=1) for kind in kinds),
        *(percent(f"right answers, {kind}", "accuracy", kind, better=HIGHER) for kind in questions),
        number("answers that did not come", "failures", better=LOWER, digits=0),
    )
    tables = []
    if len(parts) == 2:
        rows = [(part.run, part.results["seeing"]) for part in parts]
        tables.append(side_by_side("The policies beside each other", metrics, rows, comparable=comparable))
    for part in parts:
        pair = [(part.results["policy"], part.results["seeing"]), ("without scene tokens", part.results["blind"])]
        caption = caption_of(part, parts, f"{sum(part.results['counts'].values())} texts; {part.results['bleu']}")
        tables.append(side_by_side(caption, metrics, pair, comparable=False))
    return Figures(tuple(tables))


def confidence(parts: Sequence[PartResults], comparable: bool) -> Figures:
    """What the confidence is worth, and its reliability diagram."""
    metrics = (
        number("plans", "plans", digits=0),
        percent("off by more than 2 m at 3 s", "bad_share", better=LOWER),
        number("expected calibration error", "calibration_error", better=LOWER, digits=3),
        number("area under the curve", "area", better=HIGHER, digits=3),
    )
    if len(parts) == 2:
        rows = [(part.run, part.results) for part in parts]
        tables = [side_by_side("The policies beside each other", metrics, rows, comparable=comparable)]
    else:
        tables = [transposed("All plans", metrics, parts[0].results)]
    for part in parts:
        thresholds = tuple(
            (f"{least:g}", f"{100 * share:.1f} %", f"{100 * bad:.1f} %")
            for least, share, bad in part.results["thresholds"]
        )
        header = ("confidence below", "of all plans", "of the bad ones")
        tables.append(Table(caption_of(part, parts, "Plans that a least confidence turns down"), header, thresholds))
    bins = {named(part, parts, part.results["policy"]): part.results["reliability"] for part in parts}
    main = main_figures(
        metrics, ("expected calibration error", "area under the curve"), [part.results for part in parts]
    )
    return Figures(tuple(tables), (reliability_plot(bins),), main=main)


def faults(parts: Sequence[PartResults], comparable: bool) -> Figures:
    """What the guard makes of each fault."""
    metrics = (
        number("drives", "drives", digits=0),
        number("all well before", "nominal", digits=0),
        number("answered", "answered", digits=0),
        number("longest until answered, s", "longest_s", better=LOWER),
        number("stated, s", "within_s"),
        number("collisions", "collisions", better=LOWER, digits=0),
        number("same drives without", "collisions_without", digits=0),
        number("spoiled plans sent", "spoiled", better=LOWER, digits=0),
        number("unsafe plans sent", "unsafe", better=LOWER, digits=0),
        number("ended standing", "standing", digits=0),
    )
    tables = []
    for part in parts:
        table = against_baselines(caption_of(part, parts, "By fault"), metrics, part.results["faults"])
        tables.append(Table(table.caption, ("fault", *table.header[1:]), table.rows))
    if len(parts) == 2 and comparable:
        by_fault = [part.results["faults"] for part in parts]
        for name in (name for name in by_fault[0] if name in by_fault[1]):
            rows = [(part.run, of[name]) for part, of in zip(parts, by_fault, strict=True)]
            tables.append(side_by_side(f"Beside each other: {name}", metrics, rows, comparable=True))
    return Figures(tuple(tables))


def _family_table(part: PartResults, parts: Sequence[PartResults]) -> Table:
    names = list(part.results["policies"])
    rows = tuple(
        (
            family.replace("_", " "),
            *(f"{scores[name]['mean_displacement']:.2f}" for name in names),
            *(f"{100 * scores[name]['collides']:.1f} %" for name in names),
        )
        for family, scores in part.results["families"].items()
    )
    header = ("family", *(f"L2, m, {name}" for name in names), *(f"collide, {name}" for name in names))
    return Table(caption_of(part, parts, "By family: L2 over the six points, and plans that collide"), header, rows)


def _detection_table(part: PartResults, parts: Sequence[PartResults]) -> Table:
    found = part.results["detection"]
    metrics = (
        number("boxes", "true_boxes", digits=0),
        number("AP", "average_precision"),
        number("translation error, m", "translation"),
        number("scale error", "scale"),
        number("orientation error, rad", "orientation"),
        number("velocity error, m/s", "velocity"),
    )
    caption = f"Detection within {found['range_metres']:.0f} m, mean AP {found['mean_average_precision']:.2f}"
    table = against_baselines(caption_of(part, parts, caption), metrics, found["classes"])
    return Table(table.caption, ("class", *table.header[1:]), table.rows)
