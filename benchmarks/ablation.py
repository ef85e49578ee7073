"""What each training stage is for: the small model's stages, each left out in turn, in the manner of the paper.

`python benchmarks/ablation.py runs/ablation` takes the perception and the ego's query of a checkpoint as they are,
draws drives of the expert that neither learned from, and trains a language model from nothing for each row, to the
same budgets, far below those of the recipe (see `stages`). A row leaves out one stage, or the training of the
perception, or that of the ego's query; in the last two nothing is proposed, for it would be chance. Then the rows
plan, drive and speak on test seeds. Two rows train at a time, a core each. What is done is kept, and what was cut off
goes on.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import torch
from rich.progress import Progress
from torch import Tensor

from opendrivevla_ros.cli.console import show_progress
from opendrivevla_ros.evaluation.closed_loop import Drive
from opendrivevla_ros.evaluation.closed_loop_runs import ClosedLoopSettings, policy_infos, run_closed_loop
from opendrivevla_ros.evaluation.figures import markdown_table, share
from opendrivevla_ros.evaluation.text_metrics import evaluate_text
from opendrivevla_ros.evaluation.world_open_loop import evaluate_open_loop
from opendrivevla_ros.policies.checkpoint import CONFIG
from opendrivevla_ros.policies.opendrivevla.config import OpenDriveVlaConfig, save_config
from opendrivevla_ros.policies.opendrivevla.model import OpenDriveVlaModel, load_config, load_model
from opendrivevla_ros.training.initialisation import start_from_nothing
from opendrivevla_ros.training.loop import LoopSettings
from opendrivevla_ros.training.metrics import read_metrics
from opendrivevla_ros.training.recipe import (
    EXPERT,
    SPEECH,
    EgoStep,
    LanguageStep,
    OwnDrivesStep,
    PerceptionStep,
    Recipe,
)
from opendrivevla_ros.training.recipe_run import RecipeRun
from opendrivevla_ros.training.step_run import WEIGHTS

ALL = "all stages"
PERCEPTION, EGO = "perception", "ego"  # steps whose weights the checkpoint has
DRIVES = "drives"
TRUTH, TOKENS = "truth", f"tokens_{PERCEPTION}"  # folders of what is there, and of what that perception sees
FIRST, SCENARIOS = 51000, 840  # of the expert's drives, the families in turn
SCENES = 28  # of open loop and text, two of each family, as many as are driven in closed loop
CORES = 2
FLAT = 200.0  # a prior of proposals so many times as far off as expected says next to nothing of the digits


def stages(budget: float) -> tuple[LanguageStep, ...]:
    """The language stages; budget: the share of their steps that is made."""
    planned = (
        ("schooling", "schooling", 700, 1.5e-3, SPEECH),
        ("alignment", "alignment", 60, 1.5e-3, {"caption": 3.0, "plan": 1.0}),
        ("instruction", "instruction", 120, 1e-3, {"question": 4.0, "caption": 2.0, "plan": 4.0}),
        ("interaction", "interaction", 120, 1e-3, {"agent": 4.0, "question": 1.0, "plan": 5.0}),
        ("driving", "instruction", 400, 1.5e-3, SPEECH),
    )
    return tuple(
        LanguageStep(
            name,
            stage,
            LoopSettings(
                steps=max(1, round(budget * steps)),
                learning_rate=rate,
                batch_size=16,
                warmup_steps=50,
                clip_norm=1.0,
                precision="bf16",
                save_every=50,
            ),
            shares,
            reads=(DRIVES,),
            truth=name == "schooling",
            moments=2,
        )
        for name, stage, steps, rate, shares in planned
    )


ROWS = (ALL, *(step.name for step in stages(1.0)), EGO, PERCEPTION)


class _Unproposed(RecipeRun):
    """A run of a model to which perception proposes nothing."""

    def config(self) -> OpenDriveVlaConfig:
        return replace(super().config(), proposal_scales=())


class Row:
    """All stages but one, in a folder of its own; what is the same as in the row of all stages is a link."""

    def __init__(self, output: Path, checkpoint: Path, left_out: str, budget: float, scenarios: int) -> None:
        self.name = left_out if left_out == ALL else f"without {left_out}"
        self._output, self._checkpoint, self._left_out = output, checkpoint, left_out
        begun = LoopSettings(steps=1, learning_rate=1e-3)
        given = (PerceptionStep(PERCEPTION, begun, 1), EgoStep(EGO, begun))
        self._all = stages(budget)
        kept = tuple(step for step in self._all if step.name != left_out)
        self._drives = OwnDrivesStep(DRIVES, FIRST, scenarios, driver=EXPERT)
        recipe = Recipe(scenarios=0, image_size=(224, 126), steps=(self._drives, *given, *kept))
        self._proposes = left_out not in (PERCEPTION, EGO)
        run = RecipeRun if self._proposes else _Unproposed
        self.run = run(recipe, output / "rows" / self.name)

    def prepare(self) -> None:
        """Links, the weights to begin with, and the tokens."""
        folder = self.run.folder
        folder.mkdir(parents=True, exist_ok=True)
        for kind in (DRIVES, TRUTH, TOKENS):
            unshared = kind == TOKENS and not self._proposes
            shared = self._output / (f"{kind} without {self._left_out}" if unshared else kind)
            shared.mkdir(exist_ok=True)
            _link(folder / kind, shared)
        _link(folder / "tokenizer", self._checkpoint)
        for given in (PERCEPTION, EGO):
            (folder / given).mkdir(exist_ok=True)
            torch.save(self._perception(), folder / given / WEIGHTS)
        for step in self._all[: self._shared]:
            _link(folder / step.name, self._output / "rows" / ALL / step.name)
        show_progress(f"{self.name}: drives", self.run.drive(self._drives, CORES))
        show_progress(f"{self.name}: truth", self.run.look(CORES, DRIVES, self._all[0]))
        show_progress(f"{self.name}: tokens", self.run.look(CORES, DRIVES))

    def train(self) -> None:
        """Trains what is not done, on one core, and leaves the checkpoint."""
        torch.set_num_threads(1)
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  for good: two bars at once would spoil each other
        steps = self.run.recipe.training_steps
        for step in steps:
            if not self.run.is_done(step):
                self.run.run(step)
        weights = self.run.weights_before(steps[-1]) | self.run.weights_after(steps[-1])
        self.run.save_checkpoint(weights, self.checkpoint, card=f"{self.name}\n")
        if self._proposes:
            shutil.copytree(self.checkpoint, self.by_words, dirs_exist_ok=True)
            config = load_config(self.checkpoint)
            flat = tuple((FLAT,) * len(pair) for pair in config.proposal_scales)
            save_config(replace(config, proposal_scales=flat), self.by_words / CONFIG)

    @property
    def checkpoint(self) -> Path:
        """Where it is left; the folder's name stands in the figures."""
        return self._output / "checkpoints" / self.name

    @property
    def by_words(self) -> Path:
        """Beside it, a copy that writes its plans by the words alone; itself where nothing is proposed anyway."""
        if not self._proposes:
            return self.checkpoint
        return self._output / "checkpoints" / f"{self.name}, by words"

    @property
    def steps(self) -> tuple[int, int]:
        """Of its own, those that are made and all."""
        own = [step for step in self._all[self._shared :] if step.name != self._left_out]
        begun = [self.run.folder / step.name for step in own if (self.run.folder / step.name).exists()]
        return sum(len(read_metrics(folder)) for folder in begun), sum(step.loop.steps for step in own)

    @property
    def _shared(self) -> int:
        """How many of the first stages are those of the row of all stages."""
        if self._left_out in (EGO, PERCEPTION):
            return 1  # schooling, which reads the truth and no tokens
        return 0 if self._left_out == ALL else [step.name for step in self._all].index(self._left_out)

    def _perception(self) -> dict[str, Tensor]:
        """The checkpoint's, without the training of what is left out."""
        trained, _ = load_model(self._checkpoint)
        weights = trained.float().state_dict()
        torch.manual_seed(0)
        untrained = OpenDriveVlaModel(trained.config)
        start_from_nothing(untrained.perception)
        part = {PERCEPTION: "perception.", EGO: "perception.ego_query."}.get(self._left_out)
        if part is not None:
            weights |= {name: value for name, value in untrained.state_dict().items() if name.startswith(part)}
        return {name: value for name, value in weights.items() if name.startswith("perception.")}


def _link(link: Path, to: Path) -> None:
    if not link.is_symlink():
        link.symlink_to(to.resolve())


def train_rows(rows: list[Row]) -> None:
    """Trains all rows; the others begin with steps of the first, but for the second, which shares none."""
    with ProcessPoolExecutor(CORES, get_context("spawn")) as pool, Progress() as bar:
        tasks = {row.name: bar.add_task(row.name, total=row.steps[1]) for row in rows}
        jobs: list[Future[None]] = [pool.submit(row.train) for row in rows[:CORES]]
        first = jobs[0]
        while jobs:
            wait(jobs, timeout=5.0)
            for row in rows:
                bar.update(tasks[row.name], completed=row.steps[0])
            done = [job for job in jobs if job.done()]
            if first in done:
                jobs += [pool.submit(row.train) for row in rows[CORES:]]
            for job in done:
                job.result()
                jobs.remove(job)


def table(rows: list[Row], scenes: int) -> str:
    """Plans, drives and words of every row, as Markdown."""
    sources = {row.name: str(row.checkpoint) for row in rows}
    by_words = {row.name: row.by_words for row in rows}
    copies = [str(path) for name, path in by_words.items() if str(path) != sources[name]]
    first, *others = sources.values()
    scenarios = max(1, scenes // 14)
    with Progress() as bar:

        def told(what: str) -> Callable[[int, int], None]:
            task = bar.add_task(what, total=None)
            return lambda done, total: bar.update(task, completed=done, total=total)

        planned = evaluate_open_loop(
            first, baselines=[*others, *copies], scenes=scenes, processes=CORES, progress=told("open loop")
        ).policies
        settings = ClosedLoopSettings(first, beside=tuple(others), scenarios=scenarios)
        drives = run_closed_loop(
            settings, policy_infos(settings), processes=CORES, progress=told("closed loop")
        ).drives
        spoken = {
            name: evaluate_text(source, scenes=scenes, processes=CORES, progress=told(f"text, {name}")).seeing
            for name, source in sources.items()
        }
    header = [
        "",
        "L2, m",
        "by words alone, m",
        "plans that touch",
        "passed",
        "route driven",
        "BLEU-4",
        "right answers",
    ]
    body = []
    for name in sources:
        driven: list[Drive] = [drive for drive in drives if drive.driver == name]
        body.append(
            [
                name,
                f"{planned[name].displacement.uniad.average:.2f}",
                f"{planned[by_words[name].name].displacement.uniad.average:.2f}",
                share(planned[name].collides),
                f"{sum(drive.outcome.passed for drive in driven)} of {len(driven)}",
                share(sum(drive.outcome.completion for drive in driven) / len(driven)),
                f"{spoken[name].bleu['all']:.1f}",
                share(spoken[name].accuracy["all"]),
            ]
        )
    return markdown_table(header, body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/small"))
    parser.add_argument("--budget", type=float, default=1.0, help="share of the steps that is made")
    parser.add_argument("--scenarios", type=int, default=SCENARIOS, help="of the expert's drives")
    parser.add_argument("--scenes", type=int, default=SCENES, help="to evaluate on")
    given = parser.parse_args()
    rows = [Row(given.output, given.checkpoint, name, given.budget, given.scenarios) for name in ROWS]
    for row in rows:
        row.prepare()
    train_rows(rows)
    found = table(rows, given.scenes)
    (given.output / "ablation.md").write_text(found)
    print(found)


if __name__ == "__main__":
    main()
