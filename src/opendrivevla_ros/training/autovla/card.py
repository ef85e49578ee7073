"""The card of an AutoVLA checkpoint that a recipe made: from what, by which steps, and how far each came."""

from importlib.metadata import version
from pathlib import Path

from opendrivevla_ros.datasets.drive_store import DriveStore
from opendrivevla_ros.training.autovla.recipe import (
    AutoVlaRecipe,
    DistillationStep,
    ProposalStep,
    ReinforcementStep,
    SightStep,
    TrainingStep,
)
from opendrivevla_ros.training.card import HOW_IT_DRIVES, PACKAGES, data_hash
from opendrivevla_ros.training.loop import MEASURED
from opendrivevla_ros.training.metrics import first_and_last, read_metrics
from opendrivevla_ros.training.times import read_times, told


def card(recipe: AutoVlaRecipe, folder: Path, *, model_id: str, begun: str, data: DriveStore) -> str:
    """The card's text, in Markdown.

    folder: of the run, with the metrics of each step. begun: from what weights. data: the training drives.
    """
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return "\n".join(
        [
            f"# {model_id}",
            "",
            "AutoVLA, trained by `odv train` of opendrivevla_ros. Measure it where it is to drive before it plans for"
            " a vehicle.",
            "",
            "## How it was made",
            "",
            f"- From: {begun}.",
            f"- Data: {len(data.names)} stretches, {sum(data.lengths)} samples; SHA-256 of the drives"
            f" {data_hash(data)}.",
            f"- Time: {told(read_times(folder))}.",
            f"- Seed: {recipe.seed}. Pictures: {recipe.image_size[0]}x{recipe.image_size[1]}.",
            f"- Versions: {versions}.",
            "",
            "| step | learns from | steps | prompts | rate | first | last |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *(_row(step, folder) for step in recipe.training_steps),
            "",
            "First and last are means over a tenth of a step: of the loss, or of the reward.",
            "",
            *HOW_IT_DRIVES,
        ]
    )


def _row(step: TrainingStep, folder: Path) -> str:
    rows = read_metrics(folder / step.name)
    told = f"{MEASURED}reward" if isinstance(step, ReinforcementStep) else "loss"
    first, last = first_and_last(rows, told)
    loop = step.loop
    seen = loop.steps * loop.batch_size * loop.accumulation
    taught = f"answers in {', '.join(step.reads)}"
    if isinstance(step, DistillationStep):
        taught += f", and its teacher's there, at temperature {step.temperature:g}"
    elif isinstance(step, ProposalStep):
        taught = f"what sight reads in {', '.join(step.reads)}"
    elif isinstance(step, SightStep):
        taught = f"what is there in {', '.join(step.reads)}"
    elif isinstance(step, ReinforcementStep):
        taught = f"rewards of {step.grpo.group} own answers a prompt in {', '.join(step.reads)}"
    reached = f"{told.removeprefix(MEASURED)} {first:.3f} | {last:.3f}"
    return f"| {step.name} | {taught} | {loop.steps} | {seen} | {loop.learning_rate:g} | {reached} |"
