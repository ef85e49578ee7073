"""What answers cost: the loss of their words, and of what heads that only training has must read between them."""

import copy
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Qwen2Model

from opendrivevla_ros.core.trajectory import WAYPOINTS
from opendrivevla_ros.language.model import DrivingLanguageModel
from opendrivevla_ros.training.language_batches import IGNORED, LanguageBatch
from opendrivevla_ros.training.number_reading import NumberReading
from opendrivevla_ros.training.token_reader import plan_error

POINT_METRES = 10.0
READ_DEPTH, THOUGHT_DEPTH, WRITTEN_DEPTH = 1 / 3, 2 / 3, 5 / 6  # of the layers: read numbers, make a plan, write it


def read(model: DrivingLanguageModel, batch: LanguageBatch) -> tuple[Tensor, ...]:
    """The model's states [B, L, hidden] before the first layer and after each one, the last of them normalised.

    The filling stands on the right, where causal attention hides it from every answer without a mask.
    """
    states: tuple[Tensor, ...] = model.model(
        inputs_embeds=batch.embeddings,
        position_ids=batch.places,
        attention_mask=batch.sees,
        use_cache=False,
        output_hidden_states=True,
    ).hidden_states
    return states


def answer_loss(model: DrivingLanguageModel, batch: LanguageBatch, hidden: Tensor) -> Tensor:
    """Mean cross-entropy of the answers' tokens, each predicted from all that stands before it.

    Only those positions get logits: over a whole prompt, logits of 150,000 words would take most of the memory.
    """
    wanted = batch.labels[:, 1:]
    learned = wanted != IGNORED
    return F.cross_entropy(model.lm_head(hidden[:, :-1][learned]).float(), wanted[learned])


def at_depth(states: Sequence[Tensor], depth: float) -> Tensor:
    """The states of `read` after that share of the layers."""
    return states[round(depth * (len(states) - 1))]


def first_layers(model: Qwen2Model, depth: float) -> Qwen2Model:
    """The model up to `at_depth`, whose state there is the last that it gives; its weights are the model's own."""
    count = round(depth * len(model.layers))
    part = copy.copy(model)
    part._modules = {**model._modules, "layers": model.layers[:count], "norm": nn.Identity()}
    return part


class FirstThought(nn.Module):
    """Says a trajectory's points where its question ends; only training has it.

    Digits are learned one by one, each as right or wrong. This tells the model how far off it is, before it writes,
    and so early in the layers that those after can read it when they write.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.normalise = nn.LayerNorm(hidden_size)
        self.points = nn.Linear(hidden_size, 2 * WAYPOINTS)

    def forward(self, batch: LanguageBatch, states: Sequence[Tensor]) -> Tensor:
        """The error of the points, metres, see `plan_error`; 0 where no answer is a trajectory.

        In metres, and not in tens of them, it weighs more than the words: counted once, a plan was thought with 0.83 m
        of error after 460,000 moments, where a network without words had 0.56 after 384,000.
        """
        return self.error(at_depth(states, THOUGHT_DEPTH), batch.asked, batch.points, batch.has_points)

    def error(self, states: Tensor, asked: Tensor, points: Tensor, known: Tensor) -> Tensor:
        """The same of states at THOUGHT_DEPTH; the prompts end at `asked` [N, 2]; points [N, 6, 2], known [N]."""
        sequences, positions = asked.unbind(1)
        found = self.points(self.normalise(states[sequences, positions])).float().unflatten(1, (WAYPOINTS, 2))
        return plan_error(POINT_METRES * found, points, known[:, None].expand(-1, WAYPOINTS))


class AnswerLosses(nn.Module):
    """What a batch's answers cost, with the heads that only training has."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.thought = FirstThought(hidden_size)
        self.reading = NumberReading(hidden_size)
        self.writing = NumberReading(hidden_size)

    def forward(self, model: DrivingLanguageModel, batch: LanguageBatch) -> dict[str, Tensor]:
        """{"answer": mean cross-entropy, "points": see `FirstThought`, "read", "written": see `NumberReading`}."""
        states = read(model, batch)
        return {
            "answer": answer_loss(model, batch, states[-1]),
            "points": self.thought(batch, states),
            "read": self.reading(at_depth(states, READ_DEPTH), batch.read),
            "written": self.writing(at_depth(states, WRITTEN_DEPTH), batch.written),
        }
