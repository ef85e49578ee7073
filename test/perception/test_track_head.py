"""The track head's decoder: refinement of references, box codes, and what training needs of it."""

from dataclasses import replace

import torch

from opendrivevla_ros.perception.config import PerceptionConfig
from opendrivevla_ros.perception.track_head import TrackDecoding, TrackHead

CONFIG = replace(
    PerceptionConfig(), embed_dim=16, ffn_dim=32, heads=2, bev_size=8, decoder_layers=3, encoder_layers=1, classes=4
)
QUERIES = 7


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """BEV, queries and references; the last reference lies far outside the range."""
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(QUERIES, 3, generator=generator)
    reference[-1] = 50.0
    return torch.randn(64, 16, generator=generator), torch.randn(QUERIES, 32, generator=generator), reference


def head() -> TrackHead:
    torch.manual_seed(1)
    return TrackHead(CONFIG).eval()


@torch.no_grad()
def decode() -> TrackDecoding:
    return head().decode(*inputs())


def test_every_query_has_a_state_and_reference_per_layer_and_a_box_and_classes() -> None:
    decoding = decode()
    assert decoding.hidden.shape == (3, QUERIES, 16)
    assert decoding.references.shape == (3, QUERIES, 3)
    assert decoding.logits.shape == (QUERIES, 4)
    assert decoding.boxes.shape == (QUERIES, 10)
    assert all(tensor.isfinite().all() for tensor in vars(decoding).values())


def test_box_centres_are_the_refined_references_in_metres() -> None:
    decoding = decode()
    low, high = torch.tensor(CONFIG.range_metres).split(3)
    centres = decoding.boxes[:, [0, 1, 4]]
    torch.testing.assert_close(centres, decoding.references[-1] * (high - low) + low)
    torch.testing.assert_close(decoding.last_reference.sigmoid(), decoding.references[-1], atol=2e-5, rtol=0)


@torch.no_grad()
def test_the_position_half_of_a_query_is_no_part_of_its_content() -> None:
    """With attention switched off, only the content half reaches the output."""
    module, (bev, query, reference) = head(), inputs()
    for layer in module.transformer.decoder.layers:
        torch.nn.init.zeros_(layer.attentions[0].attn.out_proj.weight)
        torch.nn.init.zeros_(layer.attentions[1].output_proj.weight)
    moved, changed = query.clone(), query.clone()
    moved[:, :16] += 1.0
    changed[:, 16:] += torch.arange(16)
    hidden = module.decode(bev, query, reference).hidden
    torch.testing.assert_close(module.decode(bev, moved, reference).hidden, hidden)
    assert not torch.allclose(module.decode(bev, changed, reference).hidden, hidden)


def test_refinement_gives_no_gradient_across_layers() -> None:
    module, (bev, query, reference) = head(), inputs()
    decoding = module.decode(bev, query, reference)
    last = decoding.references[-1].sum()
    branches = [branch[4].bias for branch in module.reg_branches]
    gradients = torch.autograd.grad(last, branches, allow_unused=True)
    assert gradients[2] is not None
    assert gradients[2].abs().sum() > 0
    assert [gradient is None or not gradient.any() for gradient in gradients[:2]] == [True, True]


@torch.no_grad()
def test_half_precision_keeps_boxes_references_and_logits_in_single() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        decoding = decode()
    exact = decode()
    for output, expected in zip(
        (decoding.boxes, decoding.references, decoding.logits),
        (exact.boxes, exact.references, exact.logits),
        strict=True,
    ):
        assert output.dtype == torch.float32
        torch.testing.assert_close(output[..., :2], expected[..., :2], atol=0.02 * expected.abs().max(), rtol=0)


@torch.no_grad()
def test_trajectories_have_a_step_for_each_past_and_future_offset() -> None:
    assert head().trajectories(decode().hidden[-1]).shape == (QUERIES, CONFIG.past_steps + CONFIG.future_steps, 2)
