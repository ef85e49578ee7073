"""Examples of plans: what the policy reads at a moment of a stored drive, and what is to be said there."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.datasets.drive_store import DriveStore, StoredSample
from opendrivevla_ros.datasets.driving_samples import DrivingSample
from opendrivevla_ros.language.action_tokens import ActionTokens
from opendrivevla_ros.policies.autovla.config import ACTIONS_PER_PLAN, AutoVlaConfig
from opendrivevla_ros.policies.autovla.reading import Memory, PromptReader
from opendrivevla_ros.training.autovla.known_way import known_way
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.thoughts import needs_thought, thought_of

LEAST_ACTIONS = 6  # that must be known of a plan: 3 s


@dataclass(frozen=True)
class PlanExample:
    """A moment to plan at.

    ids: of the prompt. videos: patches, as `PromptReader.videos` gives them. actions: of the way that was driven, in
    the codebook, LEAST_ACTIONS to ACTIONS_PER_PLAN of them. thought: before them; None where the answer is fast.
    sample: the moment itself, without its pictures. seed: of what is drawn at it.
    """

    ids: Sequence[int]
    videos: Tensor
    actions: Sequence[int]
    thought: str | None
    sample: StoredSample
    seed: int = 0

    def to(self, device: torch.device | str) -> "PlanExample":
        """The same on a device."""
        return replace(self, videos=self.videos.to(device))


@dataclass(frozen=True)
class Place:
    """A stored sample, and where it is stored."""

    store: int
    stretch: int
    offset: int
    sample: DrivingSample
    thought: str | None


@dataclass(frozen=True)
class _Moment:
    """A place with those before it that its videos may show, and what is to be said.

    token: of its sample. stretches: (store, stretch, first, stop) of the samples, its own last. way: see `known_way`.
    """

    token: str
    stretches: tuple[tuple[int, int, int, int], ...]
    way: Array
    thought: str | None


class PlanExamples(Dataset[PlanExample]):
    """The moments of stores whose way is known for 3 s and more, each with the pictures that the policy would have.

    They are read with the policy's own `PromptReader`. A moment is slow where it needs a thought (`needs_thought`) and
    its words make one, and, of sources without labels of agents, wherever they make one. draws: examples that are
    wanted, each with a seed of its own: all moments come as often as that takes, and at least once.

    Raises TrainingError where no way, or none of five seconds, is known, for a way that is not finite, and at a moment
    without pictures; DatasetError for a store that is broken.
    """

    def __init__(
        self,
        stores: Sequence[DriveStore],
        config: AutoVlaConfig,
        tokenizer: Any,
        actions: ActionTokens,
        *,
        draws: int = 0,
    ) -> None:
        self._stores, self._codebook = tuple(stores), actions.codebook
        self._reader = PromptReader(config, tokenizer)
        self._moments = [
            moment
            for number, store in enumerate(self._stores)
            for scene in scenes(number, store)
            for moment in _moments(scene, config.frames)
        ]
        where = ", ".join(str(store.folder) for store in self._stores)
        if not any(len(moment.way) == ACTIONS_PER_PLAN for moment in self._moments):
            raise TrainingError(
                f"none of {len(self._moments)} moments in {where} is followed by 5 s of known motion, which a plan"
                " has; draw or record longer drives"
            )
        self._rounds = max(math.ceil(draws / len(self._moments)), 1)

    def __len__(self) -> int:
        return len(self._moments) * self._rounds

    @property
    def tokens(self) -> tuple[str, ...]:
        """The samples' tokens, in the order of one round."""
        return tuple(moment.token for moment in self._moments)

    def __getitem__(self, index: int) -> PlanExample:
        moment = self._moments[index % len(self._moments)]
        memory = Memory()
        for store, stretch, first, stop in moment.stretches:
            for stored in self._stores[store].read(stretch, first, stop, cameras=self._reader.config.cameras):
                memory = self._reader.followed(memory, stored.sample.observation)
        if lacking := [camera for camera in self._reader.config.cameras if camera not in memory.pictures]:
            raise TrainingError(f"{moment.token} has no picture of {lacking[0]}; draw or record drives with pictures")
        observation = stored.sample.observation
        blind = replace(stored.sample, observation=replace(observation, frames=()))
        return PlanExample(
            ids=self._reader.tokens(self._reader.plan_prompt(observation)),
            videos=self._reader.videos(memory),
            actions=tuple(int(action) for action in self._codebook.encode(moment.way)),
            thought=moment.thought,
            sample=replace(stored, sample=blind),
            seed=index,
        )


def scenes(number: int, store: DriveStore) -> Iterator[list[Place]]:
    """The samples of each scene of store `number` in the order of time, without their pictures."""
    places = [
        Place(number, stretch, offset, stored.sample, _thought(stored))
        for stretch in range(len(store.names))
        for offset, stored in enumerate(store.read(stretch, cameras=()))
    ]
    places.sort(key=lambda place: (place.sample.scene, place.sample.observation.stamp_ns))
    for _, scene in groupby(places, key=lambda place: place.sample.scene):
        yield list(scene)


def _thought(stored: StoredSample) -> str | None:
    unlabelled = stored.sample.agents is None
    return thought_of(stored.words) if unlabelled or needs_thought(stored.sample) else None


def _moments(scene: Sequence[Place], frames: int) -> Iterator[_Moment]:
    for index, place in enumerate(scene):
        way = known_way([later.sample for later in scene[index : index + ACTIONS_PER_PLAN + 1]])
        if not np.isfinite(way).all():
            raise TrainingError(f"the way after {place.sample.token} is not finite; leave that drive out")
        if len(way) >= LEAST_ACTIONS:
            shown = groupby(scene[max(index + 1 - frames, 0) : index + 1], key=lambda one: (one.store, one.stretch))
            offsets = {key: [one.offset for one in group] for key, group in shown}
            yield _Moment(
                token=place.sample.token,
                stretches=tuple((*key, some[0], some[-1] + 1) for key, some in offsets.items()),
                way=way,
                thought=place.thought,
            )
