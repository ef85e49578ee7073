"""Action tokens at the start: alike where their motions are, as large as words, and words as they were."""

import numpy as np
import torch
import torch.nn.functional as F
from policies.autovla.tiny import tiny_codebook, tiny_model
from training.autovla.warm import actions

from opendrivevla_ros.training.autovla.initialisation import start_from_motions

BANDS = ((1e-6, 0.15), (0.15, 0.5), (0.5, 1.5), (1.5, 4.0))  # metres of the corners


def test_tokens_are_the_more_alike_the_nearer_their_motions_end_and_words_stay():
    model, tokens, codebook = tiny_model(), actions(), tiny_codebook()
    table = model.model.language_model.embed_tokens.weight
    before = table.detach().clone()
    start_from_motions(model, tokens)
    own = table.detach()[tokens.first_id : tokens.stop_id]
    torch.testing.assert_close(table.detach()[: tokens.first_id], before[: tokens.first_id])
    assert 0.5 < float(own.std() / before.std()) < 2.0
    assert len(own.unique(dim=0)) == len(codebook)
    alike = F.normalize(own, dim=1) @ F.normalize(own, dim=1).T
    apart = np.linalg.norm(codebook.contours[:, None] - codebook.contours, axis=-1).mean(-1)
    bands = [float(alike[torch.from_numpy((low <= apart) & (apart < high))].mean()) for low, high in BANDS]
    assert bands == sorted(bands, reverse=True)
    assert bands[0] > 0.9 > bands[1]
    assert bands[-1] < 0.65
