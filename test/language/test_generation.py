"""Plans under the grammar, free text, deadlines."""

import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from opendrivevla_ros.language.deadline import Deadline, DeadlineExceeded
from opendrivevla_ros.language.decoder import Decoder
from opendrivevla_ros.language.generation import TrajectoryGenerator, generate_text, generate_tokens
from opendrivevla_ros.language.grammar import TokenGrammar, trajectory_grammar
from opendrivevla_ros.language.model import DrivingLanguageModel, Features, LanguageConfig
from opendrivevla_ros.language.prompt import text_prefix
from opendrivevla_ros.language.trajectory_text import parse_trajectory

pytestmark = pytest.mark.filterwarnings("ignore:Passing `repetition_penalty`")


@pytest.fixture
def embeddings(small_model: DrivingLanguageModel, prompt_ids: list[int], features: Features) -> torch.Tensor:
    with torch.inference_mode():
        return small_model.embed_prompt(prompt_ids, features)


@pytest.fixture
def small_generator(small_model: DrivingLanguageModel, small_grammar: TokenGrammar) -> TrajectoryGenerator:
    return TrajectoryGenerator(Decoder(small_model, max_length=1024, rows=5), small_grammar)


@pytest.mark.parametrize("penalty", [1.0, 1.1, 1.5])
def test_greedy_plans_equal_transformers_token_for_token(
    small_model: DrivingLanguageModel,
    small_grammar: TokenGrammar,
    small_generator: TrajectoryGenerator,
    embeddings: torch.Tensor,
    prompt_ids: list[int],
    transformers_plan: Callable[..., list[int]],
    penalty: float,
) -> None:
    result = small_generator.generate(embeddings, prefix=text_prefix(prompt_ids), repetition_penalty=penalty)
    assert list(result.tokens[0]) == transformers_plan(small_model, small_grammar, embeddings, penalty)


def test_greedy_plans_equal_transformers_where_tokens_merge(
    random_model: Callable[..., DrivingLanguageModel],
    any_tokenizer: PreTrainedTokenizerFast,
    transformers_plan: Callable[..., list[int]],
) -> None:
    config = LanguageConfig(
        vocabulary_size=len(any_tokenizer), hidden_size=64, intermediate_size=96, layers=2, heads=4, key_value_heads=1
    )
    grammar = trajectory_grammar(any_tokenizer)
    for seed in range(3):
        model = random_model(config, seed=seed)
        embeddings = torch.randn(20, 64, generator=torch.Generator().manual_seed(seed))
        result = TrajectoryGenerator(Decoder(model, max_length=256), grammar).generate(embeddings)
        assert list(result.tokens[0]) == transformers_plan(model, grammar, embeddings)


def test_greedy_plans_equal_transformers_on_the_published_size(
    random_model: Callable[..., DrivingLanguageModel],
    merging_tokenizer: PreTrainedTokenizerFast,
    transformers_plan: Callable[..., list[int]],
) -> None:
    model, grammar = random_model(LanguageConfig()), trajectory_grammar(merging_tokenizer)
    embeddings = torch.randn(64, 896, generator=torch.Generator().manual_seed(0))
    result = TrajectoryGenerator(Decoder(model, max_length=256), grammar).generate(embeddings)
    assert list(result.tokens[0]) == transformers_plan(model, grammar, embeddings)


def test_median_digits_are_the_medians_of_their_distributions(
    small_model: DrivingLanguageModel, small_grammar: TokenGrammar, embeddings: torch.Tensor
) -> None:
    generator = TrajectoryGenerator(Decoder(small_model, max_length=1024), small_grammar, median_digits=True)
    tokens = generator.generate(embeddings).tokens[0]
    with torch.inference_mode():
        whole = torch.cat([embeddings, small_model.model.embed_tokens(torch.tensor(tokens))])
        logits = small_model(inputs_embeds=whole[None]).logits[0, len(embeddings) - 1 :]
    state, medians = 0, 0
    for token, scores in zip(tokens, logits, strict=False):
        options = sorted(small_grammar.choices[state], key=small_grammar.texts.__getitem__)
        if [small_grammar.texts[option] for option in options] == list("0123456789"):
            below = float(scores[options].softmax(0)[: options.index(token)].sum())
            above = float(scores[options].softmax(0)[options.index(token) + 1 :].sum())
            assert max(below, above) <= 0.5 + 1e-3
            medians += 1
        else:
            assert token == max(options, key=lambda option: float(scores[option]))
        state = small_grammar.advance(state, token)
    assert medians == 24, "two decimals of twelve numbers"


def test_forced_tokens_cost_no_forward_of_their_own(
    small_generator: TrajectoryGenerator, embeddings: torch.Tensor
) -> None:
    counts = small_generator.generate(embeddings).token_counts
    assert counts["forwards"] == counts["generated"] - 1
    assert counts["forced"] > 20
    assert counts["prompt"] == len(embeddings)


def test_a_plan_after_what_the_decoder_holds_is_the_plan_after_the_same_prompt(
    small_model: DrivingLanguageModel, small_grammar: TokenGrammar, embeddings: torch.Tensor
) -> None:
    decoder = Decoder(small_model, max_length=1024, rows=3)
    generator = TrajectoryGenerator(decoder, small_grammar)
    expected = generator.generate(embeddings)
    hidden = decoder.prefill(embeddings[:-3])
    for last in (embeddings[-3:-1], embeddings[-1:]):  # a thought is read piece by piece
        ids = [int((small_model.model.embed_tokens.weight - row).abs().sum(1).argmin()) for row in last]
        hidden = decoder.step([ids])
    found = generator.go_on(hidden, samples=2, generator=torch.Generator().manual_seed(0))
    assert found.tokens[0] == expected.tokens[0]
    assert found.token_counts == expected.token_counts
    np.testing.assert_allclose(found.log_probabilities[0], expected.log_probabilities[0], atol=1e-4)
    assert found.waypoints.shape == (3, 6, 2)
    with pytest.raises(ValueError, match="temperature must be above 0"):
        generator.go_on(hidden, temperature=0.0)
    with pytest.raises(DeadlineExceeded):
        generator.go_on(hidden, deadline=Deadline(time.monotonic_ns()))


def test_the_text_is_streamed_in_pieces_and_parses_to_the_waypoints(
    small_generator: TrajectoryGenerator, embeddings: torch.Tensor
) -> None:
    pieces: list[str] = []
    result = small_generator.generate(embeddings, on_text=pieces.append)
    assert "".join(pieces) == result.text
    assert len(pieces) == result.token_counts["generated"] + 1
    assert np.array_equal(result.waypoints, parse_trajectory(result.text)[None])


def test_log_probabilities_are_those_of_the_decisions_among_what_was_allowed(
    small_generator: TrajectoryGenerator,
    small_model: DrivingLanguageModel,
    small_grammar: TokenGrammar,
    embeddings: torch.Tensor,
) -> None:
    result = small_generator.generate(embeddings)
    with torch.inference_mode():
        whole = torch.cat([embeddings, small_model.model.embed_tokens(torch.tensor(result.tokens[0]))])
        logits = small_model(inputs_embeds=whole[None]).logits[0, len(embeddings) - 1 :]
    expected, state = [], 0
    for token, scores in zip(result.tokens[0], logits, strict=False):
        allowed = list(small_grammar.choices[state])
        if len(allowed) > 1:
            expected.append(float(scores[allowed].log_softmax(0)[allowed.index(token)]))
        state = small_grammar.advance(state, token)
    np.testing.assert_allclose(result.log_probabilities[0], expected, atol=1e-3)


def test_samples_come_with_the_greedy_plan_first_and_repeat_with_their_seed(
    small_generator: TrajectoryGenerator, embeddings: torch.Tensor
) -> None:
    def sampled(seed: int) -> tuple[str, ...]:
        generator = torch.Generator().manual_seed(seed)
        return small_generator.generate(embeddings, samples=4, temperature=2.0, generator=generator).texts

    texts = sampled(0)
    assert len(texts) == 5
    assert texts[0] == small_generator.generate(embeddings).text
    assert len(set(texts)) > 1
    assert sampled(0) == texts
    assert sampled(1) != texts


def test_samples_at_almost_no_temperature_are_the_greedy_plan(
    small_generator: TrajectoryGenerator, embeddings: torch.Tensor
) -> None:
    result = small_generator.generate(embeddings, samples=2, temperature=1e-4)
    assert set(result.texts) == {result.text}
    assert result.waypoints.shape == (3, 6, 2)


def test_values_stay_below_the_limit_of_the_grammar(
    small_model: DrivingLanguageModel, small_tokenizer: PreTrainedTokenizerFast, embeddings: torch.Tensor
) -> None:
    generator = TrajectoryGenerator(
        Decoder(small_model, max_length=1024, rows=5), trajectory_grammar(small_tokenizer, limit=4)
    )
    result = generator.generate(embeddings, samples=4, temperature=5.0, generator=torch.Generator().manual_seed(0))
    assert np.abs(result.waypoints).max() < 4


def test_a_deadline_already_past_stops_before_the_first_forward(
    small_generator: TrajectoryGenerator, embeddings: torch.Tensor
) -> None:
    pieces: list[str] = []
    with pytest.raises(DeadlineExceeded, match="the deadline passed"):
        small_generator.generate(embeddings, deadline=Deadline(time.monotonic_ns()), on_text=pieces.append)
    assert pieces == []


def test_a_deadline_that_passes_on_the_way_stops_there_and_harms_no_later_plan(
    small_generator: TrajectoryGenerator, embeddings: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, pieces = small_generator.generate(embeddings), []
    clock = iter(range(10_000))
    with monkeypatch.context() as patch:
        patch.setattr("opendrivevla_ros.language.deadline.time.monotonic_ns", lambda: next(clock))
        with pytest.raises(DeadlineExceeded):
            small_generator.generate(embeddings, deadline=Deadline(100), on_text=pieces.append)
    assert 1 < len(pieces) < whole.token_counts["generated"]
    assert small_generator.generate(embeddings).texts == whole.texts


def test_a_prompt_that_leaves_no_room_for_a_plan_is_refused(
    small_model: DrivingLanguageModel, small_grammar: TokenGrammar
) -> None:
    generator = TrajectoryGenerator(Decoder(small_model, max_length=64), small_grammar)
    with pytest.raises(ValueError, match="the decoder has 64"):
        generator.generate(torch.zeros(50, 128))


def test_a_temperature_of_zero_is_refused(small_generator: TrajectoryGenerator, embeddings: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="above 0"):
        small_generator.generate(embeddings, samples=1, temperature=0.0)


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_free_text_equals_transformers(
    small_model: DrivingLanguageModel, embeddings: torch.Tensor, penalty: float
) -> None:
    with torch.inference_mode():
        expected = small_model.generate(
            inputs_embeds=embeddings[None],
            attention_mask=torch.ones(1, len(embeddings), dtype=torch.long),
            max_new_tokens=40,
            do_sample=False,
            repetition_penalty=penalty,
            pad_token_id=0,
        )[0].tolist()
    decoder = Decoder(small_model, max_length=1024)
    found = generate_tokens(decoder, embeddings, stop_tokens=frozenset(), max_tokens=40, repetition_penalty=penalty)
    assert list(found) == expected


def stubborn_model(model: DrivingLanguageModel, token: int) -> DrivingLanguageModel:
    """Says `token` whatever it is asked."""
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight[:] = 0.01
        model.model.embed_tokens.weight[token] = 1.0
    return model


def answer(model: DrivingLanguageModel, tokenizer: PreTrainedTokenizerFast, **options) -> list[str]:
    decoder = Decoder(model, max_length=64)
    embeddings = torch.ones(10, 128)
    stops = frozenset({tokenizer.eos_token_id})
    return list(generate_text(decoder, tokenizer, embeddings, stop_tokens=stops, **options))


def test_a_model_that_ends_at_once_answers_nothing(
    random_model: Callable[..., DrivingLanguageModel],
    small_config: LanguageConfig,
    small_tokenizer: PreTrainedTokenizerFast,
) -> None:
    model = stubborn_model(random_model(small_config), small_tokenizer.eos_token_id)
    assert answer(model, small_tokenizer) == []


def test_a_model_that_ends_at_once_still_plans(
    random_model: Callable[..., DrivingLanguageModel],
    small_config: LanguageConfig,
    small_tokenizer: PreTrainedTokenizerFast,
    small_grammar: TokenGrammar,
) -> None:
    model = stubborn_model(random_model(small_config), small_tokenizer.eos_token_id)
    result = TrajectoryGenerator(Decoder(model, max_length=256), small_grammar).generate(torch.ones(10, 128))
    assert result.waypoints.shape == (1, 6, 2)


def test_an_answer_ends_with_its_limit_or_with_the_room_and_comes_in_whole_characters(
    random_model: Callable[..., DrivingLanguageModel],
    small_config: LanguageConfig,
    small_tokenizer: PreTrainedTokenizerFast,
) -> None:
    word = small_tokenizer.encode(" car", add_special_tokens=False)
    model = stubborn_model(random_model(small_config), word[0])
    assert "".join(answer(model, small_tokenizer, max_tokens=7)).strip() == " ".join(["car"] * 7)
    assert "".join(answer(model, small_tokenizer)).count("car") == 64 - 10 + 1
    half_a_character = small_tokenizer.encode("é", add_special_tokens=False)[0]
    pieces = answer(stubborn_model(model, half_a_character), small_tokenizer, max_tokens=5)
    assert "é" not in "".join(pieces)


def test_an_answer_stops_at_its_deadline(
    small_model: DrivingLanguageModel, small_tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(DeadlineExceeded):
        answer(small_model, small_tokenizer, deadline=Deadline(time.monotonic_ns()))
