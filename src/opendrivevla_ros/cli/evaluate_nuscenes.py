"""`odv evaluate nuscenes`: the tables of papers in one command, on a data set of the nuScenes format."""

import json
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown

from opendrivevla_ros.cli.console import CommandError, console, one_sentence_errors, packages_of_the_world
from opendrivevla_ros.cli.replay import PolicyOption
from opendrivevla_ros.policies.registry import BLIND, SHIPPED

SCENES = "scenes"  # folder of the output, with one folder for each scene


def nuscenes(
    root: Annotated[Path, typer.Option(help="The data set: the folder that holds samples/ and the tables' folder.")],
    split: Annotated[str, typer.Option(help="Of nuScenes, or of the data set's splits.json.")] = "val",
    policy: PolicyOption = None,
    beside: Annotated[
        list[str] | None,
        typer.Option(help="Another policy beside it, name or folder; may be repeated. Blind baselines always are."),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for results.json, results.md and every scene's record.")] = Path(
        "nuscenes_evaluation"
    ),
    version: Annotated[
        str | None, typer.Option(help="Folder of the tables, for example v1.0-mini; default: the one that fits.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Scenes at the same time on this machine.")] = 2,
    ray: Annotated[
        str | None, typer.Option(help="Address of a Ray cluster, whose nodes take the scenes; default: this machine.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or int8.")] = "float32",
) -> None:
    """Evaluate a policy on nuScenes or an export: L2, collisions, detection and tracking, beside blind baselines.

    Stopped and started again, it goes on with the scenes that are missing.
    """
    with one_sentence_errors(), packages_of_the_world():
        # here, because that module has this command in its group
        from opendrivevla_ros.cli.evaluate import Figures, Part, require_writable, run_parts, sentences
        from opendrivevla_ros.datasets.nuscenes_tables import DatasetError
        from opendrivevla_ros.evaluation.moments import keep_worst, write_moments
        from opendrivevla_ros.evaluation.nuscenes_evaluation import NuScenesTask, find_version, prepare, record_all
        from opendrivevla_ros.evaluation.nuscenes_report import nuscenes_result
        from opendrivevla_ros.evaluation.world_scenes import display_names

        with sentences():
            require_writable(output)
            sources = tuple(dict.fromkeys([policy or SHIPPED, *(beside or ()), *BLIND]))
            task = NuScenesTask(str(root), version or find_version(root, split), split, sources, device, precision)
            try:
                prepared = prepare(task)

                def run(folder: Path, progress: Callable[[float], None]) -> Figures:
                    records, problems = record_all(
                        prepared, output / SCENES, processes=processes, ray=ray, progress=_told(progress)
                    )
                    result = nuscenes_result(
                        records,
                        problems,
                        policy=display_names(sources)[sources[0]],
                        root=root,
                        version=task.version,
                        split=split,
                        folder=folder,
                    )
                    write_moments(folder, keep_worst(moment for record in records for moment in record.moments))
                    return Figures(json.loads(result.to_json()), result.markdown())

                settings = {**prepared.settings, "data": prepared.all_data}
                part = Part("nuscenes", {**settings, "policy": sources[0], "beside": sources[1:]}, run)
                _forget_what_was_not_whole(output / "nuscenes.json")
                figures = run_parts([part], output)["nuscenes"]
            except DatasetError as error:
                raise CommandError(str(error)) from None
    console.print(Markdown(figures.markdown))
    console.print(f"figures in {output}/results.json, tables in {output}/results.md", soft_wrap=True)


def _told(progress: Callable[[float], None]) -> Callable[[str, int, int], None]:
    """Tells the progress bar; where there is no terminal to draw one, a line for each scene with what is left."""
    began, before = time.monotonic(), 0

    def told(scene: str, done: int, total: int) -> None:
        nonlocal before
        progress(done / total)
        if not scene:
            before = done
        elif not console.is_terminal:
            left_s = (time.monotonic() - began) / (done - before) * (total - done)
            left = timedelta(seconds=round(left_s))
            console.print(f"{scene}: {done} of {total} scenes, about {left} left", soft_wrap=True)

    return told


def _forget_what_was_not_whole(path: Path) -> None:
    """Figures that lack scenes are made again, because what was broken may have been mended; the records are kept."""
    try:
        complete = json.loads(path.read_text())["results"]["complete"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if complete is not True:
        path.unlink()
