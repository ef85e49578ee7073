"""What an evaluation comes to on half a screen, for a README: a row for each who drove or planned."""

from collections.abc import Iterator, Mapping
from typing import Any

from opendrivevla_ros.evaluation.figures import markdown_table

COLUMNS = ("", "scenarios passed", "collisions", "commands carried out", "L2 over 3 s, m", "plans that touch", "score")
NOTHING = "-"


def summary(results: Mapping[str, Any]) -> str:
    """Markdown of the results of `odv evaluate world` by part, of those parts that are there.

    L2 is the average over the three seconds (UniAD), `score` the driver score of plans; for both the expert drives.
    """
    driven: Mapping[str, Any] = results.get("closed-loop", {}).get("drivers", {})
    planned: Mapping[str, Any] = results.get("open-loop", {}).get("policies", {})
    rows = [
        (name, *_driving(driven.get(name)), *_planning(planned.get(name)))
        for name in dict.fromkeys([*driven, *planned])
    ]
    sentences = " ".join(_sentences(results))
    return "\n\n".join(part.strip() for part in (markdown_table(COLUMNS, rows), sentences) if part) + "\n"


def _driving(row: Mapping[str, Any] | None) -> tuple[str, str, str]:
    if row is None:
        return NOTHING, NOTHING, NOTHING
    commands = row["command_carried_out"]
    return _of(row["passed"]), str(row["collisions"]["count"]), _of(commands) if commands["of"] else NOTHING


def _planning(scores: Mapping[str, Any] | None) -> tuple[str, str, str]:
    if scores is None:
        return NOTHING, NOTHING, NOTHING
    average = scores["displacement"]["uniad"]["average"]
    return f"{average:.2f}", f"{100 * scores['collides']:.1f} %", f"{scores['driver_score']:.3f}"


def _of(share: Mapping[str, Any]) -> str:
    return f"{share['count']} of {share['of']}"


def _sentences(results: Mapping[str, Any]) -> Iterator[str]:
    if open_loop := results.get("open-loop"):
        classes = {name: found["average_precision"] for name, found in open_loop["detection"]["classes"].items()}
        found = ", ".join(f"{name} {classes[name]:.2f}" for name in ("car", "pedestrian") if name in classes)
        yield f"Average precision within 30 m (nuScenes): {found}."
        overlaps = (open_loop["map_masks"] or open_loop["map"])["overlap"]
        lines = ", ".join(f"{name} {overlaps[name]:.2f}" for name in ("divider", "boundary") if name in overlaps)
        yield f"Map, intersection over union: {lines}."
    if text := results.get("text"):
        yield f"Captions, BLEU-4: {text['seeing']['bleu']['all']:.1f}, without scene tokens"
        yield f"{text['blind']['bleu']['all']:.1f}; right answers {100 * text['seeing']['accuracy']['all']:.0f} and"
        yield f"{100 * text['blind']['accuracy']['all']:.0f} %."
    if confidence := results.get("confidence"):
        area = 100 * confidence["area"]
        yield f"Of a good plan and a bad one, the good one has more confidence in {area:.0f} of 100."
