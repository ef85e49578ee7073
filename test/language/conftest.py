"""Tokenizers, random models and prompts for the tests of the language room."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LogitsProcessor, PreTrainedTokenizerFast

from opendrivevla_ros.language.grammar import TokenGrammar, trajectory_grammar
from opendrivevla_ros.language.model import DrivingLanguageModel, Features, LanguageConfig
from opendrivevla_ros.language.prompt import PromptFields, chat_prompt, tokenize_prompt, user_message
from opendrivevla_ros.language.small_tokenizer import build_small_tokenizer
from opendrivevla_ros.language.system_text import SYSTEM_TEXT
from opendrivevla_ros.language.trajectory_text import format_trajectory


def merged_tokenizer(pieces: str) -> PreTrainedTokenizerFast:
    """A BPE tokenizer without special tokens that merges what `pieces` leaves together: "),(", ",-", "_start"."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(pieces), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    generator = np.random.default_rng(5)
    texts = [format_trajectory(generator.normal(0, [3, 30], (6, 2))) for _ in range(200)]
    texts += ["f(-x),(-y)", "a,-b ((-", "x)]> y<z ])"] * 20
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


TOKENIZERS = {
    "small": build_small_tokenizer,
    # as Qwen2's: single digits, runs of punctuation together, and the markers are ordinary text
    "single digits": lambda: merged_tokenizer(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+"),
    # as GPT-2's: runs of digits together
    "merged digits": lambda: merged_tokenizer(r" ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+"),
}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models gain nothing from a second thread, and on a busy machine threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", params=list(TOKENIZERS))
def any_tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return TOKENIZERS[request.param]()


@pytest.fixture(scope="session")
def small_tokenizer() -> PreTrainedTokenizerFast:
    return build_small_tokenizer()


@pytest.fixture(scope="session")
def merging_tokenizer() -> PreTrainedTokenizerFast:
    return TOKENIZERS["single digits"]()


def make_random_model(config: LanguageConfig, *, seed: int = 0) -> DrivingLanguageModel:
    """A model whose random weights are large enough to make its greedy text lively."""
    torch.manual_seed(seed)
    model = DrivingLanguageModel(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and config.hidden_size < 512:
                scale = 0.5 if "embed" in name else 1.5 / parameter.shape[1] ** 0.5
                parameter.copy_(torch.randn(parameter.shape) * scale)
    return model.eval()


@pytest.fixture(scope="session")
def random_model() -> Callable[..., DrivingLanguageModel]:
    return make_random_model


@pytest.fixture(scope="session")
def small_config(small_tokenizer: PreTrainedTokenizerFast) -> LanguageConfig:
    return LanguageConfig(
        vocabulary_size=len(small_tokenizer),
        hidden_size=128,
        intermediate_size=256,
        layers=4,
        heads=4,
        key_value_heads=2,
    )


@pytest.fixture(scope="session")
def small_model(small_config: LanguageConfig) -> DrivingLanguageModel:
    return make_random_model(small_config)


@pytest.fixture(scope="session")
def small_grammar(small_tokenizer: PreTrainedTokenizerFast) -> TokenGrammar:
    return trajectory_grammar(small_tokenizer)


@pytest.fixture
def fields() -> PromptFields:
    return PromptFields(
        velocity=(0.02, 12.4),
        yaw_rate=0.01,
        history=np.array([[0.3, -24.1], [0.2, -18.2], [0.1, -12.2], [0.0, -6.1]]),
        measured_acceleration=(0.3, -0.1),
        speed=12.5,
        steering=0.1,
    )


@pytest.fixture
def prompt_ids(fields: PromptFields, small_tokenizer: PreTrainedTokenizerFast) -> list[int]:
    return tokenize_prompt(chat_prompt(SYSTEM_TEXT, user_message(fields)), small_tokenizer)


@pytest.fixture(scope="session")
def features() -> Features:
    generator = torch.Generator().manual_seed(3)
    return Features(*(torch.randn(count, 256, generator=generator) for count in (90, 20, 9)))


class GrammarMask(LogitsProcessor):
    """The grammar for `transformers`: it leaves only the tokens that are allowed after those written so far."""

    def __init__(self, grammar: TokenGrammar) -> None:
        self.grammar = grammar

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        state = 0
        for token in input_ids[0].tolist():
            state = self.grammar.advance(state, token)
        allowed = list(self.grammar.choices[state])
        masked = torch.full_like(scores, float("-inf"))
        masked[0, allowed] = scores[0, allowed]
        return masked


@pytest.fixture(scope="session")
def transformers_plan() -> Callable[..., list[int]]:
    """The tokens of a plan as `transformers` generates them under the grammar, one forward a token."""

    def plan(
        model: DrivingLanguageModel, grammar: TokenGrammar, embeddings: torch.Tensor, penalty: float = 1.0
    ) -> list[int]:
        ends = [token for options in grammar.choices for token, state in options.items() if state == grammar.final]
        with torch.inference_mode():
            output = model.generate(
                inputs_embeds=embeddings[None],
                attention_mask=torch.ones(1, len(embeddings), dtype=torch.long),
                max_new_tokens=512,
                do_sample=False,
                repetition_penalty=penalty,
                logits_processor=[GrammarMask(grammar)],
                eos_token_id=ends,
                pad_token_id=0,
            )
        return output[0].tolist()

    return plan
