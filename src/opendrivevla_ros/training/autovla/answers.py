"""Supervised fine-tuning of AutoVLA: plans in both modes by teacher forcing (arXiv 2506.13757, section 3.3).

Loss of an example = w (L_LM + L_action): mean cross-entropy over the whole answer, and again over its action tokens;
w is greater where the answer has a thought, since such examples are rare and their thoughts long.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opendrivevla_ros.language.action_tokens import ActionTokens
from opendrivevla_ros.policies.autovla.config import ACTIONS_PER_PLAN
from opendrivevla_ros.policies.autovla.model import AutoVlaModel, VisionIds
from opendrivevla_ros.policies.autovla.prompt import ANSWER_END, answer_text
from opendrivevla_ros.training.answer_losses import THOUGHT_DEPTH, FirstThought, at_depth
from opendrivevla_ros.training.attention import attend_in_float32
from opendrivevla_ros.training.autovla.examples import PlanExample
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.frame_labels import plan_label
from opendrivevla_ros.training.language_batches import IGNORED

REASONING_WEIGHT = 40.0  # published, for data in which few examples have a thought


@dataclass(frozen=True)
class AnswerBatch:
    """B prompts with their answers, filled up on the right to L positions.

    embeddings: [B, L, hidden]. positions: [3, B, L], rotary. labels: int64 [B, L], the token that belongs at each
    position of an answer, IGNORED elsewhere. shares: float32 [K, actions], what was known of each of their K actions,
    answer after answer (see `ActionPrior`); None for a model to which nothing is proposed.
    """

    embeddings: Tensor
    positions: Tensor
    labels: Tensor
    shares: Tensor | None


@dataclass(frozen=True)
class Told:
    """What a model gives for the K tokens of B answers, each after those before it.

    logits: float32 [K, vocabulary], answer after answer. wanted: int64 [B, L - 1], the tokens in their places,
    IGNORED elsewhere. points: metres by which its points are off, where it is asked for them; else None.
    """

    logits: Tensor
    wanted: Tensor
    points: Tensor | None = None

    @property
    def tokens(self) -> Tensor:
        """int64 [K], the wanted tokens alone."""
        return self.wanted[self.wanted != IGNORED]


class AnswerTraining(nn.Module):
    """What the loop trains: a list of examples to the loss of their answers.

    asks_points: also where the ego goes must be told where the prompt ends, in metres (see `FirstThought`): an action
    token is right or wrong, and a small model that starts from nothing is long wrong without learning how far off.
    """

    def __init__(
        self,
        model: AutoVlaModel,
        tokenizer: Any,
        actions: ActionTokens,
        *,
        reasoning_weight: float = REASONING_WEIGHT,
        asks_points: bool = False,
    ) -> None:
        super().__init__()
        if not reasoning_weight > 0:
            raise TrainingError(f"the weight of answers with a thought must be above 0, not {reasoning_weight}")
        attend_in_float32(model)
        self.model = model
        self.points = FirstThought(model.autovla_config.language.hidden_size) if asks_points else None
        self._tokenizer, self._actions, self._reasoning_weight = tokenizer, actions, reasoning_weight
        self._vision_ids = VisionIds.of(tokenizer)

    def forward(self, examples: Sequence[PlanExample]) -> dict[str, Tensor]:
        """{"words": L_LM, "actions": L_action}, means over the examples of w times each; and {"points": metres}."""
        told = self.told(examples)
        losses = self.means(examples, told, F.cross_entropy(told.logits, told.tokens, reduction="none"))
        return losses if told.points is None else losses | {"points": told.points}

    def told(self, examples: Sequence[PlanExample]) -> Told:
        """What is told at the examples' answers. Raises TrainingError for an answer that is too long."""
        batch = self.batch(examples)
        if self.points is None:
            return Told(*self._logits(batch, states(self.model, batch)))
        layers = layer_states(self.model, batch)
        ends = (batch.labels != IGNORED).int().argmax(1) - 1
        asked = torch.stack([torch.arange(len(ends), device=ends.device), ends], dim=1)
        plans = [plan_label(example.sample.sample).to(asked.device) for example in examples]
        path, known = torch.stack([plan.path for plan in plans]), torch.stack([plan.known.all() for plan in plans])
        points = self.points.error(at_depth(layers, THOUGHT_DEPTH), asked, path, known)
        return Told(*self._logits(batch, layers[-1]), points)

    def _logits(self, batch: AnswerBatch, found: Tensor) -> tuple[Tensor, Tensor]:
        """`Told.logits` and `Told.wanted`, from the model's last states [B, L, hidden]."""
        wanted = batch.labels[:, 1:]
        learned = wanted != IGNORED
        logits = self.model.lm_head(found[:, :-1][learned]).float()
        if batch.shares is None:
            return logits, wanted
        first, stop = self._actions.first_id, self._actions.stop_id
        is_action = (wanted[learned] >= first) & (wanted[learned] < stop)
        shares = torch.zeros_like(logits)
        shares[is_action, first:stop] = batch.shares
        return logits + shares, wanted

    def means(self, examples: Sequence[PlanExample], told: Told, of_tokens: Tensor) -> dict[str, Tensor]:
        """Losses [K] of the answers' tokens as `forward` gives them: over whole answers, and over their actions."""
        wanted = told.wanted
        learned = wanted != IGNORED
        losses = torch.zeros(wanted.shape, device=wanted.device)
        losses[learned] = of_tokens
        is_action = (wanted >= self._actions.first_id) & (wanted < self._actions.stop_id)
        weights = torch.tensor(
            [1.0 if example.thought is None else self._reasoning_weight for example in examples], device=wanted.device
        )
        return {
            "words": (weights * losses.sum(1) / learned.sum(1)).mean(),
            "actions": (weights * (losses * is_action).sum(1) / is_action.sum(1)).mean(),
        }

    def batch(self, examples: Sequence[PlanExample]) -> AnswerBatch:
        """The examples' prompts as inference embeds them, and their answers. Raises TrainingError for a long one."""
        embed = self.model.model.language_model.embed_tokens
        embeddings, positions, labels = [], [], []
        seen = self.model.seen([example.videos for example in examples])
        for example, tokens in zip(examples, seen.tokens, strict=True):
            prompt, prompt_positions = self.model.embed_seen(list(example.ids), tokens, self._vision_ids)
            answer = torch.tensor(self.answer_ids(example), device=prompt.device)
            length, limit = len(prompt) + len(answer), self.model.autovla_config.language.max_positions
            if length > limit:
                raise TrainingError(
                    f"{example.sample.sample.token} has {length} tokens with its answer, but the model {limit}"
                    " positions; shorten its thought"
                )
            embeddings.append(torch.cat([prompt, embed(answer).to(prompt.dtype)]))
            positions.append(following(prompt_positions, len(answer)).T)
            labels.append(torch.cat([answer.new_full((len(prompt),), IGNORED), answer]))
        priors = self.model.priors(self._actions.codebook, seen, [one.sample.sample.observation for one in examples])
        shares = None
        if priors is not None:
            known = [
                prior.log_shares(example.actions[:step])
                for prior, example in zip(priors, examples, strict=True)
                for step in range(len(example.actions))
            ]
            shares = torch.from_numpy(np.stack(known)).float().to(seen.tokens.device)
        pad = nn.utils.rnn.pad_sequence
        return AnswerBatch(
            embeddings=pad(embeddings, batch_first=True),
            positions=pad(positions, batch_first=True).permute(2, 0, 1),
            labels=pad(labels, batch_first=True, padding_value=IGNORED),
            shares=shares,
        )

    def answer_ids(self, example: PlanExample) -> list[int]:
        """The answer's tokens and the one that ends it; only up to the last known action where not all are known."""
        text = answer_text(self._actions.text(example.actions), example.thought)
        if len(example.actions) == ACTIONS_PER_PLAN:
            end_id = self.model.autovla_config.eos_ids[0]
            return [*self._tokenizer.encode(text, add_special_tokens=False), end_id]
        ids: list[int] = self._tokenizer.encode(text.removesuffix(ANSWER_END), add_special_tokens=False)
        return ids


def following(positions: Tensor, count: int) -> Tensor:
    """Rotary positions [3, L + count] of a prompt's [3, L] and the text after it, which goes on behind the largest."""
    after = positions.max() + 1 + torch.arange(count, device=positions.device)
    return torch.cat([positions, after.expand(3, -1)], dim=1)


def states(model: AutoVlaModel, batch: AnswerBatch) -> Tensor:
    """The language model's normalised last states [B, L, hidden].

    The filling stands on the right, where causal attention hides it from every answer without a mask.
    """
    found: Tensor = model.model.language_model(
        inputs_embeds=batch.embeddings, position_ids=batch.positions, use_cache=False
    ).last_hidden_state
    return found


def layer_states(model: AutoVlaModel, batch: AnswerBatch) -> tuple[Tensor, ...]:
    """States [B, L, hidden] before each layer of the language model and, as `states`, after the last; all are kept."""
    found: tuple[Tensor, ...] = model.model.language_model(
        inputs_embeds=batch.embeddings, position_ids=batch.positions, use_cache=False, output_hidden_states=True
    ).hidden_states
    return found
