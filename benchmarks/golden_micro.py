"""Compares the perception's small parts, one at a time, with micro.npz, which stores their inputs and weights."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from benchmarks.golden_compare import Comparison, compare_arrays, compare_exact, load_module
from torch import Tensor, nn

from opendrivevla_ros.perception.attention import DeformableAttention, read_with_one_level_stride
from opendrivevla_ros.perception.bev_encoder import TemporalSelfAttention
from opendrivevla_ros.perception.bev_geometry import pillar_points, project_pillars
from opendrivevla_ros.perception.config import PerceptionConfig
from opendrivevla_ros.perception.deformable import (
    ModulatedDeformConv2d,
    modulated_deform_conv2d,
    multi_scale_deformable_attention,
)
from opendrivevla_ros.perception.map_merge import IN_MASK, merge_masks, rank_masks
from opendrivevla_ros.perception.memory import MemoryBank, QueryInteraction
from opendrivevla_ros.perception.positions import LearnedPositions, sine_positions
from opendrivevla_ros.perception.preprocess import preprocess
from opendrivevla_ros.perception.tracker import LidarPose, Tracker, move_references
from opendrivevla_ros.perception.tracks import BOX_CODE, EGO, UNTRACKED, Tracks, fresh_tracks
from opendrivevla_ros.perception.transforms import inverse_sigmoid, rotate_bev


def compare(folder: Path) -> Iterator[Comparison]:
    """All parts; none where there is no folder/micro.npz."""
    path = folder / "micro.npz"
    if not path.is_file():
        return
    with np.load(path) as archive:
        stored = dict(archive)
    generators = load_module(folder / "weights.py")
    with torch.no_grad():
        for compare_part in (
            _convolutions,
            _deformable_operators,
            _deformable_layers,
            _temporal_layer,
            _rotation,
            _tables,
            _motion,
            _pillars,
            _tracker,
            _decoding,
            _preprocessing,
            _merging,
        ):
            yield from compare_part(stored)
        yield from _memory(stored, generators)
        yield from _interaction(stored, generators)


class _Part:
    """One part's arrays as tensors, by name, and the comparisons with them."""

    def __init__(self, stored: Mapping[str, np.ndarray], name: str) -> None:
        self.name = name
        prefix = f"{name}."
        self.arrays = {key.removeprefix(prefix): array for key, array in stored.items() if key.startswith(prefix)}

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(np.asarray(self.arrays[key]))

    def load(self, module: nn.Module) -> None:
        module.load_state_dict(
            {key.removeprefix("weight."): self[key] for key in self.arrays if key.startswith("weight.")}
        )

    def close(self, key: str, actual: Tensor) -> Comparison:
        return compare_arrays(f"micro.{self.name}", key, actual, self.arrays[key])

    def same(self, key: str, actual: Tensor | np.ndarray | list[int]) -> Comparison:
        return compare_exact(f"micro.{self.name}", key, actual, self.arrays[key])


def _convolutions(stored: Mapping[str, np.ndarray]) -> Iterator[Comparison]:
    part = _Part(stored, "dcn_op")
    yield part.close("y", modulated_deform_conv2d(part["x"], part["offset"], part["mask"], part["weight"]))
    for stride in (1, 2):
        part = _Part(stored, f"dcn_layer_s{stride}")
        outputs, inputs = part["weight.weight"].shape[:2]
        layer = ModulatedDeformConv2d(inputs, outputs, stride=stride)
        part.load(layer)
        yield part.close("conv_offset_out", layer.conv_offset(part["x"]))
        yield part.close("y", layer(part["x"]))


def _deformable_operators(stored: Mapping[str, np.ndarray]) -> Iterator[Comparison]:
    part = _Part(stored, "msda_op")
    shapes = _shapes(part["shapes"])
    yield part.close("y", multi_scale_deformable_attention(part["value"], shapes, part["locations"], part["weights"]))
    part = _Part(stored, "msda_misstrided_op")
    queries = part["locations"].shape[1]
    locations = read_with_one_level_stride(part["locations"], queries)
    weights = read_with_one_level_stride(part["weights"], queries)
    shapes = _shapes(part["shapes"])
    yield part.close("y", multi_scale_deformable_attention(part["value"], shapes, locations, weights))


def _shapes(stored: Tensor) -> list[tuple[int, int]]:
    return [(int(height), int(width)) for height, width in stored]


def _deformable_layers(stored: Mapping[str, np.ndarray]) -> Iterator[Comparison]:
    for name, levels, cases in (("msda_layer", 1, ("ref2d",)), ("msda_misstrided_layer", 4, ("ref2d", "ref4d"))):
        part = _Part(stored, name)
        layer = DeformableAttention(32, 8, levels, 4, misstrided=True)
        part.load(layer)
        for case in cases:
            # stored with the batch second
            query, position, value = (part[f"{case}.{key}"].transpose(0, 1) for key in ("query", "query_pos", "value"))
            attended = query + layer(query, value, part[f"{case}.ref"], [(6, 6)], position)
            yield part.close(f"{case}.y", attended.transpose(0, 1))


def _temporal_layer(stored: Mapping[str, np.ndarray]) -> Iterator[Comparison]:
    part = _Part(stored, "temporal_layer")
    layer = TemporalSelfAttention(replace(PerceptionConfig(), embed_dim=32, heads=4))
    layer.shape = (5, 6)
    part.load(layer)
    query, positions = part["query"][0], part["query_pos"][0]
    references = part["ref"][:, :, 0]
    for case, values in (
        ("with", [part["prev_bev"][0], part["initial_query"][0]]),
        ("without", [query, query]),
    ):
        attended = query + layer(query, positions, torch.stack(values), references)
        yield part.close(f"y_{case}_prev", attended[None])


def _rotation(stored: Mapping[str, np.ndarray]) -> Iterator[Comparison]:
    part = _Part(stored, "rotate")
    pictures = part["x"]
    rotated = [rotate_bev(pictures.flatten(1).T, float(angle)).T.view_as(pictures) for angle in part["angles_deg64"]]
    yield part.close("y", torch.stack(rotated))


def _tables(stored: Mapping[str, np.ndarray]) -> Iterator[Comparison]:
    part = _Part(stored, "inverse_sigmoid")
    yield part.close("y", inverse_sigmoid(part["x"]))
    part = _Part(stored, "learned_position")
    rows, columns = part["row"], part["col"]
    positions = LearnedPositions(len(rows), len(columns), rows.shape[1])
    positions.load_state_dict({"row_embed.weight": rows, "col_embed.weight": columns})
    yield part.close("y", positions().T.view(1, -1, len(rows), len(columns)))
    part = _Part(stored, "sine_position")
    yield part.close("y_8feats_7x5", sine_positions(7, 5, 8)[None])


def _motion(stored: Mapping[str, np.ndarray]) -> Iterator[Comparison]:
    part = _Part(stored, "velo_update")
    previous = LidarPose(part["l2g_r1"], part["l2g_t1"], 0.0)
    current = LidarPose(part["l2g_r2"], part["l2g_t2"], float(part["dt64"]))
    moved = move_references(part["ref_in"], part["velocity"], previous, current, PerceptionConfig().range_metres)
    yield part.close("ref_out", moved)


def _pillars(stored: Mapping[str, np.ndarray]) -> Iterator[Comparison]:
    part = _Part(stored, "pillars")
    config = replace(PerceptionConfig(), bev_size=6, image_size=(160, 90))
    projection = project_pillars(pillar_points(config), part["lidar2img64"], config.padded_size)
    yield part.same("visible", projection.visible[:, None])
    # points behind a camera are meaningless, and reach millions
    visible = part["visible"][:, 0]
    yield compare_arrays(
        "micro.pillars", "points_in_image", projection.points[visible], part["points_in_image"][:, 0][visible]
    )


def _empty_tracks(config: PerceptionConfig, count: int) -> Tracks:
    """Tracks without a query or an id, all of them ordinary."""
    zeros = torch.zeros(count, 2 * config.embed_dim)
    tracks = fresh_tracks(zeros, zeros[:, :3], replace(config, queries=count - 1))
    return replace(tracks, ids=torch.full((count,), UNTRACKED))


def _tracker(stored: Mapping[str, np.ndarray]) -> Iterator[Comparison]:
    part = _Part(stored, "tracker")
    config = PerceptionConfig()
    tracker = Tracker(config)
    scores = part["scores"]
    tracks = _empty_tracks(config, scores.shape[1])
    tracks.ids[5] = EGO
    steps = []
    for now in scores:
        tracks = tracker.update(replace(tracks, scores=now))
        steps.append(tracks)
    ids = torch.stack([step.ids for step in steps])
    active = torch.zeros(ids.shape, dtype=torch.bool)
    for row, step in zip(active, steps, strict=True):
        reported = tracker.report(step).ids
        row[torch.isin(step.ids, reported)] = True
    yield part.same("ids", ids)
    yield part.same("asleep", torch.stack([step.missed for step in steps]))
    yield part.same("active", active)
    yield part.same("next_id", np.asarray(tracker.next_id))


def _decoding(stored: Mapping[str, np.ndarray]) -> Iterator[Comparison]:
    part = _Part(stored, "decode")
    config = replace(PerceptionConfig(), keep_score=0.0)
    tracks = _empty_tracks(config, len(part["track_scores"]))
    result = Tracker(config).report(
        replace(
            tracks,
            ids=part["obj_idxes"].long(),
            scores=part["track_scores"],
            logits=part["cls_scores"],
            boxes=part["bbox_preds"].view(-1, BOX_CODE),
        )
    )
    yield part.close("out_bboxes", result.boxes)
    yield part.close("out_scores", result.scores)
    yield part.same("out_labels", result.labels)
    yield part.same("out_obj_idxes", result.ids)


def _preprocessing(stored: Mapping[str, np.ndarray]) -> Iterator[Comparison]:
    part = _Part(stored, "preprocess")
    picture = part.arrays["u8_bgr_hwc"]
    config = replace(PerceptionConfig(), cameras=1, image_size=(picture.shape[1], picture.shape[0]))
    yield part.close("y_chw", preprocess([picture], config)[0])


def _merging(stored: Mapping[str, np.ndarray]) -> Iterator[Comparison]:
    config = PerceptionConfig()
    for number in range(6):
        part = _Part(stored, f"merge{number}")
        masks = part["masks"]
        scores, top = part["logits"].sigmoid().flatten().topk(len(masks))
        labels = top % config.map_things
        yield part.close("top_score", scores)
        yield part.same("top_query", top // config.map_things)
        yield part.same("top_label", labels)
        ranking = rank_masks(masks, scores)
        yield part.close("rank_score", ranking.scores)
        # masks that are empty score 0 and tie
        scored = int((part["rank_score"] > 0).sum())
        for key, ranked in (("rank_to_top", ranking.order), ("rank_label", labels[ranking.order])):
            yield compare_exact(f"micro.{part.name}", key, ranked[:scored], part[key][:scored])
        accepted, lane = merge_masks(
            (masks[ranking.order] > IN_MASK).numpy(),
            labels[ranking.order].numpy(),
            ranking.scores.numpy(),
            config,
        )
        yield part.same("accepted_ranks", accepted)
        yield part.same("lane", lane)
        yield part.same("drivable", part["stuff_mask"] > IN_MASK)


def _generated(module: nn.Module, prefix: str, generators: ModuleType) -> None:
    """Fills a module with the folder's generated weights."""
    module.load_state_dict(
        {
            key: torch.from_numpy(generators.generate(f"{prefix}.{key}", tensor.shape))
            for key, tensor in module.state_dict().items()
        }
    )


def _memory(stored: Mapping[str, np.ndarray], generators: ModuleType) -> Iterator[Comparison]:
    part = _Part(stored, "memory")
    config = PerceptionConfig()
    bank = MemoryBank(config)
    _generated(bank, "memory_bank", generators)
    tracks = _empty_tracks(config, part["scores"].shape[1])
    steps = []
    for embedding, scores in zip(part["embedding_in"], part["scores"], strict=True):
        tracks = bank(replace(tracks, embedding=embedding, scores=scores))
        steps.append(tracks)
    yield part.close("embedding_out", torch.stack([step.embedding for step in steps]))
    yield part.close("bank_out", torch.stack([step.memory for step in steps]))
    yield part.same("empty_out", torch.stack([step.memory_empty for step in steps]))
    yield part.same("save_period_out", torch.stack([step.save_period for step in steps]))


def _interaction(stored: Mapping[str, np.ndarray], generators: ModuleType) -> Iterator[Comparison]:
    part = _Part(stored, "interaction")
    config = PerceptionConfig()
    interaction = QueryInteraction(config)
    _generated(interaction, "query_interact", generators)
    tracks = _empty_tracks(config, len(part["ids_in"]))
    alive = interaction(
        replace(tracks, query=part["query_in"], embedding=part["embedding_in"], ids=part["ids_in"].long())
    )
    yield part.same("ids_out", alive.ids)
    yield part.close("query_out", alive.query)
