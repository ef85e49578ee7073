"""`odv evaluate bag`: plans beside the human who drove, for teams without labels."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown

from opendrivevla_ros.cli.console import (
    CommandError,
    console,
    one_sentence_errors,
    package_version,
    packages_of_the_world,
    progress_bar,
    write_json,
)
from opendrivevla_ros.cli.replay import PolicyOption, RigOption, TopicsOption, rig_of
from opendrivevla_ros.datasets.bag_topics import read_topic_map
from opendrivevla_ros.policies.registry import SHIPPED


def bag(
    bags: Annotated[list[Path], typer.Argument(help="Bags: folders, or .mcap or .db3 files.")],
    policy: PolicyOption = None,
    output: Annotated[Path, typer.Option(help="Folder for results.json, results.md and pictures.")] = Path(
        "bag_evaluation"
    ),
    rig: RigOption = None,
    topics: TopicsOption = None,
    processes: Annotated[int, typer.Option(min=1, help="Bags at the same time.")] = 2,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
) -> None:
    """Hold a policy's plans against where the human then drove; no labels are needed."""
    with one_sentence_errors(), packages_of_the_world():
        from opendrivevla_ros.evaluation.bag_evaluation import BagTask, bag_results, evaluate_bags
        from opendrivevla_ros.evaluation.bag_report import bag_markdown
        from opendrivevla_ros.evaluation.moments import keep_worst, write_moments
        from opendrivevla_ros.evaluation.world_scenes import EvaluationError

        topic_map = read_topic_map(topics) if topics else None
        tasks = [BagTask(path, rig_of(path, rig), topic_map) for path in bags]
        try:
            with progress_bar() as bar:
                task = bar.add_task("bags", total=len(tasks))
                records = evaluate_bags(
                    policy or SHIPPED,
                    tasks,
                    device=device,
                    processes=processes,
                    progress=lambda done, total: bar.update(task, completed=done),
                )
            results = bag_results(records)
        except EvaluationError as error:
            raise CommandError(str(error)) from None
        settings = {
            "policy": policy or SHIPPED,
            "weights": next((record.weights for record in records if record.weights), ""),
            "bags": [str(path) for path in bags],
            "rig": str(rig) if rig else None,
            "topics": str(topics) if topics else None,
            "device": device,
            "version": package_version(),
        }
        pictures = output / "bag"
        pictures.mkdir(parents=True, exist_ok=True)
        write_moments(pictures, keep_worst(moment for record in records for moment in record.shown))
        write_json(output / "results.json", {"settings": settings, **results})
        (output / "results.md").write_text(bag_markdown(results))
    console.print(Markdown(bag_markdown(results)))
    console.print(f"figures in {output}/results.json, tables in {output}/results.md", soft_wrap=True)
