"""What the language stages read of stored drives, kept on disk: what a trained perception sees, or the truth.

A file has one long tensor of each type, and in its header what is said and where in them each number of it stands:
as thousands of tensors, they took four times as long to read.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from math import prod
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from opendrivevla_ros.datasets.drive_store import DriveStore, StoredSample
from opendrivevla_ros.language.model import Features
from opendrivevla_ros.perception.network import PerceptionNetwork
from opendrivevla_ros.policies.opendrivevla.config import OpenDriveVlaConfig
from opendrivevla_ros.policies.opendrivevla.perception_input import perception_frame, scene_origin
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.labels import PlanLabel
from opendrivevla_ros.training.language_samples import SpokenSample, spoken, true_features
from opendrivevla_ros.training.text_tasks import TextTask

SUFFIX = ".safetensors"
PART = 24  # stretches of one file
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
    share that is done; parts that are there are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights_file = None
    if weights is not None:
        torch.save(dict(weights), weights_file := folder / "perception.weights")
    starts = range(0, len(store.names), PART)
    left = [start for start in starts if not _file(folder, store, start).exists()]
    yield 1 - len(left) / max(len(starts), 1)
    with ProcessPoolExecutor(processes, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        jobs = [pool.submit(_see, store.folder, start, folder, config, weights_file) for start in left]
        for count, job in enumerate(jobs, start=1):
            job.result()
            yield 1 - (len(left) - count) / len(starts)


def load_tokens(folder: Path) -> list[SpokenSample]:
    """All samples of a folder, in order; features are in half precision. Raises TrainingError where there are none."""
    parts = sorted(folder.glob(f"*{SUFFIX}"))
    if not parts:
        raise TrainingError(f"{folder} holds no drives that were seen; look at them first")
    return [sample for path in parts for sample in _load(path)]


def see(network: PerceptionNetwork, config: OpenDriveVlaConfig, stretch: Sequence[StoredSample]) -> list[SpokenSample]:
    """The samples of a stretch, with the tokens that the network gives, frame after frame."""
    origin = scene_origin(stretch[0].sample.observation)
    network.reset()
    found = []
    for stored in stretch:
        output = network(perception_frame(stored.sample.observation, network.config, origin))
        features = Features(output.scene_tokens, output.agent_tokens, output.map_tokens)
        ahead = None if output.ahead is None else output.ahead.half()
        found.append(replace(spoken(stored, features, config), ahead=ahead))
    return found


@torch.inference_mode()
def _see(drives: Path, start: int, folder: Path, config: OpenDriveVlaConfig, weights_file: Path | None) -> None:
    store = DriveStore(drives)
    indices = range(start, min(start + PART, len(store.names)))
    if weights_file is None:
        stretches = (store.read(index, cameras=()) for index in indices)
        samples = [spoken(one, true_features(one, config.perception), config) for some in stretches for one in some]
    else:
        network = PerceptionNetwork(config.perception)
        network.load_state_dict(torch.load(weights_file, weights_only=True))
        network.eval()
        samples = [one for index in indices for one in see(network, config, store.read(index))]
    _save(samples, _file(folder, store, start))


def _save(samples: Sequence[SpokenSample], path: Path) -> None:
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
    temporary = path.with_suffix(".tmp")
    long = {kind: torch.cat(some) for kind, some in pieces.items()}
    save_file(long, temporary, metadata={"samples": json.dumps(rows)})
    temporary.replace(path)


def _load(path: Path) -> Iterator[SpokenSample]:
    with safe_open(path, framework="pt") as file:
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


def _file(folder: Path, store: DriveStore, start: int) -> Path:
    return folder / f"{store.names[start]}{SUFFIX}"
