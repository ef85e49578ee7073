"""Several answers to one prompt in one sequence, which then has the prompt but once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from opendrivevla_ros.training.autovla.answers import following
from opendrivevla_ros.training.language_batches import seen_positions


@dataclass(frozen=True)
class SharedPrompt:
    """A prompt's embeddings [P, hidden] and rotary positions [3, P], and those [A, hidden] of each answer to it."""

    embeddings: Tensor
    positions: Tensor
    answers: Sequence[Tensor]


@dataclass(frozen=True)
class PackedAnswers:
    """G prompts with their answers, filled up on the right to L positions.

    inputs: of the language model: embeddings [G, L, hidden], rotary positions [3, G, L], and bool [G, 1, L, L], what
    each position (third) sees (fourth): an answer its prompt and itself. starts: where each answer of each prompt
    begins. prompts: where each prompt ends.
    """

    inputs: dict[str, Any]
    starts: Sequence[Sequence[int]]
    prompts: Sequence[int]

    def before(self, row: int, answer: int, place: int) -> tuple[int, int]:
        """Sequence and position of what stands before token `place` of an answer, and so tells it."""
        return row, self.starts[row][answer] + place - 1 if place else self.prompts[row] - 1


def pack(prompts: Sequence[SharedPrompt]) -> PackedAnswers:
    """The prompts, each with its answers behind it."""
    pad = partial(nn.utils.rnn.pad_sequence, batch_first=True)
    lengths = [[len(one.embeddings), *map(len, one.answers)] for one in prompts]
    device = prompts[0].embeddings.device
    # of each position whose it is: 0 the prompt's, 1 the first answer's; the filling is the prompt's
    owners = pad(
        [
            torch.arange(len(some), device=device).repeat_interleave(torch.tensor(some, device=device))
            for some in lengths
        ]
    )
    ends = torch.tensor([some[0] for some in lengths], device=device)
    embeddings = [
        torch.cat([one.embeddings, *(answer.to(one.embeddings) for answer in one.answers)]) for one in prompts
    ]
    positions = [
        torch.cat(
            [
                one.positions,
                *(following(one.positions, len(answer))[:, len(one.embeddings) :] for answer in one.answers),
            ],
            dim=1,
        ).T
        for one in prompts
    ]
    return PackedAnswers(
        inputs={
            "inputs_embeds": pad(embeddings),
            "position_ids": pad(positions).permute(2, 0, 1),
            "attention_mask": seen_positions(owners, (owners > 0) * ends[:, None]),
            "use_cache": False,
        },
        starts=[list(accumulate(some))[:-1] for some in lengths],
        prompts=[some[0] for some in lengths],
    )
