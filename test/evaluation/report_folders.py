"""Output folders of evaluations for the tests of reports: small, with figures that are easy to recognise."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from opendrivevla_ros.evaluation.bag_evaluation import BagRecord, Moment, bag_results
from opendrivevla_ros.evaluation.moments import ShownMoment, write_moments

VERSION = "1.2.3"
STEPS = np.arange(1, 7)


def shown(scene: str = "bend 9", seconds: float = 2.0, off: float = 3.0, **changes: Any) -> ShownMoment:
    """A plan straight on that ends `off` metres farther than the reference."""
    reference = np.column_stack([4.0 * STEPS, np.zeros(6)])
    plan = reference + np.column_stack([off * STEPS / 6, np.zeros(6)])
    agents = np.array([[14.0, 3.0, 0.1, 4.5, 1.9], [8.0, -3.5, 3.1, 0.8, 0.8]])
    lines = (np.array([[-5.0, 2.0], [30.0, 2.0]]), np.array([[-5.0, -2.0], [30.0, -2.0]]))
    fields: dict[str, Any] = {"words": "a car ahead", "facts": "8.0 m/s"}
    return ShownMoment(scene, seconds, off, plan, reference, agents, lines, **{**fields, **changes})


def horizon(value: float) -> dict[str, Any]:
    """A measure that grows with the horizon, `value` on average (UniAD), half of it up to each time (ST-P3)."""
    ends = {"one_second": value / 2, "two_seconds": value, "three_seconds": 1.5 * value, "average": value}
    return {"uniad": ends, "stp3": {name: end / 2 for name, end in ends.items()}}


def plan_scores(metres: float, collides: float = 0.1) -> dict[str, Any]:
    return {
        "samples": 20,
        "failures": 0,
        "displacement": horizon(metres),
        "mean_displacement": metres,
        "collides": collides,
        "collision": horizon(collides),
        "occupancy": horizon(collides),
        "driver_score": 0.8,
        "driver_parts": {"no_collision": 0.9, "comfort": 1.0},
    }


def open_loop(metres: float = 1.25, **changes: Any) -> dict[str, Any]:
    policies = {"small": plan_scores(metres), "constant_velocity": plan_scores(2.5)}
    overlap = {"divider": 0.5, "boundary": 0.6}
    return {
        "policy": "small",
        "scenes": 2,
        "samples": 20,
        "policies": policies,
        "families": {"bend": policies},
        "detection": {
            "range_metres": 30.0,
            "mean_average_precision": 0.24,
            "classes": {"car": {"true_boxes": 7, "average_precision": 0.49, "translation": 0.5}},
        },
        "identity": {"switches_per_track": 0.1, "recall": 0.7},
        "map": {"overlap": overlap},
        **changes,
    }


def closed_loop(passed: int = 6, of: int = 10, interval: tuple[float, float] = (0.31, 0.83)) -> dict[str, Any]:
    def driver(policy: str | None, count: int, ends: tuple[float, float]) -> dict[str, Any]:
        sight = "seeing" if policy else "true state"
        share = {"count": count, "of": of, "interval": list(ends)}
        figures = {"passed": share, "collisions": {**share, "count": of - count}, "at_fault": 1, "completion": 0.9}
        return {"policy": policy, "sight": sight, **figures, "plan_ms": {"p50": 100.0, "p95": 150.0}}

    drivers = {"small": driver("checkpoints/small", passed, interval), "expert": driver(None, of, (0.72, 1.0))}
    shares = {name: {"count": row["passed"]["count"], "of": of} for name, row in drivers.items()}
    return {"seeds": list(range(of)), "drivers": drivers, "passed_by_family": {"bend": shares}}


def nuscenes(samples: int = 6019, **changes: Any) -> dict[str, Any]:
    policies = {"small": plan_scores(0.5), "constant_velocity": plan_scores(1.5)}
    problems: dict[str, Any] = {"scenes": {}, "missing": [], "unknown": [], "duplicated": []}
    return {
        "policy": "small",
        "split": "val",
        "samples": samples,
        "complete": True,
        "problems": problems,
        "policies": policies,
        "detection": {"nd_score": 0.41, "mean_ap": 0.33},
        "tracking": {"amota": 0.2},
        **changes,
    }


def confidence() -> dict[str, Any]:
    return {
        "policy": "small",
        "plans": 20,
        "bad_share": 0.4,
        "calibration_error": 0.05,
        "area": 0.7,
        "thresholds": [[0.1, 0.0, 0.0], [0.5, 0.3, 0.5]],
        "reliability": [[0.3, 0.4, 5], [0.7, 0.7, 15]],
    }


def texts() -> dict[str, Any]:
    scores = {"bleu": {"all": 40.0}, "accuracy": {"all": 0.5}, "failures": 1}
    blind = {**scores, "accuracy": {"all": 0.25}}
    return {"policy": "small", "counts": {"question count": 4}, "bleu": "tok:13a", "seeing": scores, "blind": blind}


def faults(collisions: int = 0) -> dict[str, Any]:
    row = {"drives": 4, "nominal": 4, "answered": 4, "longest_s": 0.35, "within_s": 0.5, "collisions": collisions}
    return {"faults": {"model killed": row, "camera black": {**row, "longest_s": None}}}


def bag(offs: dict[float, float], failures: dict[str, int] | None = None) -> dict[str, Any]:
    """Results of a bag with plans so many metres ahead of a human who goes straight on, by speed."""
    moments = []
    for index, (speed, off) in enumerate(offs.items()):
        human = np.column_stack([0.5 * speed * STEPS, np.zeros(6), np.zeros(6)])
        plan, seek_s = human + np.array([off, 0.0, 0.0]), 0.5 * index
        blind = {"constant_velocity": human[:, :2], "ego_state": human[:, :2] + [0.3, 0.4]}
        moments.append(Moment("drive", seek_s, index, speed, plan, human, blind, 0.9, None, True, True, 0.1))
    return bag_results([BagRecord("drive", tuple(moments), failures)])


def write_bag_run(folder: Path, results: dict[str, Any], **changes: Any) -> Path:
    """As `odv evaluate bag` writes it."""
    settings = {"policy": "small", "weights": "0123abcd", "bags": ["drive"], "version": VERSION, **changes}
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps({"settings": settings, **results}))
    return folder


def write_run(
    folder: Path, *, version: str = VERSION, moments: list[ShownMoment] | None = None, **parts: dict[str, Any]
) -> Path:
    """As `odv evaluate world` writes it. parts: results by name, with _ for -. moments: of each part that has them."""
    folder.mkdir(parents=True)
    results = {name.replace("_", "-"): of_part for name, of_part in parts.items()}
    for name, of_part in results.items():
        settings = {"policy": "checkpoints/small", "scenes": 2, "weights": "0123abcd", "version": version}
        content = {"settings": settings, "results": of_part, "markdown": ""}
        (folder / f"{name}.json").write_text(json.dumps(content))
        if moments is not None:
            (folder / name).mkdir()
            write_moments(folder / name, moments)
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def change_settings(folder: Path, part: str, **changes: Any) -> None:
    """Other settings for a part that is there."""
    path = folder / f"{part}.json"
    content = json.loads(path.read_text())
    content["settings"].update(changes)
    path.write_text(json.dumps(content))
