"""Stage 3 with labels: the plan's words teach the perception, which keeps learning its own tasks beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils.data import Dataset

from opendrivevla_ros.datasets.drive_store import DriveStore
from opendrivevla_ros.policies.opendrivevla.config import OpenDriveVlaConfig
from opendrivevla_ros.policies.opendrivevla.model import OpenDriveVlaModel
from opendrivevla_ros.training.answer_losses import AnswerLosses
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.frame_labels import clip_places, labelled_frames
from opendrivevla_ros.training.language_batches import LanguageBatches, Turn
from opendrivevla_ros.training.language_data import choose
from opendrivevla_ros.training.language_samples import NOTHING_SEEN, spoken
from opendrivevla_ros.training.perception_step import LabelledFrame, PerceptionLosses

ANSWER_WEIGHT = 8.0  # of the words beside the perception's losses


@dataclass(frozen=True)
class SpokenClip:
    """The frames of a clip and, for each, what is to be said; the turns have no features yet."""

    frames: Sequence[LabelledFrame]
    turns: Sequence[Turn]

    def to(self, device: Any) -> "SpokenClip":
        """The same on a device."""
        return SpokenClip([frame.to(device) for frame in self.frames], self.turns)


class SpokenClips(Dataset[SpokenClip]):
    """Runs of `size` consecutive frames from a store of drives, with a turn for each; shares as in `SeenTurns`."""

    def __init__(self, store: DriveStore, config: OpenDriveVlaConfig, size: int, shares: Mapping[str, float]) -> None:
        self._store, self._config, self._shares, self._size = store, config, shares, size
        self._places = clip_places(store, size)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> SpokenClip:
        stretch, start = self._places[index]
        stored = self._store.read(stretch, start, start + self._size)
        random = np.random.default_rng([index, 83])
        turns = [choose(spoken(one, NOTHING_SEEN, self._config), self._shares, random) for one in stored]
        return SpokenClip(labelled_frames([one.sample for one in stored], self._config.perception), turns)


class EndToEndTraining(PerceptionLosses):
    """What the loop trains in stage 3: clips to the losses of their words and of the perception."""

    def __init__(self, model: OpenDriveVlaModel, tokenizer: Any) -> None:
        if model.language is None:
            raise TrainingError("end-to-end training needs a language model, which this configuration leaves out")
        super().__init__(model.perception)
        self.language: nn.Module = model.language
        self.answers = AnswerLosses(model.language.language_config.hidden_size)
        config = model.config
        self._batches = LanguageBatches(
            model.language, tokenizer, system_text=config.system_text, end_id=config.eos_ids[0]
        )
        self._speaker = (model.language,)  # in a tuple, so that its parameters keep one name

    def forward(self, clips: Sequence[SpokenClip]) -> dict[str, Tensor]:
        """The perception's losses, and those of `AnswerLosses` for the words."""
        losses, tokens = self.losses_and_tokens([clip.frames for clip in clips])
        asked = [turn for clip in clips for turn in clip.turns]
        turns = [replace(turn, features=seen) for turn, seen in zip(asked, tokens, strict=True)]
        said = self.answers(self._speaker[0], self._batches(turns))
        return {**losses, **{name: ANSWER_WEIGHT * loss for name, loss in said.items()}}
