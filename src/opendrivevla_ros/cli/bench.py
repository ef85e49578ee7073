"""`odv bench`: what a checkpoint costs in every precision, and what its plans lose."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown
from rich.progress import Progress, TaskID

from opendrivevla_ros.cli.console import console, one_sentence_errors, packages_of_the_world, progress_bar
from opendrivevla_ros.cli.evaluate import require_writable, sentences
from opendrivevla_ros.core.files import write_whole


def bench(
    checkpoint: Annotated[list[str], typer.Argument(help="Names or checkpoint folders of policies.")],
    output: Annotated[Path, typer.Option(help="Folder for results.json and results.md.")] = Path("bench_output"),
    scenes: Annotated[int, typer.Option(min=1, help="Scenes of the driving world that all precisions plan in.")] = 14,
    samples: Annotated[int, typer.Option(min=1, help="Samples of each scene, two a second.")] = 10,
    scenarios: Annotated[
        int, typer.Option(min=0, help="Scenarios that each precision drives, for the driver score; 0: none.")
    ] = 0,
    processes: Annotated[int, typer.Option(min=1, help="Scenarios driven at the same time.")] = 2,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
) -> None:
    """Compare float32, bfloat16 and int8: bytes of the weights, time of a plan, and how far the plans come apart."""
    with one_sentence_errors(), packages_of_the_world(), sentences():
        from opendrivevla_ros.evaluation.figures import json_text
        from opendrivevla_ros.evaluation.precisions import compare_precisions

        require_writable(output)
        results = []
        for source in checkpoint:
            with progress_bar() as bar:
                task = bar.add_task(source, total=1.0)
                result = compare_precisions(
                    source,
                    device=device,
                    scenes=scenes,
                    samples=samples,
                    scenarios=scenarios,
                    processes=processes,
                    progress=partial(_show, bar, task),
                )
            results.append(result)
        tables = "\n".join(result.markdown() for result in results)
        write_whole(output / "results.json", json_text(results).encode())
        write_whole(output / "results.md", tables.encode())
    console.print(Markdown(tables))
    console.print(f"figures in {output}/results.json, tables in {output}/results.md", soft_wrap=True)


def _show(bar: Progress, task: TaskID, share: float) -> None:
    bar.update(task, completed=share)
