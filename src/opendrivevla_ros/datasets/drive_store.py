"""Samples kept on disk between the stages of a training: one file a stretch of a drive, its pictures as JPEG.

A store is a cache that one training writes and reads; it is made with pickle, so read only what you wrote yourself.
"""

import os
import pickle
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from opendrivevla_ros.datasets.driving_samples import DrivingSample
from opendrivevla_ros.datasets.nuscenes_tables import DatasetError

JPEG_QUALITY = 95
SUFFIX = ".drive"


@dataclass(frozen=True)
class Words:
    """What is said about a sample: captions and answers, each as (kind, question, answer)."""

    captions: tuple[tuple[str, str, str], ...] = ()
    questions: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class StoredSample:
    """A sample and its words."""

    sample: DrivingSample
    words: Words = Words()


class DriveStore:
    """The stretches in a folder, by name; each holds consecutive samples, the first of index 0."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.names = sorted(path.name.removesuffix(SUFFIX) for path in folder.glob(f"*{SUFFIX}"))
        self.lengths = [int(name.rsplit("-", 1)[1]) for name in self.names]

    def write(self, name: str, samples: Sequence[StoredSample]) -> str:
        """Adds a stretch, whole or not at all; returns its name in `names`. Raises DatasetError if it cannot."""
        stored_name = f"{name}-{len(samples)}"
        path = self.folder / f"{stored_name}{SUFFIX}"
        temporary = path.with_suffix(f".{os.getpid()}.tmp")  # two may draw the same drive at the same time
        try:
            temporary.write_bytes(pickle.dumps([_packed(stored) for stored in samples], protocol=5))
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise DatasetError(
                f"the drive {name} cannot be written to {self.folder} ({error.strerror or error}); free disk space"
            ) from error
        return stored_name

    def read(
        self, index: int, start: int = 0, stop: int | None = None, *, cameras: Collection[str] | None = None
    ) -> list[StoredSample]:
        """The samples [start, stop) of a stretch, with the frames of these cameras alone; None for all of them.

        Raises DatasetError for a file that cannot be read.
        """
        path = self._path(index)
        try:
            packed = pickle.loads(path.read_bytes())[start:stop]
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            raise DatasetError(f"{path} is no whole drive; delete it and draw it anew") from error
        return [_unpacked(stored, cameras) for stored in packed]

    def content(self, index: int) -> bytes:
        """A stretch as it stands on disk."""
        return self._path(index).read_bytes()

    def _path(self, index: int) -> Path:
        return self.folder / f"{self.names[index]}{SUFFIX}"


def _packed(stored: StoredSample) -> StoredSample:
    observation = stored.sample.observation
    frames = []
    for frame in observation.frames:
        _, data = cv2.imencode(".jpg", frame.image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        frames.append(replace(frame, image=data))
    return _with_frames(stored, tuple(frames))


def _unpacked(stored: StoredSample, cameras: Collection[str] | None) -> StoredSample:
    frames = tuple(
        replace(frame, image=np.asarray(cv2.imdecode(frame.image, cv2.IMREAD_COLOR), dtype=np.uint8))
        for frame in stored.sample.observation.frames
        if cameras is None or frame.camera in cameras
    )
    return _with_frames(stored, frames)


def _with_frames(stored: StoredSample, frames: tuple) -> StoredSample:
    observation = replace(stored.sample.observation, frames=frames)
    return replace(stored, sample=replace(stored.sample, observation=observation))
