"""One step of end-to-end training: pictures in, the plan's text out, gradients from the words to the perception."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from opendrivevla_ros.datasets.drive_store import DriveStore, StoredSample
from opendrivevla_ros.datasets.driving_samples import DrivingSample
from opendrivevla_ros.language.model import Features
from opendrivevla_ros.perception.network import PerceptionFrame
from opendrivevla_ros.policies.continuity import follows
from opendrivevla_ros.policies.opendrivevla.config import OpenDriveVlaConfig
from opendrivevla_ros.policies.opendrivevla.model import OpenDriveVlaModel
from opendrivevla_ros.policies.opendrivevla.perception_input import perception_frame, scene_origin
from opendrivevla_ros.training.answer_losses import answer_loss, read
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.language_batches import LanguageBatches, Saying, Turn
from opendrivevla_ros.training.perception_step import move_frame
from opendrivevla_ros.training.text_tasks import TextTask, planning_tasks, prompt_fields

FRAMES = 3  # of a scene that an example shows: the last one, and those that make its memory


@dataclass(frozen=True)
class PlanningExample:
    """The frames of a scene up to now, at least one, and what is to be said at the last of them.

    user, answer, before: as of a `TextTask`.
    """

    frames: Sequence[PerceptionFrame]
    user: str
    answer: str
    before: str = ""

    def to(self, device: torch.device | str) -> "PlanningExample":
        """The same on a device."""
        return replace(self, frames=[move_frame(frame, device) for frame in self.frames])


@dataclass(frozen=True)
class _Place:
    """A stored sample (its pictures left out), and where it is stored."""

    stretch: int
    offset: int
    stored: StoredSample

    @property
    def sample(self) -> DrivingSample:
        return self.stored.sample


class PlanningExamples(Dataset[PlanningExample]):
    """The moments in a store whose future is wholly known, each with up to FRAMES frames of its scene, its own last.

    The frames are those that the policy would have in its memory: they go back no further than where it forgets.
    """

    def __init__(self, store: DriveStore, config: OpenDriveVlaConfig) -> None:
        """Raises TrainingError where no future is wholly known, DatasetError for a store that cannot be read."""
        self._store, self._config = store, config
        self._examples: list[tuple[list[_Place], TextTask]] = []
        places = _places(store)
        memory: list[_Place] = []
        for place in places:
            if memory and not _goes_on(memory[-1].sample, place.sample):
                memory = []
            memory = [*memory, place][-FRAMES:]
            if place.sample.future_mask.all():
                fields = prompt_fields(place.sample, config)
                self._examples += [(memory, task) for task in planning_tasks(place.stored, fields, config)]
        if not self._examples:
            raise TrainingError(
                f"none of the {len(places)} moments in {store.folder} is followed by 3 s of known motion, which a plan"
                " needs; record longer drives"
            )

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> PlanningExample:
        memory, task = self._examples[index]
        stored = [self._store.read(place.stretch, place.offset, place.offset + 1)[0] for place in memory]
        seen = [one.sample.observation for one in stored]
        origin = scene_origin(seen[0])
        frames = [perception_frame(observation, self._config.perception, origin) for observation in seen]
        return PlanningExample(frames, task.user, task.answer, task.before)


def _places(store: DriveStore) -> list[_Place]:
    """All samples of a store, scene by scene in the order of time."""
    found = [
        _Place(stretch, offset, stored)
        for stretch in range(len(store.names))
        for offset, stored in enumerate(store.read(stretch, cameras=()))
    ]
    return sorted(found, key=lambda place: (place.sample.scene, place.sample.index))


def _goes_on(before: DrivingSample, after: DrivingSample) -> bool:
    return before.scene == after.scene and follows(before.observation, after.observation)


class PlanningTraining(nn.Module):
    """What the loop trains in stage 3: a list of examples to the loss of their answers.

    The model sees as it does on a vehicle: tracks live and die by their scores, and their tokens reach the language.
    Gradients go through the last frame; those before it only make its memory.
    """

    def __init__(self, model: OpenDriveVlaModel, tokenizer: Any) -> None:
        super().__init__()
        if model.language is None:
            raise TrainingError("end-to-end training needs a language model, which this configuration leaves out")
        config = model.config
        self.model = model
        self._language = (model.language,)  # in a tuple, so that its parameters keep one name
        self._batches = LanguageBatches(
            model.language, tokenizer, system_text=config.system_text, end_id=config.eos_ids[0]
        )

    def forward(self, examples: Sequence[PlanningExample]) -> dict[str, Tensor]:
        """{"answer": mean cross-entropy}."""
        turns = [
            Turn(self._see(example.frames), (Saying(example.user, example.answer, before=example.before),))
            for example in examples
        ]
        batch = self._batches(turns)
        return {"answer": answer_loss(self._language[0], batch, read(self._language[0], batch)[-1])}

    def _see(self, frames: Sequence[PerceptionFrame]) -> Features:
        perception = self.model.perception
        perception.reset()
        with torch.no_grad():
            for frame in frames[:-1]:
                perception(frame)
        output = perception(frames[-1])
        seen = Features(output.scene_tokens, output.agent_tokens, output.map_tokens)
        return seen.led_by(output.ego_tokens, output.path)
