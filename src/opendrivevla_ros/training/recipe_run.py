"""Runs a recipe step by step in one folder: drives, tokenizer, then a folder of its own for each step.

A step that is done is not run again, and one that was cut off goes on where its last saved state is.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, Dataset

from opendrivevla_ros.language.small_tokenizer import build_small_tokenizer, load_tokenizer
from opendrivevla_ros.policies.checkpoint import save_tokenizer, written_whole
from opendrivevla_ros.policies.opendrivevla.config import OpenDriveVlaConfig, small
from opendrivevla_ros.policies.opendrivevla.model import OpenDriveVlaModel, save_model
from opendrivevla_ros.training.card import StepFigures, card
from opendrivevla_ros.training.corpus import world_corpus
from opendrivevla_ros.training.ego_driver import EgoDriver
from opendrivevla_ros.training.ego_step import EgoTraining, proposal_scales, query_of, with_ego_tokens
from opendrivevla_ros.training.end_to_end import EndToEndTraining, SpokenClips
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.frame_labels import Clips
from opendrivevla_ros.training.initialisation import start_from_nothing
from opendrivevla_ros.training.language_data import SeenTurns
from opendrivevla_ros.training.lessons import Lessons, LessonTraining
from opendrivevla_ros.training.loop import shared_out, train
from opendrivevla_ros.training.metrics import first_and_last, read_metrics
from opendrivevla_ros.training.moments import Moments
from opendrivevla_ros.training.muon import by_muon
from opendrivevla_ros.training.own_drives import CheckpointDriver, Driver, draw_own_drives
from opendrivevla_ros.training.perception_step import PerceptionTraining
from opendrivevla_ros.training.recipe import (
    EXPERT,
    HELD_OUT,
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
from opendrivevla_ros.training.seen_tokens import load_tokens, see_drives
from opendrivevla_ros.training.stages import prepare, stage
from opendrivevla_ros.training.step_run import WEIGHTS, StepRun, take_weights
from opendrivevla_ros.training.times import read_times


class RecipeRun(StepRun[Recipe]):
    """A recipe in a folder. Each step leaves the weights of the parts it trained with, those only training has too."""

    def tokenizer(self) -> Any:
        """The small tokenizer, made of the world's words the first time."""
        folder = self.folder / "tokenizer"
        if not (folder / "tokenizer.json").is_file():
            made = build_small_tokenizer(world_corpus())
            with written_whole(folder) as partial:
                save_tokenizer(made, partial)
        return load_tokenizer(folder)

    def config(self) -> OpenDriveVlaConfig:
        """Of the checkpoint that is made."""
        tokenizer = self.tokenizer()
        config = small(len(tokenizer), int(tokenizer.eos_token_id))
        return replace(config, model_id=f"{config.model_id}-thinking", thinks=True) if self.recipe.thinks else config

    def look(self, processes: int, kind: str, step: EgoStep | LanguageStep | None = None) -> Iterator[float]:
        """Has perception see all drives of a kind, as in `drives`, for a step that reads them; yields the share done.

        step: whose perception it is, the last that trains before it; a step that reads the truth gets what is there,
        and needs none. None for what the whole recipe has made.
        """
        if isinstance(step, LanguageStep) and step.truth:
            there = self._features(kind, None)
            yield from see_drives(self.drives(kind), there, self.config(), None, processes=processes)
            return
        seer = self._seer(self.recipe.steps[-1] if step is None else step)
        prefix = "perception."
        weights = self.weights_after(seer)
        perception = {name.removeprefix(prefix): part for name, part in weights.items() if name.startswith(prefix)}
        folder = self._features(kind, seer)
        yield from see_drives(self.drives(kind), folder, self.config(), perception, processes=processes)

    def drive(self, step: OwnDrivesStep, processes: int) -> Iterator[float]:
        """Has the driver of a step drive; yields the share that is done."""
        driver: Driver | None = None
        if step.driver is None:
            folder = self.folder / step.name
            driver = CheckpointDriver(
                self.save_checkpoint(self.weights_before(step), folder, card=f"for {step.name}\n")
            )
        elif step.driver != EXPERT:
            proposing = self.recipe.training_step(step.driver)
            self.weights_after(proposing)
            weights = self.folder / step.driver / WEIGHTS
            driver = EgoDriver(weights, self.config(), self._features(step.name, self._seer(proposing)))
        yield from draw_own_drives(
            self.folder / "drives" / step.name,
            driver,
            step.numbers,
            image_size=self.recipe.image_size,
            processes=processes,
        )

    def _seer(self, step: Step) -> PerceptionStep:
        """Whose perception a step reads, or is."""
        return [one for one in self.recipe.training_until(step) if isinstance(one, PerceptionStep)][-1]

    def _features(self, kind: str, seer: PerceptionStep | None) -> Path:
        """The folder of what somebody sees of drives; None for the truth."""
        return self.folder / ("truth" if seer is None else f"tokens_{seer.name}") / kind

    def weights_before(self, step: Step) -> dict[str, Tensor]:
        """All parts as the training before has left them. Raises TrainingError where that is not done.

        Who learns from the truth needs no perception: they can be trained at the same time.
        """
        from_truth = isinstance(step, LanguageStep) and step.truth
        weights: dict[str, Tensor] = {}
        for other in self.recipe.training_before(step):
            if not (from_truth and isinstance(other, PerceptionStep | EgoStep)):
                weights |= self.weights_after(other)
        return weights

    def run(self, step: TrainingStep) -> None:
        """Trains a step to its end, from where it stands."""
        state = PartialState(cpu=not torch.cuda.is_available())  # else it takes no notice of the other processes
        torch.manual_seed(self.recipe.seed)
        model = OpenDriveVlaModel(self.config())
        start_from_nothing(model.perception)
        training, samples = self._training(step, model)
        groups = self._groups(step, model, training)
        take_weights(training, _common(self.weights_before(step), training.state_dict()), self.folder)
        if isinstance(step, PerceptionStep) and step.fixed_norms:
            fix_norms(model.perception)
        folder = self.folder / step.name
        train(training, samples, list, groups, shared_out(step.loop, state.num_processes), folder)
        if state.is_main_process:
            self._leave_weights(step, training)

    def _groups(self, step: TrainingStep, model: OpenDriveVlaModel, training: nn.Module) -> list[dict[str, Any]]:
        """Groups of parameters: what the step's stage trains of the model, and what only training has."""
        groups = prepare(model, stage(step.stage), weight_decay=step.loop.weight_decay)
        of_the_model = {id(parameter) for parameter in model.parameters()}
        groups[0]["params"] += [own for own in training.parameters() if id(own) not in of_the_model]
        if isinstance(training, LessonTraining | EgoTraining):
            return by_muon(groups, training.inner_matrices())
        return groups

    def export(self) -> Path:
        """Writes what the last step left as a checkpoint folder, with its tokenizer and its card; returns it.

        Its `proposal_scales` are those on the held-out drives, where the recipe has them; they must have been seen.
        """
        recipe, config = self.recipe, self.config()
        steps = recipe.training_steps
        figures = [self._figures(step) for step in steps]
        driven = [step.name for step in recipe.steps if isinstance(step, OwnDrivesStep)]
        drives = {kind: self.drives(kind) for kind in (TRAIN, *driven)}
        text = card(recipe, figures, model_id=config.model_id, drives=drives, times=read_times(self.folder))
        weights = self.weights_before(steps[-1]) | self.weights_after(steps[-1])
        if HELD_OUT in driven:
            config = replace(config, proposal_scales=self._proposal_scales(weights))
        return self.save_checkpoint(weights, self.folder / "checkpoint", card=text, config=config)

    def _proposal_scales(self, weights: dict[str, Tensor]) -> tuple[tuple[float, ...], ...]:
        """See `ego_step.proposal_scales`, of the held-out drives."""
        model = OpenDriveVlaModel(self.config())
        take_weights(model, _common(weights, model.state_dict()), self.folder)
        seen = load_tokens(self._features(HELD_OUT, self._seer(self.recipe.steps[-1])))
        return proposal_scales(seen, query_of(model.perception))

    def save_checkpoint(
        self, weights: dict[str, Tensor], folder: Path, *, card: str, config: OpenDriveVlaConfig | None = None
    ) -> Path:
        """Writes a model of these weights, and of this configuration if not the run's, with the tokenizer.

        Raises CheckpointError for a full disk.
        """
        model = OpenDriveVlaModel(config or self.config())
        take_weights(model, _common(weights, model.state_dict()), self.folder)
        tokenizer = self.tokenizer()
        with written_whole(folder) as partial:
            save_model(model.bfloat16(), partial, card=card)
            save_tokenizer(tokenizer, partial)
        return folder

    def _figures(self, step: TrainingStep) -> StepFigures:
        rows = read_metrics(self.folder / step.name)
        seen = step.loop.steps * step.loop.batch_size * step.loop.accumulation
        return StepFigures(step, seen, *first_and_last(rows))

    def _training(self, step: TrainingStep, model: OpenDriveVlaModel) -> tuple[nn.Module, Dataset[Any]]:
        config = model.config
        if isinstance(step, PerceptionStep):
            clips = [Clips(self.drives(kind), config.perception, step.frames) for kind in step.reads]
            return PerceptionTraining(model.perception), ConcatDataset(clips)
        if isinstance(step, PlanningStep):
            spoken = SpokenClips(self.drives(), config, step.frames, step.shares)
            return EndToEndTraining(model, self.tokenizer()), spoken
        seer = None if isinstance(step, LanguageStep) and step.truth else self._seer(step)
        seen = [sample for kind in step.reads for sample in load_tokens(self._features(kind, seer))]
        if isinstance(step, EgoStep):
            return EgoTraining(model.perception, step.caution), Moments(seen)
        if not step.truth:
            take_weights(model, _common(self.weights_before(step), model.state_dict()), self.folder)
            seen = with_ego_tokens(seen, query_of(model.perception))
        if any(task.before for sample in seen for task in sample.tasks) != self.recipe.thinks:
            other = "does not think" if self.recipe.thinks else "thinks"
            raise TrainingError(f"the drives in {self.folder} were looked at for a model that {other}; choose another")
        assert model.language is not None
        training = LessonTraining(
            model.language,
            self.tokenizer(),
            system_text=config.system_text,
            end_id=config.eos_ids[0],
            truth=step.truth,
        )
        return training, Lessons(SeenTurns(seen, step.shares), Moments(seen), step.moments)


def fix_norms(module: nn.Module) -> None:
    """Has batch normalisation keep the statistics that it has, which driving will use."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()


def _common(known: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The module's own state with everything that is known of it."""
    return {**own, **{name: value for name, value in known.items() if name in own}}
