"""Action tokens from a model: exactly as many as a plan has, and nothing else can be written.

Of the vocabulary only the actions get logits, so that no token has to be put right afterwards.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.language.action_prior import ActionPrior
from opendrivevla_ros.language.action_tokens import ActionTokens
from opendrivevla_ros.language.deadline import Deadline
from opendrivevla_ros.language.decoder import Decoder
from opendrivevla_ros.language.generation import decide, log_probabilities
from opendrivevla_ros.language.quantisation import linear

NO_DEADLINE = Deadline()


@dataclass(frozen=True)
class ActionGeneration:
    """actions: [S, N] ids of the codebook; the first row is the greedy one, the others are sampled.

    log_probabilities: [N] of the greedy row's actions among all actions, before temperature. seconds: all steps.
    """

    actions: NDArray
    log_probabilities: Array
    seconds: float


class ActionWriter:
    """Writes `count` actions with a decoder that stands at the beginning of an answer."""

    def __init__(self, decoder: Decoder, actions: ActionTokens, count: int) -> None:
        self._decoder, self._actions, self.count = decoder, actions, count
        self._head = decoder.head[actions.first_id : actions.stop_id]  # [A, hidden]

    @torch.inference_mode()
    def write(
        self,
        hidden: Tensor,
        *,
        samples: int = 0,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        deadline: Deadline = NO_DEADLINE,
        prior: ActionPrior | None = None,
        on_token: Callable[[int], None] | None = None,
    ) -> ActionGeneration:
        """The greedy actions after row 0's text, and `samples` more at `temperature`, in one batch.

        hidden: [1, hidden] at the last token of that text. prior: of the actions, multiplies their
        probabilities. on_token: gets the greedy row's actions as they come. Raises DeadlineExceeded.
        """
        if temperature <= 0:
            raise ValueError(f"the sampling temperature must be above 0, not {temperature}")
        started = time.perf_counter()
        rows = 1 + samples
        if rows > 1:
            self._decoder.fork(rows)
            hidden = hidden.expand(rows, -1)
        history: list[tuple[Tensor, list[int]]] = []
        tokens: list[list[int]] = [[] for _ in range(rows)]
        for step in range(self.count):
            deadline.check()
            if step:
                hidden = self._decoder.step([row[-1:] for row in tokens], check=deadline.check)
            logits = linear(hidden, self._head).float()
            if prior is not None:
                written = [[token - self._actions.first_id for token in row] for row in tokens]
                shares = np.stack([prior.log_shares(row) for row in written])
                logits = logits + torch.from_numpy(shares).to(logits)
            decided = decide(logits, temperature, generator)
            history.append((logits, decided))
            for row, action in zip(tokens, decided, strict=True):
                row.append(self._actions.first_id + action)
            if on_token:
                on_token(decided[0])
        return ActionGeneration(
            actions=self._actions.actions([token for row in tokens for token in row]).reshape(rows, self.count),
            log_probabilities=log_probabilities(history)[0],
            seconds=time.perf_counter() - started,
        )
