"""The whole network: published keys, temporal state, and the same code at small sizes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from benchmarks import golden_frames

from opendrivevla_ros.perception.bev_geometry import cell_centres
from opendrivevla_ros.perception.config import PerceptionConfig, PublishedQuirks
from opendrivevla_ros.perception.ego_query import EGO_NUMBERS
from opendrivevla_ros.perception.network import EgoMotion, PerceptionFrame, PerceptionNetwork, PerceptionOutput

CONFIG = PerceptionConfig(
    image_size=(112, 60),
    resnet_blocks=(1, 1, 1, 1),
    resnet_width=4,
    deformable_stages=(False, False, False, True),
    embed_dim=16,
    ffn_dim=32,
    heads=2,
    range_metres=(-20.0, -20.0, -5.0, 20.0, 20.0, 3.0),
    bev_size=10,
    encoder_layers=2,
    queries=6,
    decoder_layers=2,
    max_tracks=6,
    birth_score=0.0,
    keep_score=0.0,
    map_queries=5,
    map_layers=1,
    map_attention_levels=1,
    map_masks=4,
    thing_blocks=1,
    stuff_blocks=1,
    scene_grid=(2, 3),
    ego_layers=1,
    quirks=PublishedQuirks.none(),
)


def network(config: PerceptionConfig = CONFIG) -> PerceptionNetwork:
    torch.manual_seed(3)
    return PerceptionNetwork(config).eval()


def frame(index: int = 0, *, config: PerceptionConfig = CONFIG) -> PerceptionFrame:
    """Six cameras at the origin that look around in steps of 60 degrees, on a vehicle that drives north at 2 m/s."""
    width, height = config.padded_size
    angles = torch.arange(6) * torch.pi / 3
    ahead = torch.stack([angles.sin(), angles.cos(), torch.zeros(6)], -1)
    right = torch.stack([angles.cos(), -angles.sin(), torch.zeros(6)], -1)
    lidar_to_image = torch.zeros(6, 4, 4, dtype=torch.float64)
    lidar_to_image[:, 0, :3] = 60 * right + width / 2 * ahead
    lidar_to_image[:, 1, :3] = height / 2 * ahead + torch.tensor([0.0, 0.0, -60.0])
    lidar_to_image[:, 2, :3] = ahead
    lidar_to_image[:, 3, 3] = 1.0
    can_bus = torch.zeros(18, dtype=torch.float64)
    can_bus[1], can_bus[16], can_bus[17] = 100.0 + index, torch.pi / 2, 90.0
    images = torch.randn(6, 3, height, width, generator=torch.Generator().manual_seed(index)) * 50
    return PerceptionFrame(
        images=images,
        lidar_to_image=lidar_to_image,
        can_bus=can_bus,
        lidar_to_global_rotation=torch.eye(3),
        lidar_to_global_translation=torch.tensor([0.0, 100.0 + index, 0.0]),
        timestamp_s=1000.0 + 0.5 * index,
        ego=torch.linspace(-1.0, 1.0, EGO_NUMBERS),
    )


@torch.no_grad()
def run(perception: PerceptionNetwork, *indices: int) -> PerceptionOutput:
    for index in indices:
        output = perception(frame(index))
    return output


def same(first: PerceptionOutput, second: PerceptionOutput) -> bool:
    tokens = ("scene_tokens", "agent_tokens", "map_tokens")
    return all(getattr(first, name).equal(getattr(second, name)) for name in tokens) and first.tracks.ids.equal(
        second.tracks.ids
    )


def test_the_published_checkpoints_keys_and_shapes_are_exactly_the_networks(golden_folder: Path) -> None:
    comparison = golden_frames.compare_keys(golden_folder)
    assert comparison.passed, comparison.detail
    assert len(golden_frames.published_keys(golden_folder)) == 1742


def test_a_missing_or_foreign_key_is_refused() -> None:
    state = network().state_dict()
    state["seg_head.stray.weight"] = state.pop("memory_bank.save_proj.weight")
    with pytest.raises(RuntimeError, match=r"memory_bank\.save_proj\.weight(.|\n)*seg_head\.stray\.weight"):
        PerceptionNetwork(CONFIG).load_state_dict(state, strict=True)


def test_a_small_network_gives_tokens_of_its_own_sizes() -> None:
    output = run(network(), 0)
    assert output.scene_tokens.shape == (36, 16)
    assert output.agent_tokens.shape == (len(output.tracks.ids), 16)
    assert output.tracks.boxes.shape == (len(output.tracks.ids), 9)
    assert output.map_tokens.shape == (len(output.map.labels) + 1, 16)
    assert output.ego_tokens.shape == (1, 16)
    assert output.proposal is not None
    assert [part.shape for part in output.proposal] == [(6, 2)] * 2
    assert output.map.drivable.shape == (10, 10)
    assert list(output.stage_times) == ["backbone", "bev_encoder", "track_head", "map_head", "ego_query"]


def test_the_ego_looks_at_what_lies_within_its_window() -> None:
    config = replace(CONFIG, ego_window=(-8.0, 0.0, 12.0, 60.0))  # the bird's-eye view ends at 20 m
    places = cell_centres(config.bev_size) * 40 - 20
    ahead = PerceptionNetwork(config).ahead(places)
    assert ahead[0, 0].tolist() == [-6.0, 2.0]
    assert ahead[-1, -1].tolist() == [10.0, 18.0]


def test_every_published_quirk_also_runs_at_small_sizes() -> None:
    config = replace(CONFIG, quirks=PublishedQuirks.as_evaluated(), map_attention_levels=4)
    output = run(network(config), 0, 1)
    assert len(output.agent_tokens) == len(output.tracks.ids) - 1
    assert output.map_tokens.isfinite().all()


def test_the_same_frames_give_the_same_answer_after_a_reset() -> None:
    perception = network()
    first = run(perception, 0, 1, 2)
    assert not same(run(perception, 0), first)
    perception.reset()
    assert same(run(perception, 0, 1, 2), first)


def test_a_frame_depends_on_the_frames_before_it() -> None:
    assert not same(run(network(), 1), run(network(), 0, 1))


def test_tracks_keep_their_ids_from_frame_to_frame() -> None:
    perception = network()
    before, after = run(perception, 0).tracks, run(perception, 1).tracks
    assert set(before.ids.tolist()) & set(after.ids.tolist())


def test_a_changed_calibration_is_projected_anew() -> None:
    perception = network()
    run(perception, 0)
    turned = replace(frame(0), lidar_to_image=frame(0).lidar_to_image.roll(1, 0))
    perception.reset()
    with torch.no_grad():
        changed = perception(turned)
        fresh = network()(turned)
    assert same(changed, fresh)


def test_cameras_that_see_nothing_of_the_grid_leave_finite_tokens() -> None:
    blind = replace(frame(0), lidar_to_image=torch.zeros(6, 4, 4, dtype=torch.float64))
    with torch.no_grad():
        output = network()(blind)
    assert output.scene_tokens.isfinite().all()
    assert output.map_tokens.isfinite().all()


def test_training_gives_every_used_parameter_a_gradient() -> None:
    perception = network()
    output = perception(frame(0))
    (output.scene_tokens.sum() + output.agent_tokens.sum() + output.map_tokens.sum()).backward()
    encoder = perception.pts_bbox_head.transformer.encoder.layers[0]
    for module in (encoder.attentions[0], encoder.attentions[1].deformable_attention, perception.img_backbone.layer4):
        assert all(parameter.grad is not None for parameter in module.parameters())


@pytest.mark.parametrize(("quirk", "expected"), [(False, 0.0), (True, 100.0)])
def test_the_first_frames_ego_delta_is_zero_unless_published(quirk: bool, expected: float) -> None:
    motion = EgoMotion(difference_at_first=quirk)
    assert float(motion.difference(frame(0).can_bus)[1]) == expected


def test_the_ego_delta_after_a_reset_reads_the_last_scene_only_if_published() -> None:
    for quirk, expected in ((False, 0.0), (True, 7.0)):
        motion = EgoMotion(difference_at_first=quirk)
        motion.difference(frame(0).can_bus)
        motion.reset()
        relative = motion.difference(frame(7).can_bus)
        assert (float(relative[1]), float(relative[16])) == (expected, torch.pi / 2)
