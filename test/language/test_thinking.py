"""Fast and slow thinking on a tiny model: who decides, what closes a thought, and what streams."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from policies.autovla.tiny import ticking, tiny_tokenizer
from transformers import Qwen2Config, Qwen2ForCausalLM

from opendrivevla_ros.core.plan import Reasoning, ThinkingMode
from opendrivevla_ros.core.policy import ThinkingLimits
from opendrivevla_ros.language.deadline import Deadline, DeadlineExceeded
from opendrivevla_ros.language.decoder import Decoder
from opendrivevla_ros.language.thinking import NO_DEADLINE, Thinker, ThinkingTemplate, Thought, ThoughtEnd
from opendrivevla_ros.policies.autovla.prompt import TEMPLATE

ENDING = TEMPLATE.end + TEMPLATE.answer
STOP = int(tiny_tokenizer().eos_token_id)


ENDLESS = " road" * 24
THOUGHTS = {  # what the model has learned to say after each prompt, from the slow beginning on
    "closed": "The bus stops.\n" + ENDING,
    "closed without a newline": "The bus stops." + ENDING,
    "ended": "The bus stops.<|im_end|>",
    "endless": ENDLESS,
    "angled": "a < b\n</thing>\n\n" + ENDING,
    "foreign": "Straße frei 日本\n" + ENDING,
}


def encoded(text: str) -> list[int]:
    return tiny_tokenizer().encode(text, add_special_tokens=False)


def prompt_of(name: str) -> list[int]:
    """A word of its own for each thought, and for a prompt after which both beginnings are as good."""
    return [tiny_tokenizer().convert_tokens_to_ids(f"<action_{[*THOUGHTS, 'open'].index(name)}>")] * 2


@pytest.fixture(scope="session")
def model() -> Qwen2ForCausalLM:
    """A tiny model that knows THOUGHTS by heart: a random one ends its thoughts nobody knows where."""
    texts = [(name, TEMPLATE.slow + thought) for name, thought in THOUGHTS.items()]
    texts += [("open", TEMPLATE.slow), ("open", TEMPLATE.fast)]
    rows = [[*prompt_of(name), *encoded(text)] for name, text in texts]
    length = max(len(row) for row in rows)
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    labels = torch.tensor([[-100, -100, *row[2:], *[-100] * (length - len(row))] for row in rows])
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tiny_tokenizer()),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
        max_position_embeddings=512,
        tie_word_embeddings=False,
    )
    learner = Qwen2ForCausalLM(config)
    optimiser = torch.optim.AdamW(learner.parameters(), lr=5e-3)
    for _ in range(150):
        optimiser.zero_grad()
        learner(input_ids=ids, labels=labels).loss.backward()
        optimiser.step()
    return learner.eval()


@dataclass(frozen=True)
class Told:
    """A thought, its pieces as they streamed, and the tokens in the decoder's memory after the prompt."""

    thought: Thought
    pieces: list[str]
    positions: int


@pytest.fixture(scope="session")
def think(model: Qwen2ForCausalLM) -> Callable[..., Told]:
    def think(
        name: str,
        mode: ThinkingMode = ThinkingMode.SLOW,
        *,
        clock: Callable[[], int] = lambda: 0,
        deadline: Deadline = NO_DEADLINE,
        max_length: int = 256,
        room: int = 0,
        **limits: float,
    ) -> Told:
        told: list[Reasoning] = []
        decoder = Decoder(model, max_length=max_length)
        thinker = Thinker(decoder, tiny_tokenizer(), TEMPLATE, stop_ids=frozenset([STOP]), clock=clock)
        prompt = [*prompt_of(name), *thinker.opening]
        hidden = decoder.prefill(decoder.embedding[prompt])
        _, thought = thinker.think(
            hidden, mode, ThinkingLimits(**limits), room=room, deadline=deadline, on_thought=told.append
        )
        texts = ["", *(reasoning.text for reasoning in told)]
        assert all(after.startswith(before) for before, after in pairwise(texts))
        for reasoning in told:
            assert (reasoning.requested_mode, reasoning.actual_mode) == (mode, ThinkingMode.SLOW)
            assert reasoning.slow_probability == thought.slow_probability
        pieces = [after.removeprefix(before) for before, after in pairwise(texts)]
        return Told(thought, pieces, decoder.lengths[0])

    return think


# ------------------------------------------------------------------ who decides


@pytest.mark.parametrize(
    ("mode", "threshold", "actual"),
    [
        (ThinkingMode.FAST, 0.0, ThinkingMode.FAST),
        (ThinkingMode.SLOW, 1.0, ThinkingMode.SLOW),
        (ThinkingMode.AUTO, 0.0, ThinkingMode.SLOW),
        (ThinkingMode.AUTO, 1.0, ThinkingMode.FAST),
    ],
)
def test_a_mode_is_forced_or_left_to_the_threshold(think, mode, threshold: float, actual: ThinkingMode) -> None:
    thought = think("open", mode, slow_threshold=threshold, max_tokens=2).thought
    assert 0.3 < thought.slow_probability < 0.7  # it has learned both
    assert thought.mode is actual


def test_a_threshold_just_below_the_models_own_probability_thinks_and_just_above_does_not(think) -> None:
    probability = think("open").thought.slow_probability
    for threshold, actual in ((probability, ThinkingMode.SLOW), (probability + 1e-4, ThinkingMode.FAST)):
        thought = think("open", ThinkingMode.AUTO, slow_threshold=threshold, max_tokens=2).thought
        assert thought.slow_probability == probability
        assert thought.mode is actual


def test_at_its_default_the_model_decides_as_it_has_learned(think) -> None:
    assert think("closed", ThinkingMode.AUTO).thought.mode is ThinkingMode.SLOW
    assert think("closed").thought.slow_probability > 0.9


def test_fast_thinking_feeds_its_words_and_decodes_nothing(think) -> None:
    told = think("closed", ThinkingMode.FAST)
    assert told.thought.written == TEMPLATE.fast
    assert (told.thought.text, told.thought.generated, told.pieces) == ("", 0, [])
    assert told.thought.end is ThoughtEnd.NONE
    assert told.thought.forced == len(encoded(TEMPLATE.fast)) == told.positions - 2


def test_the_probability_is_that_of_the_models_own_logits(model: Qwen2ForCausalLM) -> None:
    decoder = Decoder(model, max_length=256)
    thinker = Thinker(decoder, tiny_tokenizer(), TEMPLATE, stop_ids=frozenset([STOP]))
    prompt = [*prompt_of("open"), *thinker.opening]
    found = thinker.slow_probability(decoder.prefill(decoder.embedding[prompt]))
    fast, slow = (encoded(text)[len(thinker.opening)] for text in (TEMPLATE.fast, TEMPLATE.slow))
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([prompt])).logits[0, -1]
    assert found == pytest.approx(float(logits[[fast, slow]].softmax(0)[1]), rel=1e-4)
    assert tiny_tokenizer().decode(thinker.opening).rstrip() == "<think>\nThis is a"


def test_beginnings_that_a_tokenizer_cannot_tell_apart_are_refused(model: Qwen2ForCausalLM) -> None:
    same = ThinkingTemplate(fast="I see.", slow="I see. Well", end="</t>", answer="\nSo: ")
    with pytest.raises(ValueError, match="must part at a token"):
        Thinker(Decoder(model, max_length=8), tiny_tokenizer(), same, stop_ids=frozenset())


# ------------------------------------------------------------------ what closes a thought


@pytest.mark.parametrize(("name", "newline"), [("closed", "\n"), ("closed without a newline", "")])
def test_a_thought_that_the_model_closes_is_followed_by_the_answers_words(think, name: str, newline: str) -> None:
    told = think(name)
    assert told.thought.end is ThoughtEnd.MODEL
    assert told.thought.text == "".join(told.pieces) == "The bus stops."
    assert told.thought.written == TEMPLATE.slow + "The bus stops." + newline + ENDING
    assert told.positions == 2 + told.thought.generated + told.thought.forced


def test_a_text_that_ends_without_closing_its_thought_is_closed(think) -> None:
    told = think("ended")
    assert told.thought.end is ThoughtEnd.MODEL
    assert told.thought.written == TEMPLATE.slow + "The bus stops.\n" + ENDING
    assert told.positions == 2 + told.thought.generated + told.thought.forced


@pytest.mark.parametrize("tokens", [0, 1, 7, 30])
def test_a_thought_that_never_closes_is_closed_by_the_budget_of_tokens(think, tokens: int) -> None:
    told = think("endless", max_tokens=tokens)
    assert (told.thought.generated, told.thought.end) == (tokens, ThoughtEnd.TOKENS)
    assert told.thought.text == "".join(told.pieces) == tiny_tokenizer().decode(encoded(ENDLESS)[:tokens])
    assert told.thought.written == TEMPLATE.slow + told.thought.text + "\n" + ENDING
    assert told.positions == 2 + told.thought.generated + told.thought.forced


@pytest.mark.parametrize("budget_ms", [0, 10, 95, 300])
def test_a_thought_that_never_closes_is_closed_by_the_budget_of_milliseconds(think, budget_ms: int) -> None:
    thought = think("endless", clock=ticking(10), max_milliseconds=budget_ms).thought
    assert thought.end is ThoughtEnd.TIME
    assert thought.generated == max(0, -(-budget_ms // 10) - 1)  # a look at the clock before each token
    assert thought.written == TEMPLATE.slow + thought.text + "\n" + ENDING


@pytest.mark.parametrize("more", range(1, 12))
def test_a_budget_that_ends_within_the_ending_completes_it(think, more: int) -> None:
    budget = len(encoded("The bus stops.")) + more
    thought = think("closed", max_tokens=budget).thought
    assert thought.text == "The bus stops."
    assert thought.written == TEMPLATE.slow + "The bus stops.\n" + ENDING


def test_a_decoder_without_room_closes_the_thought_in_time_for_the_answer(think) -> None:
    told = think("endless", max_length=140, room=10)
    assert told.thought.end is ThoughtEnd.TOKENS
    assert told.thought.generated > 20
    assert told.positions + 10 <= 140


def test_what_looks_like_an_end_and_is_none_is_part_of_the_thought(think) -> None:
    told = think("angled")
    assert told.thought.text == "".join(told.pieces) == "a < b\n</thing>\n"


def test_characters_of_several_tokens_stream_whole(think) -> None:
    told = think("foreign")
    assert told.thought.text == "".join(told.pieces) == "Straße frei 日本"
    assert len(told.pieces) > 3
    assert all("\ufffd" not in piece for piece in told.pieces)


def test_barred_tokens_are_never_thought(model: Qwen2ForCausalLM) -> None:
    decoder = Decoder(model, max_length=256)
    road = encoded(" road")[0]
    thinker = Thinker(
        decoder, tiny_tokenizer(), TEMPLATE, stop_ids=frozenset([STOP]), barred=(road, len(tiny_tokenizer()))
    )
    hidden = decoder.prefill(decoder.embedding[[*prompt_of("endless"), *thinker.opening]])
    _, thought = thinker.think(hidden, ThinkingMode.SLOW, ThinkingLimits(max_tokens=20))
    assert thought.generated > 0
    assert " road" not in thought.text


def test_a_deadline_in_the_midst_of_a_thought_ends_it_without_an_answer(think) -> None:
    with pytest.raises(DeadlineExceeded):
        think("endless", deadline=Deadline(0))


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"slow_threshold": 1.5}, "is a probability, not 1.5"),
        ({"slow_threshold": float("nan")}, "is a probability"),
        ({"max_tokens": -1}, "max_tokens of a thought is -1"),
        ({"max_milliseconds": -5}, "max_milliseconds of a thought is -5"),
    ],
)
def test_limits_that_mean_nothing_are_refused(limits: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ThinkingLimits(**limits)
