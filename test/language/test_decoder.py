"""The decoder against `transformers` on the same weights."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from opendrivevla_ros.language.decoder import Decoder
from opendrivevla_ros.language.model import DrivingLanguageModel, LanguageConfig

LENGTH = 40


def logits(decoder: Decoder, hidden: torch.Tensor) -> torch.Tensor:
    return F.linear(hidden, decoder.head)


@pytest.fixture
def embeddings(small_model: DrivingLanguageModel) -> torch.Tensor:
    return small_model.model.embed_tokens.weight.detach()[torch.arange(LENGTH)].clone()


def assert_equal(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Logits of magnitude 10, within what the order of float32 sums makes of them."""
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-3)


def reference(model: DrivingLanguageModel, embeddings: torch.Tensor, tokens: list[int]) -> torch.Tensor:
    """The logits after each of the tokens, all in one uncached forward."""
    with torch.inference_mode():
        whole = torch.cat([embeddings, model.model.embed_tokens(torch.tensor(tokens, dtype=torch.long))])
        return model(inputs_embeds=whole[None]).logits[0, len(embeddings) - 1 :]


def test_prefill_and_steps_of_any_width_equal_one_whole_forward(
    small_model: DrivingLanguageModel, embeddings: torch.Tensor
) -> None:
    decoder = Decoder(small_model, max_length=64)
    expected = reference(small_model, embeddings, [5, 6, 7, 8, 9, 10])
    assert_equal(logits(decoder, decoder.prefill(embeddings))[0], expected[0])
    assert_equal(logits(decoder, decoder.step([[5]]))[0], expected[1])
    assert_equal(logits(decoder, decoder.step([[6, 7, 8]]))[0], expected[4])
    assert_equal(logits(decoder, decoder.step([[9, 10]]))[0], expected[6])
    assert decoder.lengths == (LENGTH + 6,)


def test_rows_that_stand_at_different_positions_do_not_disturb_each_other(
    small_model: DrivingLanguageModel, embeddings: torch.Tensor
) -> None:
    decoder = Decoder(small_model, max_length=64, rows=3)
    decoder.prefill(embeddings)
    decoder.fork(3)
    texts: list[list[int]] = [[], [], []]
    for news in ([[5], [6, 7, 8, 9], [10, 11]], [[12, 13, 14], [15], []], [[16], [17], [18, 19]]):
        hidden = decoder.step(news)
        for row, new in enumerate(news):
            texts[row] += new
            if new:
                expected = reference(small_model, embeddings, texts[row])[-1]
                assert_equal(logits(decoder, hidden)[row], expected)
    assert decoder.lengths == (LENGTH + 5, LENGTH + 6, LENGTH + 4)


def test_a_kept_prefix_changes_nothing_and_is_not_read_again(
    small_model: DrivingLanguageModel, embeddings: torch.Tensor
) -> None:
    layers = len(small_model.model.layers)
    prefix, other = list(range(30)), [99, *range(1, 30)]
    decoder, calls = Decoder(small_model, max_length=64), []

    def prefill(prefix: list[int], embeddings: torch.Tensor) -> torch.Tensor:
        calls.clear()
        return decoder.prefill(embeddings, prefix=prefix, check=lambda: calls.append(1))

    first = prefill(prefix, embeddings)
    assert len(calls) == 2 * layers
    decoder.step([[5, 6]])
    assert torch.equal(prefill(prefix, embeddings), first)
    assert len(calls) == layers
    changed = embeddings.clone()
    changed[0] = small_model.model.embed_tokens.weight.detach()[99]
    assert not torch.equal(prefill(other, changed), first)
    assert len(calls) == 2 * layers
    assert torch.equal(prefill(prefix, embeddings), first)
    decoder.prefill(changed)  # without a prefix: what was kept is overwritten
    assert torch.equal(prefill(prefix, embeddings), first)
    assert_equal(logits(decoder, first)[0], reference(small_model, embeddings, [])[0])


def test_an_interrupted_prefill_leaves_no_half_read_prefix(
    small_model: DrivingLanguageModel, embeddings: torch.Tensor
) -> None:
    decoder, calls = Decoder(small_model, max_length=64), []
    expected = decoder.prefill(embeddings, prefix=range(30))
    decoder.prefill(embeddings)  # without a prefix: what was kept is overwritten

    def interrupt() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        decoder.prefill(embeddings.flip(0), prefix=range(30), check=interrupt)
    assert torch.equal(decoder.prefill(embeddings, prefix=range(30)), expected)


def test_bfloat16_follows_transformers_in_bfloat16(
    random_model: Callable[..., DrivingLanguageModel], small_config: LanguageConfig, embeddings: torch.Tensor
) -> None:
    model = random_model(small_config).to(torch.bfloat16)
    decoder, tokens = Decoder(model, max_length=64), [5, 6, 7]
    expected = reference(model, embeddings.bfloat16(), tokens).float()
    found = [decoder.prefill(embeddings.bfloat16()), *(decoder.step([[token]]) for token in tokens)]
    assert found[0].dtype == torch.bfloat16
    difference = logits(decoder, torch.cat(found)).float() - expected
    assert difference.abs().max() < 0.05 * expected.abs().max()


def test_an_untied_head_is_used(
    random_model: Callable[..., DrivingLanguageModel], small_config: LanguageConfig, embeddings: torch.Tensor
) -> None:
    model = random_model(replace(small_config, tied_embeddings=False))
    decoder = Decoder(model, max_length=64)
    assert_equal(logits(decoder, decoder.prefill(embeddings))[0], reference(model, embeddings, [])[0])


def test_the_model_and_the_decoder_share_their_weights(
    random_model: Callable[..., DrivingLanguageModel], small_config: LanguageConfig, embeddings: torch.Tensor, tmp_path
) -> None:
    model = random_model(small_config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = Decoder(model, max_length=64), Decoder(model, max_length=64)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert first._layers[0].qkv.data_ptr() == model.model.layers[0].self_attn.q_proj.weight.data_ptr()
    assert first._layers[0].qkv.data_ptr() == second._layers[0].qkv.data_ptr()
    with torch.no_grad():
        model.model.layers[1].self_attn.v_proj.bias += 1.0
        model.model.layers[0].mlp.up_proj.weight *= 2.0
    assert_equal(logits(second, second.prefill(embeddings))[0], reference(model, embeddings, [])[0])
    weights = {name: value for name, value in model.state_dict().items() if name != "lm_head.weight"}
    save_file(weights, tmp_path / "model.safetensors")
    assert all(torch.equal(value, weights[name]) for name, value in load_file(tmp_path / "model.safetensors").items())


def test_too_long_a_prompt_text_or_batch_is_refused(
    small_model: DrivingLanguageModel, embeddings: torch.Tensor
) -> None:
    decoder = Decoder(small_model, max_length=LENGTH)
    with pytest.raises(ValueError, match="41 positions, the decoder takes 1 to 40"):
        decoder.prefill(torch.cat([embeddings, embeddings[:1]]))
    with pytest.raises(ValueError, match="0 positions"):
        decoder.prefill(embeddings[:0])
    decoder.prefill(embeddings)
    with pytest.raises(ValueError, match="needs 41 positions, the decoder has 40"):
        decoder.step([[1]])
    with pytest.raises(ValueError, match="2 rows were asked of a decoder with 1"):
        decoder.fork(2)


def test_a_prompt_that_is_not_finite_is_refused_and_leaves_nothing_behind(
    small_model: DrivingLanguageModel, embeddings: torch.Tensor
) -> None:
    decoder = Decoder(small_model, max_length=64)
    expected = decoder.prefill(embeddings)
    with pytest.raises(ValueError, match="not finite"):
        decoder.prefill(torch.full_like(embeddings, float("nan")))
    assert torch.equal(decoder.prefill(embeddings), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: steps replay CUDA graphs there")
def test_steps_replayed_from_cuda_graphs_equal_those_on_the_cpu(
    random_model: Callable[..., DrivingLanguageModel], small_config: LanguageConfig, embeddings: torch.Tensor
) -> None:
    cpu = Decoder(random_model(small_config), max_length=64, rows=2)
    cuda = Decoder(random_model(small_config).to("cuda"), max_length=64, rows=2)
    assert_equal(cuda.prefill(embeddings.cuda()).cpu(), cpu.prefill(embeddings))
    cpu.fork(2)
    cuda.fork(2)
    for news in ([[5], [6, 7, 8]], [[9, 10], []], [[11], [12]], [[13], [14]]):
        expected, found = cpu.step(news), cuda.step(news).cpu()
        for row, new in enumerate(news):
            if new:
                assert_equal(found[row], expected[row])
