"""What the language stages read of stored drives, kept on disk: what a trained perception sees, or the truth.

A file has the samples of a stretch: one long tensor of each type, and in its header what is said and where in them
each number of it stands. As thousands of tensors, they took four times as long to read.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from opendrivevla_ros.core.workers import worked
from opendrivevla_ros.datasets.drive_store import DriveStore, StoredSample
from opendrivevla_ros.language.model import Features
from opendrivevla_ros.perception.config import PerceptionConfig
from opendrivevla_ros.perception.network import PerceptionNetwork, PerceptionOutput
from opendrivevla_ros.policies.opendrivevla.config import OpenDriveVlaConfig
from opendrivevla_ros.policies.opendrivevla.perception_input import perception_frame, scene_origin
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.labels import PlanLabel
from opendrivevla_ros.training.language_samples import SpokenSample, spoken, true_features
from opendrivevla_ros.training.text_tasks import TextTask
from opendrivevla_ros.training.whole_files import reading, seen_by, writing

SUFFIX = ".safetensors"
Place = list[Any] | None  # of a tensor: its type, where it begins in the long one, its shape; None for no tensor


def see_drives(
    store: DriveStore,
    folder: Path,
    config: OpenDriveVlaConfig,
    weights: Mapping[str, Tensor] | None,
    *,
    processes: int,
) -> Iterator[float]:
    """Writes the tokens of all stretches, seen as on a vehicle: tracks live and die by their scores.

    weights: of the perception; None for the truth (`language_samples.true_features`) in place of tokens. Yields the
    share that is done; stretches that are there are kept, but for those that other weights have seen.
    """
    weights_file = None if weights is None else seen_by(folder, weights)
    folder.mkdir(parents=True, exist_ok=True)
    left = [index for index, name in enumerate(store.names) if not _file(folder, name).exists()]
    count = max(len(store.names), 1)
    yield 1 - len(left) / count
    tasks = [(store.folder, index, folder, config, weights_file) for index in left]
    seen = worked(_see, tasks, processes=processes, begin=torch.set_num_threads, given=(1,))
    for done, _ in enumerate(seen, start=1):
        yield 1 - (len(left) - done) / count


def load_tokens(folder: Path) -> list[SpokenSample]:
    """All samples of a folder, in order; features are in half precision.

    Raises TrainingError where there are none, and for a broken file.
    """
    parts = sorted(folder.glob(f"*{SUFFIX}"))
    if not parts:
        raise TrainingError(f"{folder} holds no drives that were seen; look at them first")
    return [sample for path in parts for sample in _load(path)]


def see(network: PerceptionNetwork, config: OpenDriveVlaConfig, stretch: Sequence[StoredSample]) -> list[SpokenSample]:
    """The samples of a stretch, with the tokens that the network gives, frame after frame."""
    origin = scene_origin(stretch[0].sample.observation)
    network.reset()
    return [
        seen_sample(stored, network(perception_frame(stored.sample.observation, network.config, origin)), config)
        for stored in stretch
    ]


def seen_sample(stored: StoredSample, output: PerceptionOutput, config: OpenDriveVlaConfig) -> SpokenSample:
    """A sample with the tokens that perception gave for it."""
    features = Features(output.scene_tokens, output.agent_tokens, output.map_tokens)
    ahead = None if output.ahead is None else output.ahead.half()
    return replace(spoken(stored, features, config), ahead=ahead)


@torch.inference_mode()
def _see(drives: Path, index: int, folder: Path, config: OpenDriveVlaConfig, weights_file: Path | None) -> None:
    store = DriveStore(drives)
    if weights_file is None:
        stretch = store.read(index, cameras=())
        samples = [spoken(one, true_features(one, config.perception), config) for one in stretch]
    else:
        samples = see(_network(config.perception, weights_file), config, store.read(index))
    save_tokens(samples, folder, store.names[index])


@cache
def _network(config: PerceptionConfig, weights_file: Path) -> PerceptionNetwork:
    network = PerceptionNetwork(config)
    network.load_state_dict(torch.load(weights_file, weights_only=True))
    return network.eval()


def save_tokens(samples: Sequence[SpokenSample], folder: Path, name: str) -> None:
    """Writes the samples of the stretch of that name; features in half precision.

    Raises TrainingError where they cannot be written.
    """
    pieces: dict[str, list[Tensor]] = defaultdict(list)
    lengths: Counter[str] = Counter()

    def keep(tensor: Tensor | None) -> Place:
        if tensor is None:
            return None
        kind = str(tensor.dtype)
        place = [kind, lengths[kind], list(tensor.shape)]
        pieces[kind].append(tensor.reshape(-1))
        lengths[kind] += tensor.numel()
        return place

    rows = [
        {
            "scene": one.scene,
            "features": [keep(None if block is None else block.half()) for block in vars(one.features).values()],
            "tasks": [list(vars(task).values()) for task in one.tasks],
            "departure": one.departure,
            "plan": None if one.plan is None else [keep(numbers) for numbers in vars(one.plan).values()],
            "ahead": keep(one.ahead),
        }
        for one in samples
    ]
    long = {kind: torch.cat(some) for kind, some in pieces.items()}
    with writing(_file(folder, name), "what was seen") as temporary:
        save_file(long, temporary, metadata={"samples": json.dumps(rows)})


def _load(path: Path) -> Iterator[SpokenSample]:
    remedy = "delete it and run the same command again, which looks at those drives anew"
    with reading(path, "file of what was seen", remedy), safe_open(path, framework="pt") as file:
        long = {kind: file.get_tensor(kind) for kind in file.keys()}  # noqa: SIM118
        rows = json.loads(file.metadata()["samples"])

    def kept(place: Place) -> Any:
        if place is None:
            return None
        kind, start, shape = place
        return long[kind][start : start + prod(shape)].view(shape)

    for row in rows:
        features = Features(*map(kept, row["features"]))
        tasks = tuple(TextTask(*task) for task in row["tasks"])
        plan = None if row["plan"] is None else PlanLabel(*map(kept, row["plan"]))
        yield SpokenSample(row["scene"], features, tasks, row["departure"], plan, kept(row["ahead"]))


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}{SUFFIX}"
