"""AutoVLA's part of `odv train`: its recipes, and the driver score as the reward of its reinforcement."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from opendrivevla_ros.cli.console import console, show_progress
from opendrivevla_ros.cli.launcher import is_launched, launch, training_processes, working_processes

if TYPE_CHECKING:
    from opendrivevla_ros.training.autovla.run import AutoVlaRun


def train_autovla(
    preset: str,
    output: Path,
    *,
    stages: Sequence[str],
    without: Sequence[str],
    processes: int,
    start: Path | None,
    teacher: Path | None,
    codebook: Path | None,
    source: "Callable[[AutoVlaRun], Iterator[float]] | None",
) -> None:
    """Runs the stages of a preset's recipe, or all, and exports the checkpoint after all; see `cli.train`.

    teacher: of the stages that distil; before each, it plans where it has not. codebook: of a run's start; it is kept
    in its folder. source: takes recorded drives into a run in place of those of the world, and yields the share that
    is in. Raises CheckpointError, CommandError, DatasetError and TrainingError.
    """
    import torch

    from opendrivevla_ros.evaluation.logged_score import driver_reward
    from opendrivevla_ros.policies.autovla.model import load_config
    from opendrivevla_ros.training.autovla.recipe import RECIPES, DistillationStep, ProposalStep
    from opendrivevla_ros.training.autovla.run import AutoVlaRun
    from opendrivevla_ros.training.recipe import HELD_OUT, OwnDrivesStep
    from opendrivevla_ros.training.times import timed

    whole = RECIPES[preset]
    if teacher is not None:
        whole = whole.taught(load_config(teacher).image_size)
    recipe = (whole if source is None else whole.of_recorded_drives()).without(without)
    run = AutoVlaRun(recipe, output, driver_reward, start=start, teacher=teacher, codebook=codebook)
    steps = [recipe.step(name) for name in stages] if stages else list(recipe.steps)
    if is_launched():  # for one stage
        for trained in recipe.training_steps:
            if trained in steps:
                run.run(trained)
        return
    hands = working_processes(processes)
    with timed(output, "drives"):
        show_progress("drives", run.draw(hands) if source is None else source(run))
    console.print("tokenizer")
    run.tokenizer()
    kept = [step.name for step in recipe.steps]
    options = ["--preset", preset, "--output", str(output)]
    options += [part for step in whole.steps if step.name not in kept for part in ("--without", step.name)]
    options += [] if start is None else ["--start", str(start)]
    options += [] if teacher is None else ["--teacher", str(teacher)]
    for step in steps:
        if run.is_done(step):
            console.print(f"{step.name}: done before")
            continue
        with timed(output, step.name):
            if isinstance(step, OwnDrivesStep):
                show_progress(step.name, run.drive(step, hands))
                continue
            for other in run.not_driven(step):
                show_progress(other.name, run.drive(other, hands))
            if isinstance(step, ProposalStep):
                held_out = [HELD_OUT] if HELD_OUT in kept else []
                for kind in (*step.reads, *held_out):
                    show_progress(f"look at {kind}", run.look(kind, hands))
            if isinstance(step, DistillationStep):
                show_progress("the teacher plans", run.plan(step, torch.cuda.device_count() or hands))
            console.print(f"{step.name}: {step.loop.steps} steps in {run.folder / step.name}")
            together = training_processes(processes, step.loop.batch_size)
            launch(["train", step.name, *options], together, what=f"the stage {step.name}")
    if not stages:
        console.print(f"checkpoint in {run.export()}")
