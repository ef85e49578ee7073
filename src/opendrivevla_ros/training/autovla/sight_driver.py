"""Who drives by what sight proposes, before the model has learned a word, and keeps the ground that it read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.policy import DrivingPolicy, PolicyInfo
from opendrivevla_ros.datasets.drive_store import StoredSample
from opendrivevla_ros.policies.autovla.sight import base_path, ego_of
from opendrivevla_ros.policies.baselines import WordlessPolicy
from opendrivevla_ros.training.autovla.proposals import GroundMoment, GroundReader, save_ground
from opendrivevla_ros.training.autovla.sight import sight_of
from opendrivevla_ros.training.frame_labels import plan_label


class SightPolicy(WordlessPolicy):
    """A tower, the ground that it shows, and the ego's query at the wheel, without words or actions.

    seen: the ground at each plan since the last reset.
    """

    info = PolicyInfo(model_id="sight", weights_hash="", trained=True, image_size=(1, 1))
    explanation = "This is a sight that plans without words."

    def __init__(self, reader: GroundReader) -> None:
        super().__init__()
        self._reader = reader
        self.reset()

    def reset(self) -> None:
        """Forgets what was seen."""
        self.seen: list[Tensor] = []
        self._reader.reset()

    @torch.inference_mode()
    def waypoints(self, observation: Observation) -> tuple[Array, Array | None]:
        """What sight proposes."""
        self._reader.follow(observation)
        ground = self._reader.ground()
        self.seen.append(ground)
        answer = sight_of(self._reader.model).proposed(ground[None], ego_of(observation)[None].to(ground))
        return base_path(answer.paths[0], observation), None


@dataclass(frozen=True)
class SightDriver:
    """A checkpoint's sight at the wheel. What it read of the ground is kept in `ground`."""

    checkpoint: Path
    ground: Path

    def policy(self) -> SightPolicy:
        """The policy. Raises CheckpointError."""
        return SightPolicy(GroundReader(self.checkpoint))

    def keep(self, policy: DrivingPolicy, found: Sequence[StoredSample], name: str) -> None:
        """Keeps the ground, as `proposals.write_ground` does: nobody needs to look at that drive again."""
        assert isinstance(policy, SightPolicy)
        labelled = zip(policy.seen, (plan_label(stored.sample) for stored in found), strict=True)
        save_ground(
            [GroundMoment(ground.half(), plan) for ground, plan in labelled if plan.known.all()], self.ground, name
        )
