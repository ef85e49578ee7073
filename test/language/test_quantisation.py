"""int8 weights: bytes, products as near as rounding allows, sharing, and the decoder that reads them."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from opendrivevla_ros.language.decoder import Decoder
from opendrivevla_ros.language.quantisation import FEW_ROWS, embed, int8_parts, linear, quantise, weight_bytes


def layer(rows: int = 96, columns: int = 64) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(rows, columns)


def language_model() -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=200,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
        tie_word_embeddings=True,
        max_position_embeddings=128,
    )
    return Qwen2ForCausalLM(config).eval()


def dequantised(model: nn.Module) -> nn.Module:
    """A copy with plain bfloat16 weights of the same values."""
    plain = copy.deepcopy(model)
    made: dict[int, nn.Parameter] = {}
    for module in plain.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.Tensor) and (parts := int8_parts(weight)) is not None:
            values, scale = parts
            module.weight = made.setdefault(id(weight), nn.Parameter((values.float() * scale.float()).bfloat16()))
    return plain


@pytest.mark.parametrize("rows", [1, FEW_ROWS, FEW_ROWS + 1, 200])
def test_a_product_is_off_by_no_more_than_the_rounding_of_its_weights(rows: int) -> None:
    exact = layer()
    quantised = copy.deepcopy(exact)
    quantise(quantised)
    x = torch.randn(2, rows, 96)
    found = linear(x.bfloat16(), quantised.weight, quantised.bias.bfloat16()).float()
    wanted = exact(x)
    assert found.shape == wanted.shape
    step = exact.weight.abs().amax(1) / 127  # of a row's int8 numbers
    # half a step a weight, independent of each other, and what bfloat16 rounds of both inputs and the result
    allowed = 5 * (step / 12**0.5 * x.norm(dim=-1, keepdim=True) + 2**-8 * wanted.abs() + 2**-8)
    assert (found - wanted).abs().le(allowed).all()


def test_every_weight_is_within_half_a_step_of_what_it_was() -> None:
    exact = layer()
    quantised = copy.deepcopy(exact)
    quantise(quantised)
    values, scale = int8_parts(quantised.weight)
    assert values.dtype == torch.int8
    steps = (values.float() - exact.weight / scale.float()).abs()
    assert steps.max() <= 0.503
    assert (127 * scale.float() < 1.01 * exact.weight.abs().amax(1, keepdim=True)).all()


def test_rows_of_an_embedding_are_those_of_the_table() -> None:
    table = nn.Embedding(50, 32)
    exact = table.weight.detach().clone()
    quantise(table)
    ids = torch.tensor([[3, 3, 49], [0, 7, 1]])
    found = embed(ids, table.weight)
    assert (found.shape, found.dtype) == ((2, 3, 32), torch.bfloat16)
    torch.testing.assert_close(found.float(), exact[ids], atol=0.02 * float(exact.abs().max()), rtol=2**-7)


def test_a_head_that_is_the_embedding_stays_so_and_bytes_are_those_of_int8() -> None:
    model = language_model()
    before = weight_bytes(model)
    quantise(model)
    model.to(torch.bfloat16)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert before == sum(weight.numel() * 4 for weight in model.parameters())
    assert weight_bytes(model) <= 0.28 * before


def test_the_decoder_reads_int8_weights_as_it_reads_plain_ones_of_the_same_values() -> None:
    model = language_model()
    quantise(model)
    model.to(torch.bfloat16)
    plain = dequantised(model)
    prompt, texts = list(range(40)), [[5, 6], [7]]
    outputs = []
    for one in (model, plain):
        decoder = Decoder(one, max_length=100, rows=2)
        hidden = decoder.prefill(decoder.embed(prompt), prefix=prompt[:10])
        decoder.fork(2)
        hidden = torch.cat([hidden, decoder.step(texts)])
        outputs.append(linear(hidden, decoder.head).float())
    assert (outputs[0] - outputs[1]).abs().max() < 0.05 * outputs[1].abs().max()


def test_decoders_of_one_model_share_its_weights() -> None:
    model = language_model()
    quantise(model)
    model.to(torch.bfloat16)
    before = weight_bytes(model)
    first, second = Decoder(model), Decoder(model)
    assert weight_bytes(model) == before
    held = [int8_parts(weight) for weight in model.parameters() if int8_parts(weight) is not None]
    storages = {values.untyped_storage().data_ptr(): values.untyped_storage().nbytes() for values, _ in held}
    assert sum(storages.values()) == sum(values.numel() for values, _ in held)
    ids = [1, 2, 3]
    assert torch.equal(first.prefill(first.embed(ids)), second.prefill(second.embed(ids)))


def test_what_torchao_has_to_say_about_gpus_is_not_shown() -> None:
    program = "import opendrivevla_ros.language.decoder, torchao.quantization"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stderr == ""
