"""From driving samples to labelled frames: what the network sees of a moment, and everything that it should find."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from opendrivevla_ros.datasets.drive_store import DriveStore
from opendrivevla_ros.datasets.driving_samples import DrivingSample
from opendrivevla_ros.perception.config import PerceptionConfig
from opendrivevla_ros.policies.opendrivevla.frames import base_path_to_lidar
from opendrivevla_ros.policies.opendrivevla.perception_input import ego_numbers, perception_frame, scene_origin
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.labels import PlanLabel
from opendrivevla_ros.training.perception_step import LabelledFrame
from opendrivevla_ros.training.sample_labels import box_labels, map_labels


def labelled_frames(samples: Sequence[DrivingSample], config: PerceptionConfig) -> list[LabelledFrame]:
    """Samples of one scene, in a row, as the perception stage takes them.

    Raises TrainingError for a sample without labels, and for labels that the network cannot learn.
    """
    origin = scene_origin(samples[0].observation)
    found = []
    for sample in samples:
        if sample.agents is None or sample.map_elements is None:
            raise TrainingError(f"{sample.token} has no agents or no map; a recording without labels trains stage 3")
        mount = sample.observation.rig.lidar_to_base
        found.append(
            LabelledFrame(
                frame=perception_frame(sample.observation, config, origin),
                boxes=box_labels(sample.agents, mount, config),
                map_elements=map_labels(sample.map_elements, mount, config),
                plan=plan_label(sample),
            )
        )
    return found


def plan_label(sample: DrivingSample) -> PlanLabel:
    """What the ego did, in the lidar frame. Raises TrainingError for a future that is not finite."""
    if not np.isfinite(sample.future).all():
        raise TrainingError(f"the future of {sample.token} holds numbers that are not finite; leave the sample out")
    path = base_path_to_lidar(sample.future, sample.observation.rig.lidar_to_base)
    return PlanLabel(
        ego=ego_numbers(sample.observation.ego, sample.observation.command.command),
        path=torch.from_numpy(path).float(),
        known=torch.from_numpy(sample.future_mask),
    )


class Clips(Dataset[list[LabelledFrame]]):
    """Runs of `size` consecutive frames from a store of drives."""

    def __init__(self, store: DriveStore, config: PerceptionConfig, size: int) -> None:
        self._store, self._config, self._size = store, config, size
        self._places = clip_places(store, size)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> list[LabelledFrame]:
        stretch, start = self._places[index]
        stored = self._store.read(stretch, start, start + self._size)
        return labelled_frames([one.sample for one in stored], self._config)


def clip_places(store: DriveStore, size: int) -> list[tuple[int, int]]:
    """(stretch, first sample) of every run of `size` samples, without overlap."""
    return [
        (index, start) for index, length in enumerate(store.lengths) for start in range(0, length - size + 1, size)
    ]
