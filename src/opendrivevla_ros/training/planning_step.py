"""One step of end-to-end training: pictures in, the plan's text out, gradients from the words to the perception."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from opendrivevla_ros.language.model import Features
from opendrivevla_ros.perception.network import PerceptionFrame
from opendrivevla_ros.policies.opendrivevla.model import OpenDriveVlaModel
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.language_batches import LanguageBatches, Turn, answer_loss, read
from opendrivevla_ros.training.perception_step import move_frame


@dataclass(frozen=True)
class PlanningExample:
    """The frames of a scene up to now, at least one, and what is to be said at the last of them.

    user: the user message, as `language.prompt` writes it. answer: the text to be said.
    """

    frames: Sequence[PerceptionFrame]
    user: str
    answer: str

    def to(self, device: torch.device | str) -> "PlanningExample":
        """The same on a device."""
        return replace(self, frames=[move_frame(frame, device) for frame in self.frames])


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
        turns = [Turn(example.user, self._see(example.frames), example.answer) for example in examples]
        batch = self._batches(turns)
        return {"answer": answer_loss(self._language[0], batch, read(self._language[0], batch))}

    def _see(self, frames: Sequence[PerceptionFrame]) -> Features:
        perception = self.model.perception
        perception.reset()
        with torch.no_grad():
            for frame in frames[:-1]:
                perception(frame)
        output = perception(frames[-1])
        return Features(output.scene_tokens, output.agent_tokens, output.map_tokens)
