"""Runs a recipe of AutoVLA step by step in one folder: drives, tokenizer, then a folder of its own for each step.

A step that is done is not run again, and one that was cut off goes on where its last saved state is.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import nn
from torch.utils.data import Dataset

from opendrivevla_ros.datasets.drive_store import DriveStore
from opendrivevla_ros.language.action_codebook import ActionCodebook
from opendrivevla_ros.language.action_lattice import lattice
from opendrivevla_ros.language.small_tokenizer import load_tokenizer
from opendrivevla_ros.policies.autovla.config import AutoVlaConfig
from opendrivevla_ros.policies.autovla.loading import small_config
from opendrivevla_ros.policies.autovla.model import (
    CODEBOOK,
    AutoVlaModel,
    action_tokens,
    codebook_hash,
    load_codebook,
    load_config,
    load_model,
    save_model,
)
from opendrivevla_ros.policies.autovla.tokenizer import build_tokenizer
from opendrivevla_ros.policies.checkpoint import save_tokenizer, verified_hash, written_whole
from opendrivevla_ros.policies.loading import read_tokenizer
from opendrivevla_ros.training.autovla.answers import AnswerTraining
from opendrivevla_ros.training.autovla.card import card
from opendrivevla_ros.training.autovla.distillation import Distillation, TaughtExamples
from opendrivevla_ros.training.autovla.examples import PlanExamples
from opendrivevla_ros.training.autovla.initialisation import start_from_motions
from opendrivevla_ros.training.autovla.proposals import GroundMoments, ProposalTraining, proposal_scales, write_ground
from opendrivevla_ros.training.autovla.recipe import (
    AutoVlaRecipe,
    DistillationStep,
    ProposalStep,
    ReinforcementStep,
    SightStep,
    Step,
    TrainingStep,
)
from opendrivevla_ros.training.autovla.reinforcement import Reinforcement, Reward
from opendrivevla_ros.training.autovla.sight import SeenMoments, SightTraining, sight_of
from opendrivevla_ros.training.autovla.sight_driver import SightDriver
from opendrivevla_ros.training.autovla.teacher import check_teacher, read_plans, write_plans
from opendrivevla_ros.training.corpus import world_corpus
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.loop import shared_out, train
from opendrivevla_ros.training.muon import by_muon
from opendrivevla_ros.training.own_drives import CheckpointDriver, Driver, draw_own_drives
from opendrivevla_ros.training.recipe import EXPERT, HELD_OUT, OwnDrivesStep
from opendrivevla_ros.training.step_run import StepRun, take_weights
from opendrivevla_ros.training.whole_files import reading, save_json

PLANS = "teacher_plans"  # the folder
GROUND = "ground"  # that of what sight has read
SCALES = "scales.json"  # of a step of proposals, on held-out drives
TEACHER = "teacher.sha256"  # beside the plans: of the weights that wrote them


class AutoVlaRun(StepRun[AutoVlaRecipe]):
    """A recipe in a folder. Each training step leaves the whole model's weights.

    reward: of plans at recorded moments, for reinforcement. start: a checkpoint folder whose tokenizer, codebook and
    weights the first step goes on from; None for the small preset and random weights. teacher: the checkpoint folder
    of who stands beside steps of distillation; what starts from random weights takes over its tokenizer and codebook.
    codebook: the file of that of what starts from random weights without a teacher; None for the one that a run has
    begun with, or the lattice.

    Raises TrainingError for a teacher whose tokens are not those of `start`, and for another teacher or codebook than
    the folder's; CheckpointError for a codebook that cannot be read.
    """

    def __init__(
        self,
        recipe: AutoVlaRecipe,
        folder: Path,
        reward: Reward,
        *,
        start: Path | None = None,
        teacher: Path | None = None,
        codebook: Path | None = None,
    ) -> None:
        super().__init__(recipe, folder)
        self.start, self.teacher = start, teacher
        self._reward = reward
        self._words = teacher if start is None else start  # whose tokenizer and codebook are taken over
        if codebook is not None:
            self._begin_with(load_codebook(codebook), codebook)
        if teacher is not None:
            check_teacher(teacher, self.config(), self.tokenizer(), self.codebook())
            self._check_same_teacher(teacher)

    def codebook(self) -> ActionCodebook:
        """Of the action tokens. Raises CheckpointError."""
        if self._words is not None:
            return load_codebook(self._words / CODEBOOK)
        own = self.folder / CODEBOOK
        return load_codebook(own) if own.is_file() else lattice()

    def tokenizer(self) -> Any:
        """That of the checkpoint to start from or of the teacher; else a small one, made of the world's words once."""
        if self._words is not None:
            return read_tokenizer(self._words, load_config(self._words).language.vocabulary_size)
        folder = self.folder / "tokenizer"
        if not (folder / "tokenizer.json").is_file():
            made = build_tokenizer(self.codebook(), world_corpus())
            with written_whole(folder) as partial:
                save_tokenizer(made, partial)
        return load_tokenizer(folder)

    def config(self) -> AutoVlaConfig:
        """Of the checkpoint that is made, as it is by now. Raises CheckpointError, and TrainingError."""
        if self.start is None:
            config = small_config(self.tokenizer(), self.codebook())
        else:
            config = replace(load_config(self.start), trained=True)
        measured = [self.folder / step.name / SCALES for step in self.recipe.steps if isinstance(step, ProposalStep)]
        if known := [path for path in measured if path.is_file()]:
            with reading(known[-1], "file of scales", f"delete {known[-1].parent} to train that stage anew"):
                scales = tuple(tuple(pair) for pair in json.loads(known[-1].read_text()))
                config = replace(config, proposal_scales=scales)
        return config

    def drive(self, step: OwnDrivesStep, processes: int) -> Iterator[float]:
        """Has the driver of a step drive; yields the share that is done.

        Raises TrainingError where the training before is not done.
        """
        driver: Driver | None = None
        if step.driver != EXPERT:
            model = self._model_before(step)
            checkpoint = self._checkpoint(model, self.folder / step.name, text=f"for {step.name}\n")
            sees_alone = step.driver is not None
            driver = SightDriver(checkpoint, self._ground(step.name)) if sees_alone else CheckpointDriver(checkpoint)
        yield from draw_own_drives(
            self.folder / "drives" / step.name,
            driver,
            step.numbers,
            image_size=self.recipe.image_size,
            processes=processes,
        )

    def plan(self, step: DistillationStep, processes: int) -> Iterator[float]:
        """Has the teacher plan at the moments that a step reads, where it has not; yields the share that is done.

        Raises TrainingError without a teacher.
        """
        folder, teacher = self.folder / PLANS, self._teacher_of(step)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / TEACHER).write_text(verified_hash(teacher))
        for number, kind in enumerate(step.reads):
            for share in write_plans(self.drives(kind), folder / kind, teacher, processes):
                yield (number + share) / len(step.reads)

    def look(self, kind: str, processes: int) -> Iterator[float]:
        """Has sight read the ground at the moments of drives, for steps of proposals; yields the share that is done.

        Raises TrainingError where sight has not learned yet.
        """
        seen_by = next((step for step in reversed(self.recipe.steps) if isinstance(step, SightStep)), None)
        checkpoint = self.folder / GROUND / "checkpoint"
        if seen_by is not None:
            model = AutoVlaModel(self.config())
            self._take_weights(model, seen_by)
            self._checkpoint(model, checkpoint, text=f"to read the ground with, after {seen_by.name}\n")
        source = checkpoint if seen_by is not None else self.start
        if source is None:
            raise TrainingError("nothing of this recipe learned to see; keep its stage sight, or give --start")
        yield from write_ground(self.drives(kind), self._ground(kind), source, processes=processes)

    def run(self, step: TrainingStep) -> None:
        """Trains a step to its end, from where it stands. Raises TrainingError."""
        state = PartialState(cpu=not torch.cuda.is_available())  # else it takes no notice of the other processes
        loop, folder = shared_out(step.loop, state.num_processes), self.folder / step.name
        model = self._model_before(step).train()
        training, samples, matrices = self._training(step, model, state.device)
        groups = by_muon(parameter_groups(training, loop.weight_decay), matrices)
        train(training, samples, list, groups, loop, folder)
        if state.is_main_process:
            if isinstance(training, Reinforcement) and training.low_rank is not None:
                training.low_rank.write()
            if isinstance(step, ProposalStep) and HELD_OUT in [other.name for other in self.recipe.steps]:
                scales = proposal_scales(GroundMoments([self._ground(HELD_OUT)]), sight_of(model.cpu().eval()))
                save_json(scales, folder / SCALES, "how far off proposals are")
            self._leave_weights(step, model)

    def _training(
        self, step: TrainingStep, model: AutoVlaModel, device: torch.device
    ) -> tuple[nn.Module, Dataset[Any], list[nn.Parameter]]:
        """What a step trains, from what, and which matrices of it learn by Muon."""
        if isinstance(step, ProposalStep):
            proposals = ProposalTraining(model, step.caution)
            return proposals, GroundMoments([self._ground(kind) for kind in step.reads]), proposals.inner_matrices()
        tokenizer = self.tokenizer()
        actions = action_tokens(model.autovla_config, tokenizer, self.codebook())
        stores = [self.drives(kind) for kind in step.reads]
        loop = step.loop
        draws = loop.steps * loop.batch_size * loop.accumulation if isinstance(step, ReinforcementStep) else 0
        examples = PlanExamples(stores, model.autovla_config, tokenizer, actions, draws=draws)
        if isinstance(step, SightStep):
            model.requires_grad_(False).model.visual.requires_grad_(True)
            sight_of(model).requires_grad_(True)
            seen = SeenMoments(examples, model.autovla_config.cameras)
            return SightTraining(model), seen, inner_matrices(model.model.visual.blocks)
        if isinstance(step, ReinforcementStep):
            seed = step.loop.seed
            return Reinforcement(model, tokenizer, actions, self._reward, step.grpo, seed=seed), examples, []
        model.model.visual.requires_grad_(step.vision)
        if model.sight is not None:
            model.sight.requires_grad_(False)
            model.model.visual.merger.requires_grad_(True)  # sight reads before it, so nothing has taught it yet
        answers = AnswerTraining(
            model, tokenizer, actions, reasoning_weight=step.reasoning_weight, asks_points=step.asks_points
        )
        matrices = inner_matrices(model.model.language_model.layers) if step.muon else []
        if isinstance(step, DistillationStep):
            return *self._taught(step, answers, examples, stores, device), matrices
        return answers, examples, matrices

    def _ground(self, kind: str) -> Path:
        return self.folder / GROUND / kind

    def export(self) -> Path:
        """Writes what the last step left as a checkpoint folder, with its tokenizer and its card; returns it.

        Raises TrainingError where a step is not done.
        """
        model = AutoVlaModel(self.config())
        self._take_weights(model, self.recipe.training_steps[-1])
        begun = "random weights" if self.start is None else f"SHA-256 {verified_hash(self.start)}"
        if self.teacher is not None:
            taught_by = f"{load_config(self.teacher).model_id}, SHA-256 {verified_hash(self.teacher)}"
            begun += f", beside the teacher {taught_by}"
        text = card(self.recipe, self.folder, model_id=model.autovla_config.model_id, begun=begun, data=self.drives())
        return self._checkpoint(model, self.folder / "checkpoint", text=text)

    def _taught(
        self,
        step: DistillationStep,
        student: AnswerTraining,
        examples: PlanExamples,
        stores: Sequence[DriveStore],
        device: torch.device,
    ) -> tuple[Distillation, TaughtExamples]:
        """What a step trains and from what, with the teacher on a device. Raises TrainingError without its plans."""
        folder = self._teacher_of(step)
        plans = {token: plan for kind in step.reads for token, plan in read_plans(self.folder / PLANS / kind).items()}
        model = load_model(folder)[0]
        tokenizer = self.tokenizer()
        actions = action_tokens(model.autovla_config, tokenizer, self.codebook())
        teacher = AnswerTraining(model if device.type == "cuda" else model.float(), tokenizer, actions)
        training = Distillation(
            student, teacher.to(device), tokens=len(tokenizer), temperature=step.temperature, soft=step.soft
        )
        return training, TaughtExamples(
            examples, PlanExamples(stores, model.autovla_config, tokenizer, actions), plans
        )

    def _teacher_of(self, step: DistillationStep) -> Path:
        if self.teacher is None:
            raise TrainingError(f"the stage {step.name} needs a teacher; give its checkpoint folder")
        return self.teacher

    def _begin_with(self, codebook: ActionCodebook, source: Path) -> None:
        """Keeps the codebook in the folder."""
        if self._words is not None:
            raise TrainingError(f"the codebook of {self._words} is taken over with its tokens; leave {source} out")
        begun = (self.folder / "tokenizer").exists()
        if begun and (known := codebook_hash(self.codebook())) != (found := codebook_hash(codebook)):
            raise TrainingError(
                f"the run in {self.folder} has the action codebook {known[:12]}, but {source} is {found[:12]}; leave"
                " that out to go on, or choose another folder"
            )
        if not begun:
            self.folder.mkdir(parents=True, exist_ok=True)
            codebook.save(self.folder / CODEBOOK)

    def _check_same_teacher(self, teacher: Path) -> None:
        mark = self.folder / PLANS / TEACHER
        if mark.is_file() and mark.read_text() != (found := verified_hash(teacher)):
            raise TrainingError(
                f"the run in {self.folder} is taught by the weights {mark.read_text()[:12]}, but {teacher} has"
                f" {found[:12]}; give the same teacher, or choose another folder"
            )

    def _model_before(self, step: Step) -> AutoVlaModel:
        """The model as the training before a step has left it, in float32."""
        before = self.recipe.training_before(step)
        if not before and self.start is not None:
            model = load_model(self.start)[0].float()
            knows_actions, model.autovla_config = model.autovla_config.trained, self.config()
        else:
            torch.manual_seed(self.recipe.seed)
            model, knows_actions = AutoVlaModel(self.config()), bool(before)
            if before:
                self._take_weights(model, before[-1])
        if not knows_actions:
            start_from_motions(model, action_tokens(model.autovla_config, self.tokenizer(), self.codebook()))
        return model

    def _take_weights(self, model: AutoVlaModel, step: TrainingStep) -> None:
        take_weights(model, self.weights_after(step), self.folder / step.name)

    def _checkpoint(self, model: AutoVlaModel, folder: Path, *, text: str) -> Path:
        tokenizer = self.tokenizer()
        with written_whole(folder) as partial:
            save_model(model.bfloat16(), self.codebook(), partial, card=text)
            save_tokenizer(tokenizer, partial)
        return folder


def inner_matrices(layers: nn.Module) -> list[nn.Parameter]:
    """What multiplies states in the layers of the language model or of the tower: neither words nor pixels."""
    return [parameter for parameter in layers.parameters() if parameter.dim() == 2]


def parameter_groups(training: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """AdamW's groups of what learns: vectors (biases, norms) do not decay."""
    learning = [parameter for parameter in training.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in learning if parameter.dim() > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in learning if parameter.dim() <= 1], "weight_decay": 0.0},
    ]
