"""`odv train`: makes a checkpoint by a recipe, stage by stage; what is done is kept, what was cut off goes on."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from opendrivevla_ros.cli.console import (
    CommandError,
    console,
    one_sentence_errors,
    packages_of_the_world,
    show_progress,
)
from opendrivevla_ros.cli.launcher import is_launched, launch, training_processes, working_processes
from opendrivevla_ros.cli.train_autovla import train_autovla

if TYPE_CHECKING:
    from opendrivevla_ros.training.autovla.run import AutoVlaRun
    from opendrivevla_ros.training.recipe import Step
    from opendrivevla_ros.training.recipe_run import RecipeRun

AUTOVLA = ("autovla-small", "autovla-base")
OPENDRIVEVLA = ("small", "small-thinking", "small-end-to-end")
PRESETS = (*OPENDRIVEVLA, "ego_state", *AUTOVLA)
FORMATS = {  # of instruction data, and who reads it
    "nuscenes-qa": "read_nuscenes_qa",
    "tod3cap": "read_tod3cap",
    "nucaption": "read_nucaption",
    "nux": "read_nux",
    "gpt-driver": "read_gpt_driver",
    "drivelm": "read_drivelm",
}


def train(
    stages: Annotated[
        list[str] | None, typer.Argument(help="Stages to run, in the recipe's order; default: all.")
    ] = None,
    preset: Annotated[
        str,
        typer.Option(
            help="What to make: small; small-thinking, which thinks before it plans where somebody matters;"
            " small-end-to-end, whose plans teach its perception too; ego_state, which sees no pictures; autovla-small"
            " or autovla-base."
        ),
    ] = "small",
    output: Annotated[
        Path | None, typer.Option(help="Folder for drives, states and results; default: runs/PRESET.")
    ] = None,
    processes: Annotated[
        int,
        typer.Option(
            min=0, help="Processes that train together; 0: one a GPU or core, as far as they can share a batch."
        ),
    ] = 0,
    without: Annotated[
        list[str] | None, typer.Option(help="Leave this stage out, to see what it is for; may be repeated.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="AutoVLA checkpoint folder to go on from in place of random weights.")
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="Checkpoint folder of a larger AutoVLA that teaches the one that is made.")
    ] = None,
    codebook: Annotated[
        Path | None,
        typer.Option(
            help="Action codebook (.npz of `odv codebook`) of an AutoVLA from random weights; else the lattice."
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="A nuScenes-format data set to learn from in place of the driving world.")
    ] = None,
    version: Annotated[str, typer.Option(help="Of the data set: the folder of its tables.")] = "v1.0-trainval",
    split: Annotated[str | None, typer.Option(help="Of the data set; default: all scenes.")] = None,
    instructions: Annotated[
        list[str] | None,
        typer.Option(
            help="Words about the data set, FORMAT:FILE (gpt-driver:FILE:SPLIT_FILE); may be repeated. Formats: "
            + ", ".join(FORMATS)
        ),
    ] = None,
) -> None:
    """Train a checkpoint by a recipe, from nothing to its card. Run it again to go on after a break."""
    with one_sentence_errors(), packages_of_the_world():
        if preset not in PRESETS:
            raise CommandError(f"unknown preset {preset!r}; choose one of {', '.join(PRESETS)}")
        output = output or Path("runs") / (preset if teacher is None else f"{preset}-taught")
        for option, folder in (("--start", start), ("--teacher", teacher), ("--codebook", codebook)):
            if folder is not None and preset not in AUTOVLA:
                raise CommandError(f"{option} is of {' and '.join(AUTOVLA)}, not of {preset}; leave it out")
        if preset == "autovla-base" and start is None:
            raise CommandError("autovla-base goes on from a checkpoint; give its folder by --start")
        if preset == "ego_state":
            _make_ego_state(output, stages, working_processes(processes))
            return
        from opendrivevla_ros.datasets.nuscenes_tables import DatasetError
        from opendrivevla_ros.training.errors import TrainingError
        from opendrivevla_ros.training.recipe import RECIPES
        from opendrivevla_ros.training.recipe_run import RecipeRun

        try:
            if preset in AUTOVLA:
                train_autovla(
                    preset,
                    output,
                    stages=stages or (),
                    without=without or (),
                    processes=processes,
                    start=start,
                    teacher=teacher,
                    codebook=codebook,
                    source=(lambda run: _scenes(data, version, split, instructions or (), run)) if data else None,
                )
                return
            whole = RECIPES[preset]
            recipe = (whole if data is None else whole.of_recorded_drives()).without(without or ())
            run = RecipeRun(recipe, output)
            steps = [recipe.step(name) for name in stages] if stages else list(recipe.steps)
            if is_launched():  # for one stage
                for step in recipe.training_steps:
                    if step in steps:
                        run.run(step)
                return
            source = None if data is None else _scenes(data, version, split, instructions or (), run)
            kept = [step.name for step in recipe.steps]
            options = ["--preset", preset, "--output", str(output)]
            options += [part for step in whole.steps if step.name not in kept for part in ("--without", step.name)]
            _make(run, steps, source, processes, options, everything=not stages)
        except (TrainingError, DatasetError) as error:
            raise CommandError(str(error)) from error


def _scenes(
    data: Path, version: str, split: str | None, instructions: Iterable[str], run: "RecipeRun | AutoVlaRun"
) -> Iterator[float]:
    """Takes a data set and its words into a run; yields the share that is in."""
    from opendrivevla_ros.datasets import drivelm, instruction_data
    from opendrivevla_ros.datasets.nuscenes_scenes import NuScenesScenes

    said: list[instruction_data.Instruction] = []
    for given in instructions:
        name, *files = given.split(":")
        if name not in FORMATS or len(files) != 1 + (name == "gpt-driver"):
            raise CommandError(f"--instructions {given!r} is not FORMAT:FILE with a format of {', '.join(FORMATS)}")
        said += getattr(drivelm if name == "drivelm" else instruction_data, FORMATS[name])(*files)
    scenes = NuScenesScenes(data, version, image_size=run.recipe.image_size, split=split)
    return run.take(scenes, said)


def _make(
    run: "RecipeRun",
    steps: Iterable["Step"],
    source: Iterator[float] | None,
    processes: int,
    options: Sequence[str],
    *,
    everything: bool,
) -> None:
    """Runs steps. processes: 0 for as many as fit. options: of the same run, for the processes that train a stage."""
    from opendrivevla_ros.training.recipe import HELD_OUT, EgoStep, LanguageStep, OwnDrivesStep
    from opendrivevla_ros.training.times import timed

    hands = working_processes(processes)
    with timed(run.folder, "drives"):
        show_progress("drives", run.draw(hands) if source is None else source)
    console.print("tokenizer")
    run.tokenizer()
    for step in steps:
        if run.is_done(step):
            console.print(f"{step.name}: done before")
            continue
        with timed(run.folder, step.name):
            if isinstance(step, OwnDrivesStep):
                show_progress(step.name, run.drive(step, hands))
                continue
            for other in run.not_driven(step):
                show_progress(other.name, run.drive(other, hands))
            if isinstance(step, EgoStep | LanguageStep):
                for kind in step.reads:
                    show_progress("look at the drives", run.look(hands, kind, step))
            console.print(f"{step.name}: {step.loop.steps} steps in {run.folder / step.name}")
            together = training_processes(processes, step.loop.batch_size)
            launch(["train", step.name, *options], together, what=f"the stage {step.name}")
    if everything:
        if HELD_OUT in [step.name for step in run.recipe.steps]:
            show_progress(f"look at {HELD_OUT}", run.look(hands, HELD_OUT))
        console.print(f"checkpoint in {run.export()}")


def _make_ego_state(output: Path, stages: list[str] | None, processes: int) -> None:
    """The ego-state-only model, on the expert's drives that the small one learns from, without their pictures.

    In the folder of a small one that is made, it learns from all drives that are there, as that one did.
    """
    if stages:
        raise CommandError(f"ego_state has no stages, but {', '.join(stages)} was asked for; leave it out")
    from opendrivevla_ros.datasets.drive_store import DriveStore
    from opendrivevla_ros.training.ego_state import ego_samples, train_ego_state
    from opendrivevla_ros.training.own_drives import draw_own_drives
    from opendrivevla_ros.training.recipe import EXPERT_DRIVES, HELD_OUT, SMALL, TRAIN, OwnDrivesStep
    from opendrivevla_ros.training.world_drives import draw_drives
    from opendrivevla_ros.world.seeds import Split

    disturbed, undisturbed = output / "drives" / TRAIN, output / "drives" / EXPERT_DRIVES.name
    count = SMALL.scenarios
    drawn = draw_drives(disturbed, scenarios=count, split=Split.TRAIN, image_size=None, processes=processes)
    show_progress("drives", (done / count for done in drawn))
    drawing = draw_own_drives(undisturbed, None, EXPERT_DRIVES.numbers, image_size=None, processes=processes)
    show_progress(EXPERT_DRIVES.name, drawing)
    driven = [step.name for step in SMALL.steps if isinstance(step, OwnDrivesStep) and step.name != HELD_OUT]
    read = [kind for kind in (TRAIN, *driven) if (output / "drives" / kind).is_dir()]
    samples = [sample for kind in read for sample in ego_samples(DriveStore(output / "drives" / kind))]
    result = output / "ego_state"
    loss = train_ego_state(samples, result, source=", ".join(read))
    console.print(f"ego_state: {len(samples)} moments of {', '.join(read)}, last loss {loss:.4f}, in {result}")
