"""`odv finetune`: teaches a trained checkpoint, end to end, the paths that drivers drove in bags."""

from collections.abc import Iterable
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
from opendrivevla_ros.cli.launcher import is_launched, launch, training_processes
from opendrivevla_ros.cli.replay import RigOption, TopicsOption, rig_of
from opendrivevla_ros.datasets.bag_topics import read_topic_map

if TYPE_CHECKING:
    from opendrivevla_ros.training.finetune import FineTuning


def finetune(
    bags: Annotated[list[Path], typer.Argument(help="Bags of a driver: folders, or .mcap or .db3 files.")],
    checkpoint: Annotated[Path, typer.Option(help="Folder of the trained checkpoint to start from.")],
    output: Annotated[Path, typer.Option(help="Folder of this run, for drives, state and the new checkpoint.")],
    rig: RigOption = None,
    topics: TopicsOption = None,
    steps: Annotated[int, typer.Option(min=1, help="Of the optimiser.")] = 300,
    learning_rate: Annotated[float, typer.Option(help="The highest, after the warm-up.")] = 5e-5,
    processes: Annotated[
        int, typer.Option(min=0, help="Processes that train together; 0: one a GPU, or one a core.")
    ] = 0,
) -> None:
    """Teach a trained checkpoint your drivers' own paths, from bags. Run it again to go on after a break."""
    with one_sentence_errors(), packages_of_the_world():
        from opendrivevla_ros.datasets.nuscenes_tables import DatasetError
        from opendrivevla_ros.training.bag_drives import Recording
        from opendrivevla_ros.training.errors import TrainingError
        from opendrivevla_ros.training.finetune import FineTuning, finetune_settings

        try:
            run = FineTuning(checkpoint, output, finetune_settings(steps, learning_rate))
            if is_launched():
                run.run()
                return
            topic_map = read_topic_map(topics) if topics else None
            show_progress("bags", run.take([Recording(bag, rig_of(bag, rig), topic_map) for bag in bags]))
            for warning in run.warnings:
                console.print(f"[yellow]warning:[/yellow] {warning}", soft_wrap=True)
            if run.is_done:
                console.print(f"done before: checkpoint in {run.result}", soft_wrap=True)
                return
            count = len(run.examples())
            console.print(f"finetune: {count} moments, {steps} steps in {run.training_folder}", soft_wrap=True)
            _launch(run, bags, training_processes(processes, run.loop.batch_size))
            console.print(f"checkpoint in {run.export()}", soft_wrap=True)
        except (TrainingError, DatasetError) as error:
            raise CommandError(str(error)) from error


def _launch(run: "FineTuning", bags: Iterable[Path], processes: int) -> None:
    """Trains in processes of their own, which find what was taken of the bags in the output folder."""
    arguments = ["finetune", *map(str, bags), "--checkpoint", str(run.checkpoint), "--output", str(run.folder)]
    arguments += ["--steps", str(run.loop.steps), "--learning-rate", repr(run.loop.learning_rate)]
    launch(arguments, processes, what="the fine-tuning")
