"""The card of a checkpoint that a recipe made: from what, by which steps and versions, and how far each step came."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from opendrivevla_ros.datasets.drive_store import DriveStore
from opendrivevla_ros.training.recipe import (
    EXPERT,
    TRAIN,
    EgoStep,
    LanguageStep,
    OwnDrivesStep,
    PerceptionStep,
    PlanningStep,
    Recipe,
    Step,
    TrainingStep,
)
from opendrivevla_ros.training.times import told

PACKAGES = ("torch", "transformers", "accelerate", "numpy", "panda3d")
HOW_IT_DRIVES = (  # the last lines of a card, between whose marks an evaluation writes
    "## How it drives",
    "",
    "By `odv evaluate world --checkpoint FOLDER --write FOLDER/README.md`, on test seeds:",
    "",
    "<!-- evaluation -->",
    "<!-- end of evaluation -->",
    "",
)


@dataclass(frozen=True)
class StepFigures:
    """How a step went: losses are means over the first and the last tenth of its steps. samples: seen in all."""

    step: TrainingStep
    samples: int
    first_loss: float
    last_loss: float


def data_hash(store: DriveStore) -> str:
    """SHA-256 over the names and contents of a store's drives."""
    digest = hashlib.sha256()
    for index, name in enumerate(store.names):
        digest.update(name.encode())
        digest.update(store.content(index))
    return digest.hexdigest()


def card(
    recipe: Recipe,
    steps: Sequence[StepFigures],
    *,
    model_id: str,
    drives: Mapping[str, DriveStore],
    times: Mapping[str, float],
) -> str:
    """The card's text, in Markdown.

    drives: of the training scenarios and of every step that drives, by name. times: see `read_times`.
    """
    data = drives[TRAIN]
    rows = []
    for one in steps:
        loop, losses = one.step.loop, f"{one.first_loss:.3f} | {one.last_loss:.3f}"
        rows.append(
            f"| {one.step.name} | {one.step.stage} | {_taught_by(one.step)} | {loop.steps} | {one.samples} |"
            f" {loop.learning_rate:g} | {losses} |"
        )
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return "\n".join(
        [
            f"# {model_id}",
            "",
            _what_it_is(recipe),
            "",
            "## How it was made",
            "",
            f"- Data: {len(data.names)} stretches{_from_where(recipe)}, {sum(data.lengths)} samples; SHA-256 of the"
            f" drives {data_hash(data)}.",
            *(
                f"- {name}: {len(store.names)} drives of {_driver(recipe.step(name))}, {sum(store.lengths)} samples;"
                f" {data_hash(store)}."
                for name, store in drives.items()
                if name != TRAIN
            ),
            f"- Time: {told(times)}.",
            f"- Seed: {recipe.seed}. Pictures: {recipe.image_size[0]}x{recipe.image_size[1]}.",
            f"- Versions: {versions}.",
            "",
            "| step | stage | learns from | steps | samples | rate | first loss | last loss |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
            *HOW_IT_DRIVES,
        ]
    )


def _what_it_is(recipe: Recipe) -> str:
    end_to_end = any(isinstance(step, PlanningStep) for step in recipe.steps)
    preset = "small-thinking" if recipe.thinks else "small-end-to-end" if end_to_end else "small"
    command = f"`odv train --preset {preset}`"
    if recipe.scenarios:
        return (
            f"A small driving VLA, trained from nothing on the driving world of opendrivevla_ros by {command}. It has"
            " never seen a real street: it is there to try the package with, not to drive a vehicle."
        )
    return f"A small driving VLA, trained from nothing on recorded drives by {command}. Nothing here is fit to drive."


def _from_where(recipe: Recipe) -> str:
    return f" of {recipe.scenarios} scenarios of training seeds" if recipe.scenarios else " of recorded drives"


def _driver(step: Step) -> str:
    assert isinstance(step, OwnDrivesStep)
    return {EXPERT: "the expert, undisturbed", None: "the policy before it"}.get(step.driver, str(step.driver))


def _taught_by(step: TrainingStep) -> str:
    """In words: which drives, how they are read, and what is asked about them."""
    match step:
        case PerceptionStep():
            return f"clips of {step.frames} frames of {', '.join(step.reads)}"
        case PlanningStep():
            return f"clips of {step.frames} frames; {_shares(step.shares)}"
        case EgoStep():
            return f"tokens of {', '.join(step.reads)}"
        case LanguageStep():
            read = "truth" if step.truth else "tokens"
            return f"{read} of {', '.join(step.reads)}; {_shares(step.shares)}; {step.moments} moments a turn"


def _shares(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{share:g} {kind}" for kind, share in shares.items())
