"""How an AutoVLA starts to which actions mean nothing: with tokens that are alike where their motions are."""

import math

import torch

from opendrivevla_ros.language.action_codebook import ActionCodebook
from opendrivevla_ros.language.action_tokens import ActionTokens
from opendrivevla_ros.policies.autovla.model import AutoVlaModel

FINEST, COARSEST = 0.2, 10.0  # metres between motions that begin to differ


@torch.no_grad()
def start_from_motions(model: AutoVlaModel, actions: ActionTokens) -> None:
    """Sets the embeddings of the action tokens by where each ends; for a model that has not learned any of them.

    Left to chance, two thousand words mean nothing until each of them was met, and what was learned of one tells
    nothing of the one beside it. The numbers are random Fourier features of the four corners (Rahimi and Recht, 2007),
    in as many lengths from FINEST to COARSEST: the product of two embeddings falls with the distance of their motions.

    After 45 steps of 8 moments, the loss of actions was 7.7 with it and 9.1 without (small, tower frozen, the same
    moments).
    """
    table = model.model.language_model.embed_tokens.weight
    table[actions.first_id : actions.stop_id] = (
        math.sqrt(2) * table.std() * _features(actions.codebook, table.shape[1])
    )


def _features(codebook: ActionCodebook, count: int) -> torch.Tensor:
    """[N, count] of each token, -1 to 1."""
    corners = torch.from_numpy(codebook.contours).flatten(1).float()
    random = torch.Generator().manual_seed(0)
    lengths = torch.logspace(math.log10(FINEST), math.log10(COARSEST), count)
    directions = torch.randn((corners.shape[1], count), generator=random) / lengths / math.sqrt(corners.shape[1] / 2)
    return torch.cos(corners @ directions + 2 * math.pi * torch.rand(count, generator=random))
