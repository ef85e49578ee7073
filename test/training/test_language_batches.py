"""Teacher forcing: what is learned, what is not, and that the package's own generation gives it back."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from opendrivevla_ros.core.plan import ThinkingMode
from opendrivevla_ros.core.policy import ThinkingLimits
from opendrivevla_ros.language.decoder import Decoder
from opendrivevla_ros.language.generation import TrajectoryGenerator, generate_text
from opendrivevla_ros.language.grammar import trajectory_grammar
from opendrivevla_ros.language.model import DrivingLanguageModel, Features, LanguageConfig
from opendrivevla_ros.language.prompt import PromptFields, chat_prompt, question_message, tokenize_prompt, user_message
from opendrivevla_ros.language.small_tokenizer import build_small_tokenizer
from opendrivevla_ros.language.thinking import Thinker
from opendrivevla_ros.language.trajectory_text import format_trajectory
from opendrivevla_ros.policies.opendrivevla.thinking import TEMPLATE, words_before_plan
from opendrivevla_ros.training.answer_losses import POINT_METRES, AnswerLosses, answer_loss, read
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.language_batches import (
    IGNORED,
    LanguageBatch,
    LanguageBatches,
    Saying,
    Turn,
    said_points,
)
from opendrivevla_ros.training.loop import LoopSettings, train
from opendrivevla_ros.training.token_reader import plan_error

SYSTEM_TEXT = "You drive."
WIDTH = 16
FIELDS = PromptFields(
    velocity=(0.0, 8.0),
    yaw_rate=0.0,
    history=np.array([[0.0, -16.0], [0.0, -12.0], [0.0, -8.0], [0.0, -4.0]]),
    measured_acceleration=(0.0, 0.0),
    speed=8.0,
    steering=0.0,
)
DRIVE_ON = format_trajectory([[0.0, 4.0 * step] for step in range(1, 7)])
STOP = format_trajectory([[-0.25, 1.5], [-0.5, 2.25], [-0.5, 2.5], [-0.5, 2.5], [-0.5, 2.5], [-0.5, 2.5]])


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_small_tokenizer()


def tiny_model(tokenizer: PreTrainedTokenizerFast, **options: int) -> DrivingLanguageModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "layers": 2, "heads": 2, "key_value_heads": 1, **options}
    return DrivingLanguageModel(LanguageConfig(vocabulary_size=len(tokenizer), feature_size=WIDTH, **sizes))


def features(seed: int, agents: int = 3) -> Features:
    generator = torch.Generator().manual_seed(seed)
    return Features(*(torch.randn(count, WIDTH, generator=generator) for count in (4, agents, 2)))


def said(user: str, seen: Features, answer: str, before: str = "") -> Turn:
    return Turn(seen, (Saying(user, answer, before=before),))


def turns() -> list[Turn]:
    """The same words three times; what is seen decides between the plans, and a question has an answer of its own."""
    return [
        said(user_message(FIELDS), features(1), DRIVE_ON),
        said(user_message(FIELDS), features(2, agents=5), STOP),
        said(question_message(FIELDS, "What will you do next?"), features(2), "I stop behind the vehicle in front."),
    ]


def batches(model: DrivingLanguageModel, tokenizer: PreTrainedTokenizerFast) -> LanguageBatches:
    return LanguageBatches(model, tokenizer, system_text=SYSTEM_TEXT, end_id=tokenizer.eos_token_id)


def loss_of(model: DrivingLanguageModel, batch: LanguageBatch) -> torch.Tensor:
    return answer_loss(model, batch, read(model, batch)[-1])


class Answering(nn.Module):
    """A model, and the losses of its answers."""

    def __init__(self, model: DrivingLanguageModel, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__()
        self.language = model
        self.answers = AnswerLosses(model.language_config.hidden_size)
        self._batches = LanguageBatches(model, tokenizer, system_text=SYSTEM_TEXT, end_id=int(tokenizer.eos_token_id))

    def forward(self, turns: list[Turn]) -> dict[str, torch.Tensor]:
        return self.answers(self.language, self._batches(turns))


def test_a_batch_holds_inferences_prompt_and_then_the_answer(tokenizer: PreTrainedTokenizerFast):
    model = tiny_model(tokenizer)
    batch = batches(model, tokenizer)(turns())
    for row, turn in enumerate(turns()):
        (saying,) = turn.sayings
        prompt = model.embed_prompt(tokenize_prompt(chat_prompt(SYSTEM_TEXT, saying.user), tokenizer), turn.features)
        torch.testing.assert_close(batch.embeddings[row, : len(prompt)], prompt, rtol=0, atol=0)
        labels = batch.labels[row]
        learned = labels[labels != IGNORED]
        assert tokenizer.decode(learned) == saying.answer + "<|im_end|>"
        end = len(prompt) + len(learned)
        assert (labels != IGNORED).nonzero()[:, 0].tolist() == list(range(len(prompt), end))
        torch.testing.assert_close(batch.embeddings[row, len(prompt) : end], model.model.embed_tokens(learned))
        assert batch.asked[row].tolist() == [row, len(prompt) - 1]
        mine = batch.read.places[:, 0] == row
        digits = model.model.embed_tokens.weight[tokenizer.encode("0123456789", add_special_tokens=False)]
        ends = batch.embeddings[row, batch.read.places[mine, 1]]
        assert (torch.cdist(ends, digits).amin(1) < 1e-4).all(), "a number ends in a digit"
        assert batch.read.values[mine][:2].tolist() == [0.0, 4.0]
        mine = batch.written.places[:, 0] == row
        nexts = tokenizer.decode(labels[batch.written.places[mine, 1] + 1])
        assert nexts == "".join(re.findall(r"-?\d+\.\d+", saying.answer))
    assert batch.has_points.tolist() == [True, True, False]
    assert batch.points[1, 1].tolist() == [-0.5, 2.25]


def test_a_batch_holds_the_proposal_that_stands_beside_the_features(tokenizer: PreTrainedTokenizerFast):
    asking = user_message(replace(FIELDS, tells_proposal=True))
    path = torch.arange(12.0).reshape(6, 2) - 3.0
    proposed, silent = replace(features(1), proposal=path), features(1)
    batch = batches(tiny_model(tokenizer), tokenizer)([said(asking, some, STOP) for some in (proposed, silent)])
    told = [batch.read.values[batch.read.places[:, 0] == row] for row in (0, 1)]
    assert told[0][: len(told[1])].tolist() == told[1].tolist()
    assert told[0][len(told[1]) :].tolist() == path.flatten().tolist()


def test_the_loss_is_that_of_transformers(tokenizer: PreTrainedTokenizerFast):
    model = tiny_model(tokenizer)
    batch = batches(model, tokenizer)(turns())
    lengths = (batch.labels != IGNORED).int().flip(1).argmax(1)  # of the filling on the right
    mask = (torch.arange(batch.labels.shape[1]) < batch.labels.shape[1] - lengths[:, None]).long()
    reference = model(inputs_embeds=batch.embeddings, attention_mask=mask, labels=batch.labels, use_cache=False)
    torch.testing.assert_close(loss_of(model, batch), reference.loss)


def test_turns_of_a_batch_do_not_see_each_other(tokenizer: PreTrainedTokenizerFast):
    model = tiny_model(tokenizer)
    make = batches(model, tokenizer)
    alone = [make([turn]) for turn in turns()]
    tokens = [int((batch.labels != IGNORED).sum()) for batch in alone]
    losses = [loss_of(model, batch) for batch in alone]
    mean = sum(loss * count for loss, count in zip(losses, tokens, strict=True)) / sum(tokens)
    torch.testing.assert_close(loss_of(model, make(turns())), mean)


def test_sayings_of_a_moment_do_not_hear_each_other(tokenizer: PreTrainedTokenizerFast):
    model = tiny_model(tokenizer)
    make, losses = batches(model, tokenizer), AnswerLosses(model.language_config.hidden_size)
    asked = [
        Saying(user_message(FIELDS), DRIVE_ON, before=words_before_plan("A bus brakes.")),
        Saying(question_message(FIELDS, "Is there a bus ahead?"), "Yes."),
        Saying(question_message(FIELDS, "Where will the car at (1.0,20.5) be?"), STOP),
        Saying(question_message(FIELDS, "Is there a bus behind?"), "No, 12 m."),
    ]
    alone = make([Turn(features(1), (saying,)) for saying in asked])
    other = turns()[1]
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        sayings = tuple(asked[number] for number in order)
        together = make([other, Turn(features(1), sayings), other])
        apart = make([other, *(Turn(features(1), (saying,)) for saying in sayings), other])
        for name, loss in losses(model, apart).items():
            if name != "read":  # a number of what is shared is read once
                torch.testing.assert_close(losses(model, together)[name], loss)
        assert together.embeddings.shape[1] < 2 * alone.embeddings.shape[1]
        assert together.points.equal(apart.points)
        assert together.written.values.equal(apart.written.values)
        distinct = [set(map(tuple, batch.read.places.tolist())) for batch in (together, apart)]
        assert len(distinct[0]) == len(together.read.places) < len(distinct[1])


def test_gradients_reach_features_that_carry_them(tokenizer: PreTrainedTokenizerFast):
    model = tiny_model(tokenizer)
    seen = features(1)
    for block in (seen.scene, seen.agents, seen.map_elements):
        block.requires_grad_()
    loss_of(model, batches(model, tokenizer)([said(user_message(FIELDS), seen, STOP)])).backward()
    for block in (seen.scene, seen.agents, seen.map_elements):
        assert block.grad.isfinite().all()
        assert (block.grad != 0).any(1).all()


def test_only_a_trajectory_has_points():
    assert said_points(STOP).tolist()[0] == [-0.25, 1.5]
    assert said_points("I stop at (3.00,4.00).") is None


def test_the_first_thought_is_the_error_of_the_points_where_the_question_ends(tokenizer: PreTrainedTokenizerFast):
    model = tiny_model(tokenizer)
    training = Answering(model, tokenizer)
    nn.init.zeros_(training.answers.thought.points.weight)
    with torch.no_grad():
        training.answers.thought.points.bias.copy_(said_points(STOP).flatten() / POINT_METRES)
    assert training(turns()[1:])["points"].item() == pytest.approx(0.0, abs=1e-6)  # the question's answer has none
    points = torch.stack([said_points(DRIVE_ON), said_points(STOP)])
    off = plan_error(said_points(STOP).expand_as(points), points, torch.ones(2, 6))
    assert training(turns())["points"].item() == pytest.approx(off.item(), rel=1e-5)
    assert training(turns()[2:])["points"].item() == 0.0


def test_an_overfitted_model_says_what_it_was_taught(tokenizer: PreTrainedTokenizerFast, tmp_path: Path):
    model = tiny_model(tokenizer)
    training = Answering(model, tokenizer)
    settings = LoopSettings(steps=250, learning_rate=4e-3, batch_size=3, warmup_steps=20)
    train(training, turns(), list, [{"params": list(model.parameters())}], settings, tmp_path)

    decoder = Decoder(model.eval(), max_length=1024)
    generator = TrajectoryGenerator(decoder, trajectory_grammar(tokenizer))
    heard = []
    for turn in turns():
        (saying,) = turn.sayings
        ids = tokenize_prompt(chat_prompt(SYSTEM_TEXT, saying.user), tokenizer)
        with torch.inference_mode():
            prompt = model.embed_prompt(ids, turn.features)
        if saying.user == user_message(FIELDS):
            heard.append(generator.generate(prompt).text)
        else:
            stop = frozenset({tokenizer.eos_token_id})
            heard.append("".join(generate_text(decoder, tokenizer, prompt, stop_tokens=stop, max_tokens=40)))
    assert heard == [turn.sayings[0].answer for turn in turns()]


def test_what_is_said_before_an_answer_is_learned_and_moves_its_numbers(tokenizer: PreTrainedTokenizerFast):
    model = tiny_model(tokenizer)
    words = words_before_plan("The bus is 12 m ahead.")
    plain, thought = (
        said(user_message(FIELDS), features(1), STOP),
        said(user_message(FIELDS), features(1), STOP, words),
    )
    alone, batch = batches(model, tokenizer)([plain]), batches(model, tokenizer)([thought])
    learned = batch.labels[0][batch.labels[0] != IGNORED]
    assert tokenizer.decode(learned) == words + STOP + "<|im_end|>"
    assert (
        learned.tolist()[-alone.labels.shape[1] + int(alone.asked[0, 1]) + 1 :]
        == alone.labels[0][alone.asked[0, 1] + 1 :].tolist()
    )
    assert batch.asked.tolist() == alone.asked.tolist()
    assert batch.has_points.tolist() == [True]
    assert batch.points.equal(alone.points)
    begun = len(tokenizer.encode(words, add_special_tokens=False))
    assert batch.written.places[:, 1].tolist() == [place + begun for place in alone.written.places[:, 1].tolist()]
    assert batch.written.values.equal(alone.written.values)


def test_a_model_that_was_taught_to_think_thinks_where_it_was_taught_to(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
):
    model = tiny_model(tokenizer)
    thought = "The bus ahead is braking."
    taught = [
        said(user_message(FIELDS), features(1), DRIVE_ON, words_before_plan(None)),
        said(user_message(FIELDS), features(2, agents=5), STOP, words_before_plan(thought)),
    ]
    settings = LoopSettings(steps=250, learning_rate=4e-3, batch_size=2, warmup_steps=20)
    train(Answering(model, tokenizer), taught, list, [{"params": list(model.parameters())}], settings, tmp_path)

    decoder = Decoder(model.eval(), max_length=1024)
    thinker = Thinker(decoder, tokenizer, TEMPLATE, stop_ids=frozenset({int(tokenizer.eos_token_id)}))
    generator = TrajectoryGenerator(decoder, trajectory_grammar(tokenizer))
    ids = tokenize_prompt(chat_prompt(SYSTEM_TEXT, user_message(FIELDS)), tokenizer)
    for turn, mode in zip(taught, (ThinkingMode.FAST, ThinkingMode.SLOW), strict=True):
        with torch.inference_mode():
            prompt = model.embed_prompt(ids, turn.features)
            hidden = decoder.prefill(torch.cat([prompt, decoder.embed(thinker.opening)]))
        hidden, found = thinker.think(hidden, ThinkingMode.AUTO, ThinkingLimits(), room=generator.grammar.longest)
        assert (found.mode, found.written) == (mode, turn.sayings[0].before)
        assert generator.go_on(hidden).text == turn.sayings[0].answer


def test_a_turn_without_an_answer_is_refused(tokenizer: PreTrainedTokenizerFast):
    with pytest.raises(TrainingError, match="no answer to learn for the message"):
        batches(tiny_model(tokenizer), tokenizer)([said(user_message(FIELDS), features(1), "")])


def test_a_turn_that_is_too_long_is_refused_with_its_length(tokenizer: PreTrainedTokenizerFast):
    model = tiny_model(tokenizer, max_positions=64)
    with pytest.raises(TrainingError, match=r"tokens exceed the model's 64 positions; shorten the answer"):
        batches(model, tokenizer)([said(user_message(FIELDS), features(1), DRIVE_ON)])
