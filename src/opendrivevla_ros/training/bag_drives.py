"""Drives from bags that a driver recorded: what a policy takes of them, in a store of stretches."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from opendrivevla_ros.core.plan import PlanError
from opendrivevla_ros.core.rig import CameraRig
from opendrivevla_ros.datasets.bag_samples import bag_samples
from opendrivevla_ros.datasets.bag_topics import find_input_topics
from opendrivevla_ros.datasets.bags import BagReader
from opendrivevla_ros.datasets.drive_store import DriveStore, StoredSample
from opendrivevla_ros.datasets.driving_samples import DrivingSample
from opendrivevla_ros.language.prompt import InstructionError, checked_text
from opendrivevla_ros.policies.checks import check_observation, check_rig
from opendrivevla_ros.policies.opendrivevla.config import OpenDriveVlaConfig
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.scene_drives import stretches, write_stretch


@dataclass(frozen=True)
class Recording:
    """A bag, the cameras of its vehicle, and its topics by input where they are not found by type and name."""

    path: Path
    rig: CameraRig
    topic_map: Mapping[str, str] | None = None


def describe(recording: Recording) -> str:
    """What tells a recording from others, wherever it lies: name, length, and how it is read.

    Raises BagError for a bag that cannot be read.
    """
    rig = recording.rig
    with BagReader(recording.path) as bag:
        topics = find_input_topics(bag, recording.topic_map).by_input
        digest = hashlib.sha256(repr(sorted((name, topic.name) for name, topic in topics.items())).encode())
        for camera in rig.cameras:
            digest.update(repr((camera.name, camera.width, camera.height)).encode())
        for matrix in (rig.lidar_to_base, *(m for c in rig.cameras for m in (c.intrinsics, c.camera_to_base))):
            digest.update(np.asarray(matrix, dtype=np.float64).tobytes())
        return (
            f"{bag.path.stem} ({bag.duration_s:.1f} s from {bag.start_ns} ns, topics and rig {digest.hexdigest()[:8]})"
        )


def check_different(recordings: Sequence[Recording], descriptions: Sequence[str]) -> None:
    """Raises TrainingError for a recording that is there twice: it would count twice."""
    known: dict[str, Path] = {}
    for recording, description in zip(recordings, descriptions, strict=True):
        if description in known:
            raise TrainingError(f"{known[description]} and {recording.path} are the same recording; give it once")
        known[description] = recording.path


def store_bag(
    recording: Recording, store: DriveStore, config: OpenDriveVlaConfig, *, prefix: str, warnings: list[str]
) -> Iterator[float]:
    """Puts what a policy of this configuration takes of a bag into a store; yields the share that is in.

    prefix: of the drives' names, so that bags of one name stay apart. warnings: gets a sentence for what is left out.
    Raises BagError for a bag that gives no sample, TrainingError where the policy would refuse all of them,
    DatasetError for a full disk.
    """
    refused: list[str] = []

    def taken(bag: BagReader) -> Iterator[StoredSample]:
        inputs = find_input_topics(bag, recording.topic_map)
        for sample in bag_samples(bag, inputs, recording.rig, image_size=config.perception.image_size):
            reason = _refusal(sample, config)
            if reason is None:
                yield StoredSample(replace(sample, scene=f"{prefix}-{sample.scene}"))
            else:
                refused.append(reason)

    there = {name.rsplit("-", 1)[0] for name in store.names}
    stretch: list[StoredSample] = []
    with BagReader(recording.path) as bag:
        for stretch in stretches(taken(bag)):
            write_stretch(store, stretch, there)
            read_ns = stretch[-1].sample.observation.stamp_ns - bag.start_ns
            yield min(max(read_ns / max(bag.end_ns - bag.start_ns, 1), 0.0), 1.0)
        warnings += bag.warnings
    if not stretch:
        raise TrainingError(
            f"{recording.path} gives no sample that the policy takes ({len(refused)} refused, first: {refused[0]})"
        )
    if refused:
        warnings.append(f"samples of {recording.path} left out: {len(refused)}, the first because {refused[0]}")
    yield 1.0


def _refusal(sample: DrivingSample, config: OpenDriveVlaConfig) -> str | None:
    """Why the policy would not plan from a sample; what it never sees, it need not learn."""
    observation = sample.observation
    try:
        check_rig(observation.rig, np.array(config.lidar_to_base))
        check_observation(observation, config.perception.image_size)
        checked_text(observation.command.text, "instruction")
    except (PlanError, InstructionError) as error:
        return str(error)
    return None
