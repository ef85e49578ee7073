"""Answers drawn from a model, many to a prompt at once: its mode, its thought and its actions, and nothing else.

What is fixed in an answer is fed, not drawn, as when the model drives: of the two beginnings one is drawn, of a
thought words that are no actions, of a plan actions alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from opendrivevla_ros.language.action_prior import ActionPrior
from opendrivevla_ros.language.action_tokens import ActionTokens
from opendrivevla_ros.language.decoder import Decoder
from opendrivevla_ros.language.thinking import unwritten
from opendrivevla_ros.policies.autovla.config import ACTIONS_PER_PLAN
from opendrivevla_ros.policies.autovla.model import AutoVlaModel
from opendrivevla_ros.policies.autovla.prompt import ANSWER_END, TEMPLATE
from opendrivevla_ros.training.errors import TrainingError

ENDING = "\n" + TEMPLATE.end + TEMPLATE.answer


class Decision(IntEnum):
    """What is decided at a place of an answer; the value is the row of `Rollouts.barrier`."""

    MODE = 0
    WORD = 1
    ACTION = 2


@dataclass(frozen=True)
class Rollout:
    """One answer.

    ids: its tokens, from the end of the prompt to the last action. places: which of them were drawn; kinds: of what
    decision each of those was. slow: it has a thought. text: all of it. actions: int64 [ACTIONS_PER_PLAN].
    """

    ids: tuple[int, ...]
    places: tuple[int, ...]
    kinds: tuple[Decision, ...]
    slow: bool
    text: str
    actions: NDArray[np.int64]


class Rollouts:
    """Draws from the model as its weights are now.

    rows: most answers at once. most_thought: tokens of a thought, after which it is closed as the budget of a driving
    model closes it. Raises TrainingError for fewer than one of either.
    """

    def __init__(
        self, model: AutoVlaModel, tokenizer: Any, actions: ActionTokens, *, rows: int, most_thought: int
    ) -> None:
        if rows < 1 or most_thought < 1:
            raise TrainingError(
                f"{rows} answers with thoughts of {most_thought} tokens cannot be drawn; give 1 or more"
            )
        config = model.autovla_config
        self._tokenizer, self._actions, self._most_thought = tokenizer, actions, most_thought
        self._decoder = Decoder(model, max_length=config.positions, rows=rows)
        fast, slow = self._encode(TEMPLATE.fast), self._encode(TEMPLATE.slow)
        shared = next(index for index, (one, other) in enumerate(zip(fast, slow, strict=False)) if one != other)
        self._opening, self._fast, self._slow = fast[:shared], fast[shared:], slow[shared:]
        # closing a thought takes no more tokens than its bytes, and then come the actions
        self._after_thought = len(ENDING.encode()) + ACTIONS_PER_PLAN
        barrier = torch.full((len(Decision), len(self._decoder.head)), float("-inf"))
        barrier[Decision.MODE, [self._fast[0], self._slow[0]]] = 0.0
        barrier[Decision.WORD] = 0.0
        barrier[Decision.WORD, [*config.eos_ids]] = float("-inf")
        barrier[Decision.WORD, actions.first_id : actions.stop_id] = float("-inf")
        barrier[Decision.ACTION, actions.first_id : actions.stop_id] = 0.0
        self.barrier = barrier.to(self._decoder.head.device)  # [3, vocabulary], added to logits

    def draw(
        self,
        embeddings: Tensor,
        positions: Tensor,
        count: int,
        generator: torch.Generator,
        prior: ActionPrior | None = None,
    ) -> tuple[Rollout, ...]:
        """So many answers to a prompt [L, hidden] with rotary positions [3, L], at temperature 1.

        generator: of a CPU, so that the same seed draws the same on every device. Raises TrainingError for a prompt
        that leaves no room for a thought.
        """
        decoder = self._decoder
        room = decoder.max_length - len(embeddings) - len(self._opening) - len(self._slow) - self._after_thought
        if room < 1:
            raise TrainingError(
                f"a prompt of {len(embeddings)} tokens leaves no room for a thought among the {decoder.max_length}"
                " positions that are kept for one; shorten it"
            )
        rows = [_Row(list(self._opening)) for _ in range(count)]
        # the cache has the weights' type, which mixed precision must not change
        with torch.inference_mode(), torch.autocast(embeddings.device.type, enabled=False):
            opening = decoder.embedding[list(self._opening)]
            after = positions.max() + 1 + torch.arange(len(opening), device=positions.device)
            hidden = decoder.prefill(
                torch.cat([embeddings.detach().to(opening.dtype), opening]),
                positions=torch.cat([positions, after.expand(3, -1)], dim=1),
            )
            decoder.fork(count)
            hidden = hidden.expand(count, -1)
            while not all(row.is_done for row in rows):
                known = self.known([row.kind for row in rows], [row.actions for row in rows], [prior] * count)
                logits = F.linear(hidden, decoder.head).float() + known
                uniform = torch.rand(count, 1, generator=generator)
                drawn = _draw(logits.softmax(-1).cpu(), uniform)
                fed = [self._take(row, token, room) for row, token in zip(rows, drawn, strict=True)]
                if any(fed):
                    hidden = decoder.step(fed)
        return tuple(self._rollout(row) for row in rows)

    def known(
        self, kinds: Sequence[Decision], taken: Sequence[Sequence[int]], priors: Sequence[ActionPrior | None]
    ) -> Tensor:
        """What is added to logits [N, vocabulary]: no token that is none of a decision, and what is known of actions.

        taken: of each decision the ids of the actions before it.
        """
        added = self.barrier[list(kinds)]
        first, stop = self._actions.first_id, self._actions.stop_id
        for row, (kind, before, prior) in enumerate(zip(kinds, taken, priors, strict=True)):
            if kind is Decision.ACTION and prior is not None and len(before) < ACTIONS_PER_PLAN:
                shares = prior.log_shares([token - first for token in before])
                added[row, first:stop] += torch.from_numpy(shares).to(added)
        return added

    def _take(self, row: "_Row", token: int, room: int) -> list[int]:
        """Takes what was drawn for a row; returns what is to be fed of it."""
        if row.is_done:
            return []
        before = len(row.ids)
        row.places.append(before)
        row.kinds.append(row.kind)
        if row.kind is Decision.MODE:
            row.slow = token == self._slow[0]
            row.ids += self._slow if row.slow else self._fast
            row.kind = Decision.WORD if row.slow else Decision.ACTION
        elif row.kind is Decision.WORD:
            row.ids.append(token)
            row.thought.append(token)
            text = self._tokenizer.decode(row.thought)
            if TEMPLATE.end in text or len(row.thought) >= min(self._most_thought, room):
                row.ids += self._encode(unwritten(text, ENDING, TEMPLATE.end))
                row.kind = Decision.ACTION
        else:
            row.ids.append(token)
            row.actions.append(token)
            if row.is_done:
                return []  # nothing is asked for after the last action
        return row.ids[before:]

    def _rollout(self, row: "_Row") -> Rollout:
        return Rollout(
            ids=tuple(row.ids),
            places=tuple(row.places),
            kinds=tuple(row.kinds),
            slow=row.slow,
            text=self._tokenizer.decode(row.ids) + ANSWER_END,
            actions=self._actions.actions(row.actions),
        )

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids


@dataclass
class _Row:
    """An answer that is being drawn. kind: of the decision that comes next."""

    ids: list[int]
    places: list[int] = field(default_factory=list)
    kinds: list[Decision] = field(default_factory=list)
    thought: list[int] = field(default_factory=list)
    actions: list[int] = field(default_factory=list)
    slow: bool = False
    kind: Decision = Decision.MODE

    @property
    def is_done(self) -> bool:
        return len(self.actions) == ACTIONS_PER_PLAN


def _draw(probabilities: Tensor, uniform: Tensor) -> list[int]:
    """A column of each row of probabilities [B, V], by where uniform [B, 1] falls in their sums."""
    sums = probabilities.double().cumsum(-1)
    columns = torch.searchsorted(sums, uniform.double() * sums[:, -1:], right=True)
    last = probabilities.shape[-1] - 1 - probabilities.flip(-1).gt(0).int().argmax(-1, keepdim=True)
    found: list[int] = torch.minimum(columns, last)[:, 0].tolist()  # rounding must not lead behind the last possible
    return found
