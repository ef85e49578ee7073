"""Runs a recipe of AutoVLA step by step in one folder: drives, tokenizer, then a folder of its own for each step.

A step that is done is not run again, and one that was cut off goes on where its last saved state is.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor, nn

from opendrivevla_ros.datasets.drive_store import DriveStore
from opendrivevla_ros.datasets.instruction_data import Instruction
from opendrivevla_ros.datasets.nuscenes_scenes import NuScenesScenes
from opendrivevla_ros.language.action_codebook import ActionCodebook
from opendrivevla_ros.language.action_lattice import lattice
from opendrivevla_ros.language.small_tokenizer import load_tokenizer
from opendrivevla_ros.policies.autovla.config import AutoVlaConfig
from opendrivevla_ros.policies.autovla.loading import small_config
from opendrivevla_ros.policies.autovla.model import (
    CODEBOOK,
    AutoVlaModel,
    action_tokens,
    load_codebook,
    load_config,
    load_model,
    save_model,
)
from opendrivevla_ros.policies.autovla.tokenizer import build_tokenizer
from opendrivevla_ros.policies.checkpoint import verified_hash
from opendrivevla_ros.policies.loading import read_tokenizer
from opendrivevla_ros.training.autovla.answers import AnswerTraining
from opendrivevla_ros.training.autovla.card import card
from opendrivevla_ros.training.autovla.examples import PlanExamples
from opendrivevla_ros.training.autovla.recipe import AnswerStep, AutoVlaRecipe, Step, TrainingStep
from opendrivevla_ros.training.autovla.reinforcement import Reinforcement, Reward
from opendrivevla_ros.training.corpus import world_corpus
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.loop import shared_out, train
from opendrivevla_ros.training.own_drives import draw_own_drives
from opendrivevla_ros.training.recipe import TRAIN, OwnDrivesStep
from opendrivevla_ros.training.recipe_run import WEIGHTS
from opendrivevla_ros.training.scene_drives import store_scenes
from opendrivevla_ros.training.world_drives import draw_splits

ROUNDS = 1024  # of all moments of a reinforcement, with answers drawn anew, before their seeds repeat


class AutoVlaRun:
    """A recipe in a folder. Each training step leaves the whole model's weights.

    reward: of plans at recorded moments, for reinforcement. start: a checkpoint folder whose tokenizer, codebook and
    weights the first step goes on from; None for the small preset and random weights.
    """

    def __init__(self, recipe: AutoVlaRecipe, folder: Path, reward: Reward, *, start: Path | None = None) -> None:
        self.recipe, self.folder, self.start = recipe, folder, start
        self._reward = reward

    def drives(self, kind: str = TRAIN) -> DriveStore:
        """The drives of a split, or those of the step of that name."""
        return DriveStore(self.folder / "drives" / kind)

    def codebook(self) -> ActionCodebook:
        """Of the action tokens. Raises CheckpointError."""
        return lattice() if self.start is None else load_codebook(self.start / CODEBOOK)

    def tokenizer(self) -> Any:
        """That of the checkpoint to start from, or a small one, made of the world's words the first time."""
        if self.start is not None:
            return read_tokenizer(self.start, load_config(self.start).language.vocabulary_size)
        folder = self.folder / "tokenizer"
        if not (folder / "tokenizer.json").is_file():
            build_tokenizer(self.codebook(), world_corpus()).save_pretrained(str(folder))
        return load_tokenizer(folder)

    def config(self) -> AutoVlaConfig:
        """Of the checkpoint that is made. Raises CheckpointError."""
        return small_config(self.tokenizer(), self.codebook()) if self.start is None else load_config(self.start)

    def take(self, scenes: NuScenesScenes, instructions: Iterable[Instruction]) -> Iterator[float]:
        """Takes scenes of a nuScenes-format data set in place of drives of the world; yields the share that is in."""
        return store_scenes(scenes, self.drives(), instructions)

    def draw(self, processes: int) -> Iterator[float]:
        """Draws the drives that are not there; yields the share that is."""
        return draw_splits(
            self.folder / "drives",
            scenarios=self.recipe.scenarios,
            validation=self.recipe.validation,
            image_size=self.recipe.image_size,
            processes=processes,
        )

    def drive(self, step: OwnDrivesStep, processes: int) -> Iterator[float]:
        """Has the policy drive as it is by now; yields the share that is done.

        Raises TrainingError where the training before is not done.
        """
        model = self._model_before(step)
        driver = self._checkpoint(model, self.folder / step.name, text=f"for {step.name}\n")
        yield from draw_own_drives(
            self.folder / "drives" / step.name,
            driver,
            first=step.first,
            scenarios=step.scenarios,
            image_size=self.recipe.image_size,
            processes=processes,
        )

    def is_done(self, step: Step) -> bool:
        """Whether the step has left its weights, or its drives."""
        if isinstance(step, OwnDrivesStep):
            return len(self.drives(step.name).names) >= step.scenarios
        return (self.folder / step.name / WEIGHTS).is_file()

    def weights_after(self, step: TrainingStep) -> dict[str, Tensor]:
        """The model's weights as a step has left them. Raises TrainingError where it is not done."""
        if not self.is_done(step):
            raise TrainingError(f"the stage {step.name} is not done in {self.folder}; run it first")
        weights: dict[str, Tensor] = torch.load(self.folder / step.name / WEIGHTS, weights_only=True)
        return weights

    def run(self, step: TrainingStep) -> None:
        """Trains a step to its end, from where it stands. Raises TrainingError."""
        state = PartialState(cpu=not torch.cuda.is_available())  # else it takes no notice of the other processes
        loop, folder = shared_out(step.loop, state.num_processes), self.folder / step.name
        model = self._model_before(step).train()
        tokenizer = self.tokenizer()
        actions = action_tokens(model.autovla_config, tokenizer, self.codebook())
        rounds = 1 if isinstance(step, AnswerStep) else ROUNDS
        stores = [self.drives(kind) for kind in step.reads]
        examples = PlanExamples(stores, model.autovla_config, tokenizer, actions, rounds=rounds)
        training: AnswerTraining | Reinforcement
        if isinstance(step, AnswerStep):
            model.model.visual.requires_grad_(step.vision)
            training = AnswerTraining(model, tokenizer, actions, reasoning_weight=step.reasoning_weight)
        else:
            training = Reinforcement(model, tokenizer, actions, self._reward, step.grpo, seed=loop.seed)
        train(training, examples, list, parameter_groups(training, loop.weight_decay), loop, folder)
        if state.is_main_process:
            if isinstance(training, Reinforcement) and training.low_rank is not None:
                training.low_rank.write()
            temporary = folder / f"{WEIGHTS}.tmp"
            torch.save(model.state_dict(), temporary)
            temporary.replace(folder / WEIGHTS)

    def export(self) -> Path:
        """Writes what the last step left as a checkpoint folder, with its tokenizer and its card; returns it.

        Raises TrainingError where a step is not done.
        """
        model = AutoVlaModel(self.config())
        model.load_state_dict(self.weights_after(self.recipe.training_steps[-1]))
        begun = "random weights" if self.start is None else f"SHA-256 {verified_hash(self.start)}"
        text = card(self.recipe, self.folder, model_id=model.autovla_config.model_id, begun=begun, data=self.drives())
        return self._checkpoint(model, self.folder / "checkpoint", text=text)

    def _model_before(self, step: Step) -> AutoVlaModel:
        """The model as the training before a step has left it, in float32."""
        steps = self.recipe.steps
        before = [one for one in steps[: steps.index(step)] if not isinstance(one, OwnDrivesStep)]
        if not before and self.start is not None:
            return load_model(self.start)[0].float()
        torch.manual_seed(self.recipe.seed)
        model = AutoVlaModel(self.config())
        if before:
            model.load_state_dict(self.weights_after(before[-1]))
        return model

    def _checkpoint(self, model: AutoVlaModel, folder: Path, *, text: str) -> Path:
        save_model(model.bfloat16(), self.codebook(), folder, card=text)
        self.tokenizer().save_pretrained(str(folder))
        return folder


def parameter_groups(training: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """AdamW's groups of what learns: vectors (biases, norms) do not decay."""
    learning = [parameter for parameter in training.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in learning if parameter.dim() > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in learning if parameter.dim() <= 1], "weight_decay": 0.0},
    ]
