"""Answers drawn from a model: whole, in their templates, and with the probabilities that training gives them."""

from collections import Counter

import numpy as np
import pytest
import torch
from policies.autovla.tiny import embed_prompt, tiny_codebook, tiny_model, tiny_tokenizer
from training.autovla.warm import actions, examples, undecided_model

from opendrivevla_ros.language.action_prior import ActionPrior
from opendrivevla_ros.policies.autovla.model import AutoVlaModel, VisionIds
from opendrivevla_ros.policies.autovla.prompt import TEMPLATE, answer_text
from opendrivevla_ros.training.autovla.answers import following
from opendrivevla_ros.training.autovla.rollouts import Decision, Rollout, Rollouts
from opendrivevla_ros.training.errors import TrainingError

ROWS = 24


def drawn(model: AutoVlaModel, *, seed: int = 0, most_thought: int = 200, count: int = ROWS) -> tuple[Rollout, ...]:
    rollouts = Rollouts(model, tiny_tokenizer(), actions(), rows=ROWS, most_thought=most_thought)
    return rollouts.draw(*prompt(model), count, torch.Generator().manual_seed(seed))


def prompt(model: AutoVlaModel) -> tuple[torch.Tensor, torch.Tensor]:
    example = examples()[6]
    with torch.no_grad():
        return embed_prompt(model, list(example.ids), example.videos, VisionIds.of(tiny_tokenizer()))


@pytest.fixture(scope="module")
def answers() -> tuple[Rollout, ...]:
    return drawn(undecided_model())


def test_each_answer_is_whole_and_of_one_of_the_two_forms(answers: tuple[Rollout, ...]):
    assert len(answers) == ROWS
    assert 0 < sum(answer.slow for answer in answers) < ROWS
    for answer in answers:
        assert answer.actions.shape == (10,)
        said = actions().text(answer.actions.tolist())
        if not answer.slow:
            assert answer.text == answer_text(said)
        else:
            assert answer.text.startswith(TEMPLATE.slow)
            assert answer.text.endswith(TEMPLATE.answer + said + "\n</answer>")
            assert answer.text.count(TEMPLATE.end) == 1


def test_only_what_a_model_decides_is_drawn(answers: tuple[Rollout, ...]):
    for answer in answers:
        counts = Counter(answer.kinds)
        assert (counts[Decision.MODE], counts[Decision.ACTION]) == (1, 10)
        assert (counts[Decision.WORD] > 0) == answer.slow
        assert len(answer.places) == len(answer.kinds) == counts.total()
        is_action = [actions().first_id <= one < actions().stop_id for one in answer.ids]
        marked = [place for place, kind in zip(answer.places, answer.kinds, strict=True) if kind is Decision.ACTION]
        assert [place for place, action in enumerate(is_action) if action] == marked


def test_a_thought_ends_where_its_tokens_are_used_up():
    for answer in drawn(tiny_model(seed=3), most_thought=5):
        assert answer.kinds.count(Decision.WORD) == (5 if answer.slow else 0)
        assert answer.text.count(TEMPLATE.answer) == 1


def test_the_same_seed_draws_the_same_and_another_does_not():
    model = undecided_model()
    first, again, other = (drawn(model, seed=seed, count=4) for seed in (1, 1, 2))
    assert [answer.ids for answer in first] == [answer.ids for answer in again]
    assert [answer.ids for answer in first] != [answer.ids for answer in other]


def test_what_is_proposed_is_what_most_answers_do():
    path = np.outer(np.arange(1, 7), [1.5, 0.0])
    prior = ActionPrior(tiny_codebook(), path, np.full((6, 2), 0.05))
    model = undecided_model()
    rollouts = Rollouts(model, tiny_tokenizer(), actions(), rows=ROWS, most_thought=20)
    for told, least, most in ((prior, 0.8, 1.0), (None, 0.0, 0.2)):
        answers = rollouts.draw(*prompt(model), ROWS, torch.Generator().manual_seed(0), told)
        reached = tiny_codebook().decode(np.stack([answer.actions for answer in answers]))[:, :6, :2]
        near = np.linalg.norm(reached - path, axis=-1).max(-1) < 0.7
        assert least <= near.mean() <= most


def test_what_is_known_of_actions_is_told_of_nothing_else():
    model = undecided_model()
    rollouts = Rollouts(model, tiny_tokenizer(), actions(), rows=ROWS, most_thought=20)
    prior = ActionPrior(tiny_codebook(), np.outer(np.arange(1, 7), [1.5, 0.0]), np.full((6, 2), 0.05))
    taken = [actions().first_id + 7]
    known = rollouts.known([Decision.MODE, Decision.WORD, Decision.ACTION], [[], [], taken], [prior] * 3)
    assert torch.equal(known[:2], rollouts.barrier[:2])
    told = known[2, actions().first_id : actions().stop_id]
    np.testing.assert_allclose(told, prior.log_shares([7]), rtol=1e-5)
    assert torch.isneginf(known[2, : actions().first_id]).all()


def test_modes_are_drawn_as_often_as_the_model_would_choose_them():
    model = undecided_model()
    rollouts = Rollouts(model, tiny_tokenizer(), actions(), rows=128, most_thought=1)
    embeddings, positions = prompt(model)
    answers = rollouts.draw(embeddings, positions, 128, torch.Generator().manual_seed(0))
    place = answers[0].places[0]
    ids = torch.tensor(answers[0].ids[:place])
    with torch.no_grad():
        spoken = model.model.language_model.embed_tokens(ids)
        hidden = model.model.language_model(
            inputs_embeds=torch.cat([embeddings, spoken])[None],
            position_ids=following(positions, len(ids))[:, None],
            use_cache=False,
        ).last_hidden_state[0, -1]
        logits = model.lm_head(hidden) + rollouts.barrier[Decision.MODE]
    chances = logits.softmax(-1)
    slow_id = next(answer.ids[place] for answer in answers if answer.slow)
    assert (chances > 0).sum() == 2
    share = sum(answer.slow for answer in answers) / 128
    assert share == pytest.approx(float(chances[slow_id]), abs=0.12)


def test_a_prompt_without_room_for_a_thought_is_refused():
    model = tiny_model()
    rollouts = Rollouts(model, tiny_tokenizer(), actions(), rows=2, most_thought=10)
    embeddings, positions = prompt(model)
    longer = embeddings.repeat(20, 1)[:1580]
    with pytest.raises(TrainingError, match=r"a prompt of 1580 tokens leaves no room for a thought among the 1584"):
        rollouts.draw(longer, positions, 2, torch.Generator())


def test_no_answers_or_no_words_cannot_be_drawn():
    for rows, most in ((0, 10), (2, 0)):
        with pytest.raises(TrainingError, match="give 1 or more"):
            Rollouts(tiny_model(), tiny_tokenizer(), actions(), rows=rows, most_thought=most)
