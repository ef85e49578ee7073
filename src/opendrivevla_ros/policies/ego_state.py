"""The ego-state-only policy: a small network that plans from the ego motion and the command, and sees no picture.

The known trap of open-loop figures (AD-MLP, arXiv 2305.10430): it stands beside a model that sees, to tell how much of
that model's figures needs no eyes.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from opendrivevla_ros.core.ego import HISTORY_POINTS, Command, EgoState
from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.plan import PlanError, PlanFailure
from opendrivevla_ros.core.policy import PolicyInfo
from opendrivevla_ros.core.trajectory import FUTURE_TIMES_S
from opendrivevla_ros.policies import checkpoint
from opendrivevla_ros.policies.baselines import WordlessPolicy

POLICY = "ego_state"
POINTS = len(FUTURE_TIMES_S)
INPUTS = 3 * HISTORY_POINTS + 2 + 2 + 1 + 1 + len(Command)


@dataclass(frozen=True)
class EgoStateConfig:
    """One checkpoint. hidden_size: of each of two hidden layers."""

    model_id: str = "ego_state"
    hidden_size: int = 256


class EgoStateNetwork(nn.Module):
    """Two hidden layers from the ego state [B, INPUTS] to positions [B, 6, 2] in base_link, metres.

    mean and scale of inputs and outputs are buffers, measured on the training samples.
    """

    input_mean: Tensor
    input_scale: Tensor
    output_mean: Tensor
    output_scale: Tensor

    def __init__(self, config: EgoStateConfig) -> None:
        super().__init__()
        self.register_buffer("input_mean", torch.zeros(INPUTS))
        self.register_buffer("input_scale", torch.ones(INPUTS))
        self.register_buffer("output_mean", torch.zeros(POINTS, 2))
        self.register_buffer("output_scale", torch.ones(POINTS, 2))
        self.layers = nn.Sequential(
            nn.Linear(INPUTS, config.hidden_size),
            nn.ReLU(),
            nn.Linear(config.hidden_size, config.hidden_size),
            nn.ReLU(),
            nn.Linear(config.hidden_size, POINTS * 2),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        points = self.layers((inputs - self.input_mean) / self.input_scale).unflatten(-1, (POINTS, 2))
        return points * self.output_scale + self.output_mean


def ego_numbers(ego: EgoState, command: Command) -> Array:
    """[INPUTS] what the network knows: history (x, y, yaw), velocity, acceleration, yaw rate, steering, command."""
    one_hot = [float(command is other) for other in Command]
    rates = [ego.angular_velocity[2], ego.steering]
    return np.concatenate([ego.history.ravel(), ego.velocity[:2], ego.acceleration[:2], rates, one_hot])


class EgoStatePolicy(WordlessPolicy):
    """Plans six points, 0.5 s apart. Keeps nothing from call to call."""

    explanation = "This baseline sees no pictures: it plans from the ego motion and the command alone."

    def __init__(self, network: EgoStateNetwork, *, model_id: str, weights_hash: str) -> None:
        super().__init__()
        self._network = network.eval()
        self.info = PolicyInfo(model_id=model_id, weights_hash=weights_hash, trained=True, image_size=(1, 1))

    def waypoints(self, observation: Observation) -> tuple[Array, Array | None]:
        """The network's points. Raises PlanError for a steering that is not finite."""
        numbers = ego_numbers(observation.ego, observation.command.command)
        if not np.isfinite(numbers).all():
            raise PlanError(PlanFailure.BAD_OBSERVATION, "the ego state holds values that are not finite")
        with torch.inference_mode():
            return self._network(torch.from_numpy(numbers).float()).double().numpy(), None


def save_ego_state(network: EgoStateNetwork, config: EgoStateConfig, folder: Path, *, card: str) -> str:
    """Writes config.json, weights with checksum, and the card; returns the weights' SHA-256.

    Raises CheckpointError for a full disk.
    """
    with checkpoint.written_whole(folder) as partial:
        checkpoint.save_config(POLICY, config, partial / checkpoint.CONFIG)
        (partial / checkpoint.CARD).write_text(card)
        return checkpoint.save_weights(partial, network)


def load_ego_state(folder: Path) -> EgoStatePolicy:
    """The policy of a folder that `save_ego_state` wrote. Raises CheckpointError."""
    checkpoint.require(folder, checkpoint.CONFIG, checkpoint.WEIGHTS)
    config = checkpoint.load_config(folder, partial(checkpoint.parse_config, POLICY, EgoStateConfig))
    weights_hash = checkpoint.verified_hash(folder)
    network = checkpoint.empty_network(lambda: EgoStateNetwork(config))
    checkpoint.load_strictly(network, folder)
    return EgoStatePolicy(network, model_id=config.model_id, weights_hash=weights_hash)
