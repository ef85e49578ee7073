"""A learner that reads the truth: trained in minutes, it makes the mistakes that a policy makes who sees pictures.

It drives from the true agents and lines and from how the ego moves, which costs no picture and no perception. What it
meets, with the expert's answer at every instant, is drawn before any policy can drive (DAgger, arXiv 1011.0686).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.policy import PolicyInfo
from opendrivevla_ros.datasets.drive_store import StoredSample
from opendrivevla_ros.perception.config import PerceptionConfig
from opendrivevla_ros.perception.ego_query import EgoQuery, EgoView
from opendrivevla_ros.policies.baselines import WordlessPolicy
from opendrivevla_ros.policies.opendrivevla.frames import lidar_path_to_base
from opendrivevla_ros.training.frame_labels import plan_label
from opendrivevla_ros.training.language_samples import true_features
from opendrivevla_ros.training.moments import Moment
from opendrivevla_ros.training.token_reader import plan_loss
from opendrivevla_ros.training.truth_encoder import TruthEncoder

LAYERS = 2


class Learner(nn.Module):
    """True features and the ego's motion to a plan."""

    def __init__(self, config: PerceptionConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = TruthEncoder(config.embed_dim)
        self.query = EgoQuery(config.embed_dim, LAYERS)

    def forward(self, moments: Sequence[Moment]) -> dict[str, Tensor]:
        """{"plan": see `plan_loss`}."""
        return {"plan": plan_loss(self._paths(moments), [moment.plan for moment in moments])}

    def path(self, moment: Moment) -> Array:
        """Positions [6, 2] of the lidar origin every 0.5 s, lidar frame, metres."""
        with torch.inference_mode():
            (path,) = self._paths([moment])
        return path.double().numpy()

    def _paths(self, moments: Sequence[Moment]) -> Tensor:
        nothing = torch.zeros(0, self.config.embed_dim)
        encoded = self.encoder([moment.features for moment in moments])
        views = [
            EgoView(nothing, seen.agents, seen.map_elements, moment.plan.ego)
            for seen, moment in zip(encoded, moments, strict=True)
        ]
        paths: Tensor = self.query(views).paths
        return paths


class LearnerPolicy(WordlessPolicy):
    """The learner at the wheel of a world whose truth is recorded: it reads the last sample of `record`."""

    info = PolicyInfo(model_id="learner", weights_hash="", trained=True, image_size=(1, 1))
    explanation = "This learner reads the truth of the world, not the pictures."

    def __init__(self, learner: Learner, record: Sequence[StoredSample]) -> None:
        super().__init__()
        self._learner, self._record = learner.eval(), record

    def waypoints(self, observation: Observation) -> tuple[Array, Array | None]:
        """What the learner makes of the recorded moment."""
        stored = self._record[-1]
        features = true_features(stored, self._learner.config)
        path = self._learner.path(Moment(features, plan_label(stored.sample)))
        return lidar_path_to_base(path, np.asarray(observation.rig.lidar_to_base)), None


def load_learner(weights: Path, config: PerceptionConfig) -> Learner:
    """The learner of a weights file."""
    learner = Learner(config)
    learner.load_state_dict(torch.load(weights, weights_only=True))
    return learner
