"""The recipes of AutoVLA: which steps follow one another, and every number that shapes them."""

import math
from dataclasses import dataclass, replace

from opendrivevla_ros.training.autovla.answers import REASONING_WEIGHT
from opendrivevla_ros.training.autovla.reinforcement import GrpoSettings
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.loop import LoopSettings
from opendrivevla_ros.training.recipe import (
    ALL_SEEN,
    EXPERT_DRIVES,
    HELD_OUT_DRIVES,
    SEEN,
    TRAIN,
    OwnDrivesStep,
    StepRecipe,
    rounds,
)


@dataclass(frozen=True)
class SightStep:
    """The vision tower and the model's sight, from what was there; see `sight`.

    reads: TRAIN, and names of steps that drive.
    """

    name: str
    loop: LoopSettings
    reads: tuple[str, ...] = (TRAIN,)


@dataclass(frozen=True)
class ProposalStep:
    """The path that sight proposes, from the ground that it has read; see `proposals`. reads: as of a `SightStep`.

    caution: see `proposal_losses`.
    """

    name: str
    loop: LoopSettings
    reads: tuple[str, ...] = (TRAIN,)
    caution: float = 0.0


@dataclass(frozen=True)
class AnswerStep:
    """Supervised fine-tuning.

    reads: TRAIN, and names of steps that drive. vision: whether the tower learns too; of one that
    has sight, what makes its tokens always does. muon: whether the matrices of
    the language layers learn by Muon (see `training.muon`), all else by AdamW. asks_points: whether the model is asked
    where the plan goes before it writes; see `answers.AnswerTraining`.
    """

    name: str
    loop: LoopSettings
    reads: tuple[str, ...] = (TRAIN,)
    reasoning_weight: float = REASONING_WEIGHT
    vision: bool = True
    muon: bool = True
    asks_points: bool = False


@dataclass(frozen=True)
class DistillationStep(AnswerStep):
    """Supervised fine-tuning beside a teacher; see `distillation.Distillation`.

    temperature: of the distributions. soft: the share of the loss that is the teacher's; the larger one, since what
    was logged is one answer of many (arXiv 1503.02531, section 2).
    """

    temperature: float = 2.0
    soft: float = 0.7


@dataclass(frozen=True)
class ReinforcementStep:
    """Reinforcement fine-tuning; the batch_size of its loop counts prompts, each with a group of answers."""

    name: str
    loop: LoopSettings
    grpo: GrpoSettings
    reads: tuple[str, ...] = (TRAIN,)


TrainingStep = SightStep | ProposalStep | AnswerStep | ReinforcementStep
Step = TrainingStep | OwnDrivesStep


@dataclass(frozen=True)
class AutoVlaRecipe(StepRecipe[TrainingStep]):
    """Of an AutoVLA."""

    def __post_init__(self) -> None:
        """Raises TrainingError for a step that reads drives which no step before it draws."""
        drawn = {TRAIN}
        for step in self.steps:
            if isinstance(step, OwnDrivesStep):
                drawn.add(step.name)
            elif missing := [kind for kind in step.reads if kind not in drawn]:
                raise TrainingError(f"{step.name} reads {missing[0]}, which no step before it draws")

    def taught(self, pictures: tuple[int, int]) -> "AutoVlaRecipe":
        """The recipe in which a teacher who sees pictures (width, height) stands beside every supervised step.

        Those steps have names of their own, and the drives pictures that are large enough for both.
        """
        width, height = self.image_size
        larger = max(1, math.ceil(pictures[0] / width), math.ceil(pictures[1] / height))
        steps = tuple(
            DistillationStep(**{**vars(step), "name": f"taught_{step.name}"}) if isinstance(step, AnswerStep) else step
            for step in self.steps
        )
        return replace(self, image_size=(larger * width, larger * height), steps=steps)


# A third of its moments are slow: with the published weight, made for data with few of them, fast answers would hardly
# be learned. A slow answer has about four times the tokens of a fast one, and the word that tells the two apart is one
# of them: with this weight it counts alike in both.
SMALL_REASONING_WEIGHT = 4.0


# The rates are AdamW's; Muon's beside it are higher (`muon.RATE`). After 160 steps of 4 on 144 moments, the
# loss of words and of actions was 1.6 and 3.4 with AdamW alone at 1e-3, 1.9 and 4.0 with it at 3e-3, and 0.64 and 2.1
# with Muon beside AdamW at 3e-3.
AUTOVLA_SMALL = AutoVlaRecipe(
    scenarios=2240,
    image_size=(224, 126),
    steps=(
        EXPERT_DRIVES,
        HELD_OUT_DRIVES,
        SightStep(
            "sight",
            LoopSettings(steps=3500, learning_rate=1e-3, batch_size=16, clip_norm=5.0, save_every=100),
            reads=SEEN,
        ),
        *rounds(ProposalStep, "proposals"),
        AnswerStep(
            "answers",
            LoopSettings(
                steps=2000, learning_rate=3e-3, batch_size=16, clip_norm=1.0, precision="bf16", save_every=100
            ),
            reads=ALL_SEEN,
            reasoning_weight=SMALL_REASONING_WEIGHT,
            vision=False,
            asks_points=True,
        ),
        ReinforcementStep(
            "reinforcement",
            LoopSettings(
                steps=600,
                learning_rate=1e-5,
                batch_size=8,
                warmup_steps=20,
                weight_decay=0.0,
                clip_norm=1.0,
                save_every=20,
            ),
            GrpoSettings(group=8, most_thought=200, rank=0),
            reads=ALL_SEEN,
        ),
    ),
)

# The published numbers (arXiv 2506.13757, appendix), for a checkpoint of Qwen2.5-VL-3B to go on from. They are of
# AdamW: what it has trained, Muon at first spoils (arXiv 2605.10468).
AUTOVLA_BASE = AutoVlaRecipe(
    scenarios=2240,
    image_size=(448, 252),
    steps=(
        AnswerStep(
            "answers",
            LoopSettings(
                steps=4000,
                learning_rate=1e-5,
                batch_size=32,
                warmup_steps=500,
                precision="bf16",
                gradient_checkpointing=True,
            ),
            vision=False,
            muon=False,
        ),
        OwnDrivesStep("own_drives", first=2520, scenarios=280),
        ReinforcementStep(
            "reinforcement",
            LoopSettings(
                steps=6000,
                learning_rate=3e-5,
                batch_size=8,
                warmup_steps=100,
                precision="bf16",
                gradient_checkpointing=True,
            ),
            GrpoSettings(),
            reads=(TRAIN, "own_drives"),
        ),
    ),
)
RECIPES = {"autovla-small": AUTOVLA_SMALL, "autovla-base": AUTOVLA_BASE}
