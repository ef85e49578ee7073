"""What training does to attention and to layers that nobody asks, and that it changes no result."""

import pytest
import torch

from opendrivevla_ros.language.model import DrivingLanguageModel, LanguageConfig
from opendrivevla_ros.training.answer_losses import THOUGHT_DEPTH, at_depth, first_layers
from opendrivevla_ros.training.attention import attend_in_float32

WORDS = 40


@pytest.fixture
def model() -> DrivingLanguageModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "layers": 6, "heads": 4, "key_value_heads": 2}
    return DrivingLanguageModel(LanguageConfig(vocabulary_size=WORDS, feature_size=16, **sizes))


def prompts() -> torch.Tensor:
    return torch.randint(WORDS, (3, 20), generator=torch.Generator().manual_seed(0))


MASKS = {
    "causal": None,
    "filled up": torch.arange(20)[None].expand(3, -1) < torch.tensor([[20], [12], [5]]),
    "of its own": torch.ones(3, 1, 20, 20, dtype=torch.bool).tril(2),
}


@pytest.mark.parametrize("name", MASKS)
def test_in_float32_nothing_changes(model: DrivingLanguageModel, name: str):
    before = model(prompts(), attention_mask=MASKS[name]).logits
    attend_in_float32(model)
    torch.testing.assert_close(model(prompts(), attention_mask=MASKS[name]).logits, before, rtol=0, atol=0)


def test_in_bfloat16_attention_alone_is_in_float32(model: DrivingLanguageModel, attended: list[torch.dtype]):
    exact = model(prompts()).logits
    attend_in_float32(model)
    attended.clear()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(prompts()).logits
    assert attended == [torch.float32] * 6
    torch.testing.assert_close(rounded.float(), exact, rtol=0.05, atol=0.05)


def test_the_first_layers_give_what_stands_between_the_layers(model: DrivingLanguageModel):
    words, names = prompts(), list(dict(model.named_parameters()))
    between = at_depth(model.model(words, output_hidden_states=True).hidden_states, THOUGHT_DEPTH)
    part = first_layers(model.model, THOUGHT_DEPTH)
    found = part(words).last_hidden_state
    torch.testing.assert_close(found, between, rtol=0, atol=0)
    found.sum().backward()
    learned = [layer.self_attn.q_proj.weight.grad is not None for layer in model.model.layers]
    assert learned == [True] * 4 + [False] * 2
    assert list(dict(model.named_parameters())) == names  # the model itself stays whole
