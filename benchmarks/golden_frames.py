"""Compares the perception network with the published one: every stored tensor of frames run in sequence.

Intermediate tensors come through hooks, so that the network itself knows nothing of this comparison.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from benchmarks.golden_compare import (
    LIMIT,
    TIGHT_LIMIT,
    Comparison,
    compare_arrays,
    compare_exact,
    compare_tensor,
    load_module,
    stored_shape,
)
from torch import Tensor, nn

from opendrivevla_ros.perception.config import PerceptionConfig, PublishedQuirks
from opendrivevla_ros.perception.map_merge import IN_MASK
from opendrivevla_ros.perception.network import PerceptionFrame, PerceptionNetwork, PerceptionOutput
from opendrivevla_ros.perception.positions import sine_positions
from opendrivevla_ros.perception.preprocess import preprocess
from opendrivevla_ros.perception.tracker import decode_boxes

FILE_NAME = re.compile(r"frame(\d+)_variant(\d+)(_\w+)?\.npz")  # a suffix that holds "zeroed", or only names the size
TIGHT_GROUPS = ("backbone.", "fpn.", "bev.")
MASK_BITS_LIMIT = 1e-4  # share of mask cells that may fall on the other side of 0.5
RANK_SCORE_LIMIT = 1e-2  # one such cell moves a mask's mean by up to this


@dataclass(frozen=True)
class Sequence:
    """Frames that one network runs: their variant and sizes, and whether a scene starts without an ego delta."""

    variant: int
    size: str
    bev_size: int
    zeroed: bool


def compare(folder: Path) -> Iterator[Comparison]:
    """The network's keys, then all frame files of `folder`."""
    if (folder / "perception_keys.txt").is_file():
        yield compare_keys(folder)
    sequences: dict[Sequence, dict[int, list[Path]]] = {}
    for path in sorted(folder.glob("frame*_variant*.npz")):
        index, sequence = _sequence_of(path, folder)
        sequences.setdefault(sequence, {}).setdefault(index, []).append(path)
    for sequence, files in sequences.items():
        yield from _compare_sequence(folder, sequence, files)


def compare_keys(folder: Path) -> Comparison:
    """Names, shapes, types and kinds of the published checkpoint's entries against those of the network."""
    with torch.device("meta"):
        network = PerceptionNetwork(PerceptionConfig())
    parameters = {name for name, _ in network.named_parameters()}
    actual: set[tuple[str, ...]] = {
        (name, str(list(tensor.shape)), str(tensor.dtype).removeprefix("torch."), _kind(name, parameters))
        for name, tensor in network.state_dict().items()
    }
    expected = {tuple(row) for row in published_keys(folder)}
    missing, unexpected = sorted(expected - actual), sorted(actual - expected)
    detail = f"missing {missing[:3]}, unexpected {unexpected[:3]}" if missing or unexpected else ""
    return Comparison("perception_keys", f"{len(expected)} keys", len(missing) + len(unexpected), 0.0, detail)


def published_keys(folder: Path) -> list[list[str]]:
    """Name, shape, type and kind of each entry in perception_keys.txt."""
    lines = (folder / "perception_keys.txt").read_text().splitlines()
    return [line.split("\t") for line in lines if line and not line.startswith("#")]


def fill(network: nn.Module, weights: ModuleType, variant: int) -> None:
    """Loads generated weights strictly; entries that the generator refuses keep their constructed values."""
    state = network.state_dict()
    for name, tensor in state.items():
        if not weights.is_constant(name):
            state[name] = torch.from_numpy(weights.generate(name, tensor.shape, variant))
    network.load_state_dict(state, strict=True)


def build(folder: Path, sequence: Sequence) -> PerceptionNetwork:
    """The published network at the sequence's sizes, with its weights."""
    height, width, _, _ = load_module(folder / "inputs.py").SIZES[sequence.size]
    config = PerceptionConfig(
        image_size=(width, height),
        bev_size=sequence.bev_size,
        quirks=replace(PublishedQuirks.as_evaluated(), first_frame_delta=not sequence.zeroed),
    )
    network = PerceptionNetwork(config).eval()
    fill(network, load_module(folder / "weights.py"), sequence.variant)
    return network


def frame_input(generated: Mapping[str, Any], config: PerceptionConfig) -> PerceptionFrame:
    """A generated frame as the network takes it, its pictures through this package's own preprocessing."""
    return PerceptionFrame(
        images=preprocess(list(generated["images_u8"]), config),
        lidar_to_image=torch.from_numpy(generated["lidar2img"]),
        can_bus=torch.from_numpy(generated["can_bus"]),
        lidar_to_global_rotation=torch.from_numpy(generated["l2g_r"]),
        lidar_to_global_translation=torch.from_numpy(generated["l2g_t"]),
        timestamp_s=float(generated["timestamp"]),
    )


def _kind(name: str, parameters: set[str]) -> str:
    return "param" if name in parameters else "buffer"


def _sequence_of(path: Path, folder: Path) -> tuple[int, Sequence]:
    match = FILE_NAME.fullmatch(path.name)
    if match is None:
        raise ValueError(f"{path.name} is not named frameI_variantV.npz, with or without _zeroed: rename it")
    index, variant, zeroed = int(match[1]), int(match[2]), "zeroed" in (match[3] or "")
    with np.load(path) as stored:
        stage, queries = stored_shape(stored, "backbone.c3"), stored_shape(stored, "bev.query_in")
    if stage is None or queries is None:
        raise ValueError(f"{path.name} holds no backbone.c3 or no bev.query_in, so its sizes are unknown")
    sizes = load_module(folder / "inputs.py").SIZES
    size = next((name for name, (*_, height, width) in sizes.items() if (height // 8, width // 8) == stage[2:]), None)
    if size is None:
        raise ValueError(f"{path.name} has pictures of 8 x {stage[2:]} pixels, inputs.py knows only {sizes}")
    return index, Sequence(variant, size, math.isqrt(queries[0]), zeroed)


def _compare_sequence(folder: Path, sequence: Sequence, files: Mapping[int, list[Path]]) -> Iterator[Comparison]:
    generate = load_module(folder / "inputs.py").frame
    network = build(folder, sequence)
    trace = Trace(network)
    scene = None
    for index in range(max(files) + 1):
        generated = generate(index, sequence.variant, sequence.size)
        if scene not in (None, generated["scene_token"]):
            network.reset()
        scene = generated["scene_token"]
        frame = frame_input(generated, network.config)
        values = trace.run(frame)
        for path in files.get(index, []):
            yield compare_arrays("preprocess", path.stem, frame.images, generated["img"])
            with np.load(path) as stored:
                yield from compare_frame(folder, path.stem, values, dict(stored))


def compare_frame(
    folder: Path, file: str, values: Mapping[str, Any], stored: Mapping[str, np.ndarray]
) -> Iterator[Comparison]:
    """Every array of one file against the value of that name; a name that has no value fails."""
    flipped = 0
    names = sorted(dict.fromkeys(key.split("__")[0] for key in stored), key=lambda name: name != "seg.masks")
    for key in names:
        group, name = re.sub(r"\d+(?=_|$)", "*", key), f"{file} {key}"
        limit = TIGHT_LIMIT if key.startswith(TIGHT_GROUPS) else LIMIT
        tensor = partial(compare_tensor, group, name, folder=folder, stored=stored, key=key)
        if key not in values:
            yield Comparison(group, name, float("inf"), limit, "nothing to compare it with")
            continue
        actual = values[key]
        if key == "seg.masks":
            comparison = tensor(actual, limit=MASK_BITS_LIMIT)
            flipped = round(comparison.deviation * actual.numel()) if comparison.passed else 0
            yield comparison
        elif key in ("seg.lane", "seg.drivable"):  # painted from the masks: as many cells may differ as in these
            yield tensor(actual, limit=flipped / actual.numel())
        elif key == "seg.rank_score":
            yield tensor(actual, limit=RANK_SCORE_LIMIT)
        elif key in ("seg.rank_to_top", "seg.rank_label"):
            yield _compare_ranks(group, name, actual, stored[key], stored["seg.rank_score"])
        elif key == "bev.points_in_image":
            yield _compare_visible(folder, group, name, values, stored, limit)
        elif f"{key}__bits" in stored:
            yield tensor(actual, limit=0.0)
        elif key in stored and stored[key].dtype.kind in "iub":
            yield compare_exact(group, name, actual, stored[key])
        else:
            yield tensor(actual, limit=limit)


def _compare_ranks(group: str, name: str, actual: Any, expected: np.ndarray, scores: np.ndarray) -> Comparison:
    """Ranks whose scores are equal (empty masks) may come in any order: each such run is compared as a set."""
    actual = np.array(actual)
    if actual.shape != expected.shape:
        return compare_exact(group, name, actual, expected)
    runs = np.cumsum(np.concatenate([[0], np.diff(scores) != 0]))
    return compare_exact(group, name, actual[np.lexsort((actual, runs))], expected[np.lexsort((expected, runs))])


def _compare_visible(
    folder: Path,
    group: str,
    name: str,
    values: Mapping[str, Any],
    stored: Mapping[str, np.ndarray],
    limit: float,
) -> Comparison:
    """Visible points only: others reach millions, because their depth is clamped to almost zero."""
    points: Tensor = values["bev.points_in_image"]
    if tuple(points.shape) != stored_shape(stored, "bev.points_in_image"):
        return Comparison(group, name, float("inf"), limit, f"shape {tuple(points.shape)}")
    visible = values["bev.point_visible"].unsqueeze(-1).expand_as(points).flatten().numpy()
    flat = points.flatten().numpy()
    if "bev.points_in_image" in stored:
        return compare_arrays(group, name, flat[visible], stored["bev.points_in_image"].ravel()[visible], limit=limit)
    places = load_module(folder / "inputs.py").sample_indices(flat.size)
    seen = visible[places]
    return compare_arrays(group, name, flat[places][seen], stored["bev.points_in_image__sample"][seen], limit=limit)


class Trace:
    """Runs a network frame by frame and collects its tensors under their reference names."""

    def __init__(self, network: PerceptionNetwork) -> None:
        self._network = network
        self._seen: dict[str, Any] = {}
        head, tracker = network.pts_bbox_head, network.tracker
        transformer = head.transformer
        first: Any = transformer.encoder.layers[0]
        modules: dict[str, nn.Module] = {
            "backbone": network.img_backbone,
            "neck": network.img_neck,
            "transformer": transformer,
            "can_bus_mlp": transformer.can_bus_mlp,
            "encoder": transformer.encoder,
            "temporal": first.attentions[0],
            "norm0": first.norms[0],
            "norm1": first.norms[1],
            "memory": network.memory_bank,
            "interaction": network.query_interact,
            "map": network.seg_head,
        }
        modules |= {f"encoder{i}": layer for i, layer in enumerate(transformer.encoder.layers)}
        modules |= {f"things{i}": block for i, block in enumerate(network.seg_head.things_mask_head.blocks)}
        modules |= {f"stuff{i}": block for i, block in enumerate(network.seg_head.stuff_mask_head.blocks)}
        for name, module in modules.items():
            module.register_forward_hook(partial(self._record_module, name))
        tracker.begin = self._recorded("begin", tracker.begin)  # type: ignore[method-assign]
        tracker.update = self._recorded("update", tracker.update)  # type: ignore[method-assign]
        head.decode = self._recorded("decode", head.decode)  # type: ignore[method-assign]

    def run(self, frame: PerceptionFrame) -> dict[str, Any]:
        """The network's answer to a frame, tensor by tensor."""
        self._seen.clear()
        with torch.no_grad():
            output = self._network(frame)
            return {
                **self._image_values(),
                **self._track_values(output),
                **self._map_values(),
                "tokens.scene": output.scene_tokens,
                "tokens.agent": output.agent_tokens,
                "tokens.map": output.map_tokens,
            }

    def _record_module(self, name: str, _module: nn.Module, inputs: Any, output: Any) -> None:
        self._seen[f"{name}.in"], self._seen[name] = inputs, output

    def _recorded(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._seen[name] = method(*args, **kwargs)
            return self._seen[name]

        return call

    def _image_values(self) -> dict[str, Any]:
        seen = self._seen
        _, positions, _, _, can_bus, _ = seen["transformer.in"]
        queries, _, _, _, pillars, shift, rotated = seen["encoder.in"]
        values = {
            **{f"backbone.c{stage + 3}": tensor for stage, tensor in enumerate(seen["backbone"])},
            **{f"fpn.{level}": tensor for level, tensor in enumerate(seen["neck"])},
            "bev.can_bus_used": can_bus,
            "bev.can_bus_embedding": seen["can_bus_mlp"],
            "bev.query_in": queries[:, None],
            "bev.pos": positions[:, None],
            "bev.shift": shift[None],
            "bev.ref_2d": seen["temporal.in"][3][:, :, None],
            "bev.points_in_image": pillars.points[:, None],
            "bev.point_visible": pillars.visible[:, None],
            "bev.layer0_temporal": seen["norm0.in"][0][None],
            "bev.layer0_spatial": seen["norm1.in"][0][None],
        }
        values |= {
            f"bev.layer{number}": seen[f"encoder{number}"][None]
            for number in range(self._network.config.encoder_layers)
        }
        if rotated is not None:
            values["bev.prev_rotated"] = rotated
        return values

    def _track_values(self, output: PerceptionOutput) -> dict[str, Any]:
        seen, network = self._seen, self._network
        before, decoding, after = seen["begin"], seen["decode"], seen["update"]
        memory_before, memory_after, carried = seen["memory.in"][0], seen["memory"], seen["interaction"]
        ego = slice(network.config.queries, network.config.queries + 1)
        values = {f"track.hidden{number}": tensor for number, tensor in enumerate(decoding.hidden)}
        values |= {f"track.ref{number}": tensor for number, tensor in enumerate(decoding.references)}
        return values | {
            "track.query_in": before.query,
            "track.ref_in": before.reference,
            "track.ids_before": before.ids,
            "track.asleep_before": before.missed,
            "track.logits": decoding.logits,
            "track.boxes_raw": decoding.boxes,
            "track.past_traj": network.pts_bbox_head.trajectories(decoding.hidden[-1]),
            "track.last_ref": decoding.last_reference,
            "track.scores": after.scores,
            "track.ids_after": after.ids,
            "track.asleep_after": after.missed,
            "active.ids": output.tracks.ids,
            "active.scores": output.tracks.scores,
            "active.labels": output.tracks.labels,
            "active.boxes": output.tracks.boxes,
            "ego.box": decode_boxes(after.boxes[ego]),
            "ego.score": after.scores[ego],
            "memory.bank_before": memory_before.memory,
            "memory.empty_before": memory_before.memory_empty,
            "memory.save_period_before": memory_before.save_period,
            "memory.embedding_after": memory_after.embedding,
            "memory.bank_after": memory_after.memory,
            "memory.empty_after": memory_after.memory_empty,
            "memory.save_period_after": memory_after.save_period,
            "carried.query": carried.query,
            "carried.ref_pts": carried.reference,
            "carried.output_embedding": carried.embedding,
            "carried.obj_idxes": carried.ids,
            "carried.disappear_time": carried.missed,
            "carried.scores": carried.scores,
            "carried.pred_boxes": carried.boxes,
            "carried.mem_bank": carried.memory,
            "carried.mem_padding_mask": carried.memory_empty,
            "carried.save_period": carried.save_period,
            "carried.count": len(carried),
        }

    def _map_values(self) -> dict[str, Any]:
        seen, head, config = self._seen, self._network.seg_head, self._network.config
        decoding, size = seen["map"], config.bev_size
        # the network sends each query once through the mask head, though it may be a candidate for several labels
        _, candidate = decoding.top_query.unique(return_inverse=True)
        centre, extent = decoding.references[-1][decoding.top_query].split(2, 1)
        corners = (torch.cat([centre - extent / 2, centre + extent / 2], 1) * size).clamp(0, size)
        masks = torch.cat([decoding.thing_masks, decoding.stuff_mask[None]])
        values = {f"seg.hidden{number}": tensor for number, tensor in enumerate(decoding.hidden)}
        values |= {f"seg.ref{number}": tensor for number, tensor in enumerate(decoding.references[1:])}
        values |= {
            f"seg.things_block{number}": seen[f"things{number}"][candidate] for number in range(config.thing_blocks)
        }
        values |= {f"seg.stuff_block{number}": seen[f"stuff{number}"] for number in range(config.stuff_blocks)}
        return values | {
            "seg.pos_table": sine_positions(size, size, config.embed_dim // 2)[None],
            "seg.memory": decoding.memory,
            "seg.ref_init": decoding.references[0],
            "seg.logits": decoding.logits,
            "seg.boxes": decoding.references[-1],
            "seg.top_query": decoding.top_query,
            "seg.top_label": decoding.top_label,
            "seg.top_boxes": torch.cat([corners, decoding.top_score[:, None]], 1),
            "seg.things": decoding.things,
            "seg.stuff": decoding.stuff,
            "seg.masks_raw": masks,
            "seg.masks": masks > IN_MASK,
            "seg.rank_to_top": decoding.rank_to_top,
            "seg.rank_score": decoding.rank_score,
            "seg.rank_label": decoding.top_label[decoding.rank_to_top],
            "seg.accepted_ranks": decoding.accepted_ranks,
            "seg.lane": decoding.result.lane,
            "seg.drivable": decoding.result.drivable,
            "seg.stuff_class_score": head.cls_stuff_branches[-1](decoding.stuff)[0].sigmoid(),
        }
