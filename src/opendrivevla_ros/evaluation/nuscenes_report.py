"""All figures of a policy on nuScenes, as JSON and as the tables that papers print."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opendrivevla_ros.evaluation.figures import json_text, markdown_table, share
from opendrivevla_ros.evaluation.nuscenes_official import official_figures
from opendrivevla_ros.evaluation.nuscenes_open_loop import TESTS, OpenLoopFigures, PlanFigures, open_loop_figures
from opendrivevla_ros.evaluation.nuscenes_records import Problems, SceneRecord
from opendrivevla_ros.evaluation.open_loop import HorizonValues
from opendrivevla_ros.evaluation.plan_scores import Measure

HORIZONS = ("1 s", "2 s", "3 s", "average")
NAMED = 3  # of a kind; results.json names all
ERRORS = {"trans_err": "ATE", "scale_err": "ASE", "orient_err": "AOE", "vel_err": "AVE", "attr_err": "AAE"}
TRACKING = {
    "amota": "AMOTA",
    "amotp": "AMOTP",
    "recall": "recall",
    "mota": "MOTA",
    "ids": "switches",
    "frag": "fragments",
}


@dataclass(frozen=True)
class NuScenesResult:
    """policy: the name of the one under test. complete: every sample of the split is in the figures.

    tests: what the collision tests are, by their names in `policies`. detection, tracking: see
    `nuscenes_official.OfficialFigures`; None for policies that see nothing. agents_left_out: see `SampleRecord`.
    """

    policy: str
    split: str
    scenes: int
    samples: int
    complete: bool
    problems: Problems
    steps_beyond: int
    reference_touches: dict[str, int]
    policies: dict[str, PlanFigures]
    detection: dict[str, Any] | None
    tracking: dict[str, Any] | None
    agents_left_out: int
    tests: dict[str, str] = field(default_factory=lambda: dict(TESTS))

    def to_json(self) -> str:
        """All figures."""
        return json_text(self)

    def markdown(self) -> str:
        """All tables, and above them what is not in them."""
        parts = [*self._not_whole(), self._displacement(), *(self._collisions(test) for test in TESTS)]
        return "\n".join([*parts, self._detection(), self._tracking()])

    def _not_whole(self) -> list[str]:
        lines = []
        if not self.complete:
            lines.append(f"**Not the whole split {self.split}:** the figures cannot be held against published ones.\n")
        lines += [f"{scene} is not in the figures: {problem}\n" for scene, problem in self.problems.scenes.items()]
        for named, what in (
            (self.problems.absent, "scenes of the split are not in the data set"),
            (self.problems.missing, "samples of the split are missing"),
            (self.problems.unknown, "recorded samples are not of the split and are left out"),
            (self.problems.duplicated, "samples were recorded more than once and are left out"),
        ):
            if named:
                first = ", ".join(named[:NAMED]) + (", ..." if len(named) > NAMED else "")
                lines.append(f"{len(named)} {what}: {first}\n")
        for name, figures in self.policies.items():
            if figures.failures:
                reasons = ", ".join(f"{count} for {reason}" for reason, count in figures.reasons.items())
                lines.append(
                    f"{name} gave no plan {figures.failures} times ({reasons}), which count as standing still.\n"
                )
        if self.agents_left_out:
            lines.append(f"{self.agents_left_out} road users that {self.policy} told are broken and left out.\n")
        return lines

    def _displacement(self) -> str:
        text = (
            f"Open loop, {self.samples} samples of {self.scenes} scenes of {self.split}; {self.steps_beyond} of the"
            f" {6 * self.samples} times lie beyond a scene's end and count as 0, as published. L2 in metres; ST-P3:"
            " mean of the points up to the time; UniAD: at the time."
        )
        rows = [
            [name, *_cells(figures.displacement, "{:.2f}".format), str(figures.failures)]
            for name, figures in self.policies.items()
        ]
        return f"{text}\n\n" + markdown_table(["L2", *_columns(), "no plan"], rows)

    def _collisions(self, test: str) -> str:
        rows = [[name, *_cells(getattr(figures, test), share)] for name, figures in self.policies.items()]
        text = (
            f"Collisions, {TESTS[test]}. The reference itself touches in {self.reference_touches[test]} samples, whose"
            " steps are excused.\n\n"
        )
        return text + markdown_table(["collisions", *_columns()], rows)

    def _detection(self) -> str:
        if self.detection is None:
            return f"Detection and tracking: {self.policy} tells no road users.\n"
        errors = self.detection["tp_errors"]
        text = f"Detection by nuscenes-devkit: NDS {_text(self.detection['nd_score'])}"
        text += f", mAP {_text(self.detection['mean_ap'])}"
        text += "".join(f", m{short} {_text(errors[key])}" for key, short in ERRORS.items())
        rows = [
            [name, *map(_text, [precision, *(self.detection["label_tp_errors"][name][key] for key in ERRORS)])]
            for name, precision in self.detection["mean_dist_aps"].items()
        ]
        return f"{text}.\n\n" + markdown_table(["class", "AP", *ERRORS.values()], rows)

    def _tracking(self) -> str:
        if self.tracking is None:
            return ""
        figures = self.tracking["label_metrics"]
        rows = [["all", *(_text(self.tracking[key]) for key in TRACKING)]]
        rows += [[name, *(_text(figures[key].get(name)) for key in TRACKING)] for name in figures["amota"]]
        return "Tracking by nuscenes-devkit.\n\n" + markdown_table(["class", *TRACKING.values()], rows)


def nuscenes_result(
    records: Sequence[SceneRecord],
    problems: Problems,
    *,
    policy: str,
    root: Path,
    version: str,
    split: str,
    folder: Path,
) -> NuScenesResult:
    """The figures of recorded scenes.

    policy: the one that told what it saw. folder: for the files that the devkit reads.
    """
    open_loop: OpenLoopFigures = open_loop_figures(records)
    official = official_figures(root, version, split, records, folder)
    return NuScenesResult(
        policy=policy,
        split=split,
        scenes=len(records),
        samples=open_loop.samples,
        complete=not problems,
        problems=problems,
        steps_beyond=open_loop.steps_beyond,
        reference_touches=open_loop.reference_touches,
        policies=open_loop.policies,
        detection=official.detection,
        tracking=official.tracking,
        agents_left_out=sum(sample.agents_left_out for record in records for sample in record.samples),
    )


def _columns() -> list[str]:
    return [f"{convention} {horizon}" for convention in ("ST-P3", "UniAD") for horizon in HORIZONS]


def _cells(measure: Measure, text: Any) -> list[str]:
    return [text(value) for values in (measure.stp3, measure.uniad) for value in _row(values)]


def _row(values: HorizonValues) -> tuple[float, ...]:
    return values.one_second, values.two_seconds, values.three_seconds, values.average


def _text(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.3f}"
