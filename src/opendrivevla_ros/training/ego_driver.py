"""Who drives by perception and the ego's query alone, and keeps what it saw for the stages that learn from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.policy import DrivingPolicy, PolicyInfo
from opendrivevla_ros.datasets.drive_store import StoredSample
from opendrivevla_ros.perception.config import PerceptionConfig
from opendrivevla_ros.perception.network import PerceptionNetwork, PerceptionOutput
from opendrivevla_ros.policies.baselines import WordlessPolicy
from opendrivevla_ros.policies.opendrivevla.config import OpenDriveVlaConfig
from opendrivevla_ros.policies.opendrivevla.frames import lidar_path_to_base
from opendrivevla_ros.policies.opendrivevla.perception_input import perception_frame, scene_origin
from opendrivevla_ros.training.ego_step import EgoTraining
from opendrivevla_ros.training.seen_tokens import save_tokens, seen_sample
from opendrivevla_ros.training.step_run import load_weights, take_weights


class EgoPolicy(WordlessPolicy):
    """Perception and the ego's query at the wheel, without words.

    seen: what perception gave at each plan since the last reset.
    """

    info = PolicyInfo(model_id="ego", weights_hash="", trained=True, image_size=(1, 1))
    explanation = "This is a perception that plans without words."

    def __init__(self, training: EgoTraining) -> None:
        super().__init__()
        self._training = training.eval()
        self.reset()

    def reset(self) -> None:
        """Forgets what was seen."""
        self.seen: list[PerceptionOutput] = []
        self._origin: Array | None = None
        self._training.perception.reset()

    @torch.inference_mode()
    def waypoints(self, observation: Observation) -> tuple[Array, Array | None]:
        """What the ego's query proposes."""
        network = self._training.perception
        if self._origin is None:
            self._origin = scene_origin(observation)
        output = network(perception_frame(observation, network.config, self._origin))
        self.seen.append(output)
        assert output.proposal is not None
        path = output.proposal.path.double().numpy()
        return lidar_path_to_base(path, np.asarray(observation.rig.lidar_to_base)), None


@dataclass(frozen=True)
class EgoDriver:
    """What a step left in `weights` that learned to propose, at the wheel. What it saw is kept in `tokens`."""

    weights: Path
    config: OpenDriveVlaConfig
    tokens: Path

    def policy(self) -> EgoPolicy:
        """The policy. Raises TrainingError."""
        return EgoPolicy(load_ego_training(self.weights, self.config.perception))

    @torch.inference_mode()
    def keep(self, policy: DrivingPolicy, found: Sequence[StoredSample], name: str) -> None:
        """Keeps the tokens, as `seen_tokens.see_drives` does: nobody needs to look at that drive again."""
        assert isinstance(policy, EgoPolicy)
        self.tokens.mkdir(parents=True, exist_ok=True)
        samples = [seen_sample(stored, output, self.config) for stored, output in zip(found, policy.seen, strict=True)]
        save_tokens(samples, self.tokens, name)


def load_ego_training(weights: Path, config: PerceptionConfig) -> EgoTraining:
    """What a step has left in a weights file of perception and its query, without what only training has.

    Raises TrainingError for a broken file, or of another perception.
    """
    training = EgoTraining(PerceptionNetwork(config))
    kept = {name: part for name, part in load_weights(weights).items() if name.startswith("perception.")}
    take_weights(training, kept, weights)
    return training
