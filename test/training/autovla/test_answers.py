"""Answers in both modes by teacher forcing: what is learned, what is weighed, and that a handful is learned whole."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from policies.autovla.tiny import (
    PROPOSING,
    embed_prompt,
    tiny_codebook,
    tiny_config,
    tiny_model,
    tiny_policy,
    tiny_tokenizer,
)
from training.autovla.drives import THOUGHT, stored
from training.autovla.warm import actions, examples, warm_model

from opendrivevla_ros.core.plan import ThinkingMode
from opendrivevla_ros.language.decoder import Decoder
from opendrivevla_ros.policies.autovla.model import VisionIds
from opendrivevla_ros.policies.autovla.prompt import answer_text
from opendrivevla_ros.training.autovla.answers import REASONING_WEIGHT, AnswerTraining, states
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.language_batches import IGNORED

FAST, SLOW = 0, 6  # of the examples, the first moments of a drive each


def training(weight: float = REASONING_WEIGHT) -> AnswerTraining:
    return AnswerTraining(tiny_model(), tiny_tokenizer(), actions(), reasoning_weight=weight)


def test_answers_are_the_published_templates_and_an_end():
    teacher, tokenizer = training(), tiny_tokenizer()
    for index, thought in ((FAST, None), (SLOW, THOUGHT)):
        example = examples()[index]
        assert example.thought == thought
        said = tokenizer.decode(teacher.answer_ids(example))
        assert said == answer_text(actions().text(example.actions), thought) + tokenizer.eos_token


def test_of_a_way_that_is_known_in_part_only_the_known_actions_are_learned():
    example = examples()[5]
    assert len(example.actions) == 6
    said = tiny_tokenizer().decode(training().answer_ids(example))
    assert said.endswith(actions().text(example.actions))


def test_where_the_plan_goes_is_asked_before_the_answer_and_whatever_it_is():
    torch.manual_seed(0)
    teacher = AnswerTraining(tiny_model(), tiny_tokenizer(), actions(), asks_points=True)
    fast, slow = examples()[FAST], examples()[SLOW]
    with torch.no_grad():
        alone, beside = teacher([fast]), teacher([fast, replace(fast, thought=THOUGHT, actions=slow.actions)])
        elsewhere = teacher([replace(fast, ids=slow.ids)])
    assert set(alone) == {"words", "actions", "points"}
    assert alone["points"].item() > 1.0  # metres; nothing is learned yet
    torch.testing.assert_close(beside["points"], alone["points"])
    assert beside["words"].item() != pytest.approx(alone["words"].item())
    assert elsewhere["points"].item() != pytest.approx(alone["points"].item(), rel=1e-3)


def test_the_sequence_is_what_a_driving_model_has_before_it():
    teacher, pair = training(), [examples()[SLOW], examples()[FAST]]
    batch = teacher.batch(pair)
    with torch.no_grad():
        found = states(teacher.model, batch)
        for row, example in enumerate(pair):
            ids = VisionIds.of(tiny_tokenizer())
            prompt, positions = embed_prompt(teacher.model, list(example.ids), example.videos, ids)
            decoder = Decoder(teacher.model)
            last = decoder.prefill(prompt, positions=positions)
            torch.testing.assert_close(found[row, len(prompt) - 1], last[0], rtol=1e-4, atol=1e-4)
            answer = teacher.answer_ids(example)
            torch.testing.assert_close(
                found[row, len(prompt) + len(answer) - 1], decoder.step([answer])[0], rtol=1e-4, atol=1e-4
            )
            labels = batch.labels[row]
            assert labels[labels != IGNORED].tolist() == answer


def test_the_loss_is_words_and_actions_weighed_where_there_is_a_thought():
    fast, slow = examples()[FAST], examples()[SLOW]
    alone = [training(1.0)([example]) for example in (fast, slow)]
    both = training(40.0)([fast, slow])
    for name in ("words", "actions"):
        expected = (alone[0][name] + 40.0 * alone[1][name]) / 2
        torch.testing.assert_close(both[name], expected, rtol=1e-4, atol=1e-4)
    teacher = training(1.0)
    batch = teacher.batch([fast])
    wanted = batch.labels[0, 1:]
    logits = teacher.model.lm_head(states(teacher.model, batch)[0, :-1])
    learned = wanted != IGNORED
    acts = (wanted >= actions().first_id) & (wanted < actions().stop_id)
    assert acts.sum() == 10
    torch.testing.assert_close(alone[0]["words"], F.cross_entropy(logits[learned], wanted[learned]))
    torch.testing.assert_close(alone[0]["actions"], F.cross_entropy(logits[acts], wanted[acts]))


def test_gradients_reach_the_eyes_unless_they_are_frozen():
    teacher = training()
    teacher([examples()[FAST]])["words"].backward()
    assert all(weight.grad is not None for weight in teacher.model.model.visual.parameters())
    teacher = training()
    teacher.model.model.visual.requires_grad_(False)
    teacher([examples()[FAST]])["words"].backward()
    assert teacher.model.lm_head.weight.grad is not None


def test_what_is_proposed_weighs_the_actions_alone_as_it_does_at_the_wheel():
    pair = [examples()[SLOW], examples()[FAST]]
    model = tiny_model(**PROPOSING)
    teacher = AnswerTraining(model, tiny_tokenizer(), actions())
    with torch.no_grad():
        weighed = teacher.told(pair)
        model.autovla_config = tiny_config(sight_width=PROPOSING["sight_width"])
        plain = teacher.told(pair)
        model.autovla_config = tiny_config(**PROPOSING)
        seen = model.seen([example.videos for example in pair])
        priors = model.priors(tiny_codebook(), seen, [example.sample.sample.observation for example in pair])
    added = weighed.logits - plain.logits
    first, stop = actions().first_id, actions().stop_id
    is_action = (weighed.tokens >= first) & (weighed.tokens < stop)
    assert not added[~is_action].any()
    assert not added[:, :first].any()
    assert priors is not None
    wanted = [
        prior.log_shares(example.actions[:step])
        for prior, example in zip(priors, pair, strict=True)
        for step in range(10)
    ]
    torch.testing.assert_close(
        added[is_action, first:stop], torch.tensor(np.array(wanted)).float(), atol=1e-3, rtol=1e-3
    )
    assert any(shares.any() for shares in wanted)


def test_a_handful_of_moments_is_learned_and_driven_in_its_own_modes():
    policy = tiny_policy(warm_model(130))
    policy.set_thinking_mode(ThinkingMode.AUTO)
    for index, speed, mode in ((FAST, 4.0, ThinkingMode.FAST), (SLOW, 8.0, ThinkingMode.SLOW)):
        policy.reset()
        plan = policy.plan(stored(0, speed=speed).sample.observation)
        example = examples()[index]
        assert plan.reasoning.actual_mode is mode
        assert plan.raw_text == answer_text(actions().text(example.actions), example.thought)
        assert plan.trajectory.xy[-1, 0] == pytest.approx(
            tiny_codebook().decode(list(example.actions))[-1, 0], abs=1e-6
        )


def test_a_thought_too_long_for_the_model_is_refused():
    model = tiny_model(language=replace(tiny_config().language, max_positions=260))
    teacher = AnswerTraining(model, tiny_tokenizer(), actions())
    with pytest.raises(TrainingError, match=r"scene1 0 has \d+ tokens with its answer, but the model 260 positions"):
        teacher([replace(examples()[SLOW], thought=THOUGHT * 5)])


def test_a_weight_of_nothing_is_refused():
    with pytest.raises(TrainingError, match="answers with a thought must be above 0, not 0"):
        training(0.0)
