"""Trains the ego-state-only policy on drives that others learn from: no pictures, a minute or two on one core."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from opendrivevla_ros.datasets.drive_store import DriveStore
from opendrivevla_ros.datasets.driving_samples import DrivingSample
from opendrivevla_ros.policies.ego_state import EgoStateConfig, EgoStateNetwork, ego_numbers, save_ego_state
from opendrivevla_ros.training.errors import TrainingError

BATCH = 256
LEARNING_RATE = 1e-3
STEPS = 20_000


def ego_samples(store: DriveStore) -> Iterator[DrivingSample]:
    """The samples of a store whose future is known to its end, without pictures."""
    for index in range(len(store.names)):
        for stored in store.read(index, cameras=()):
            if stored.sample.future_mask.all():
                yield stored.sample


def train_ego_state(
    samples: Iterable[DrivingSample], folder: Path, *, source: str, steps: int = STEPS, seed: int = 0
) -> float:
    """Trains on the samples and writes the policy folder; returns the mean distance over the last tenth, metres.

    source: of which drives the samples are, for the card.

    The loss is the mean distance of the six points, which is what open loop measures; the learning rate falls to 0
    along a cosine. The same samples and seed give the same weights. Raises TrainingError without samples.
    """
    pairs = [_numbers(sample) for sample in samples]  # not the samples, which hold all road users
    if not pairs:
        raise TrainingError("there are no samples to train the ego-state policy on; draw at least one")
    inputs, targets = (torch.from_numpy(np.stack(numbers)).float() for numbers in zip(*pairs, strict=True))
    if not (inputs.isfinite().all() and targets.isfinite().all()):
        raise TrainingError("the samples of the ego-state policy hold numbers that are not finite; leave those out")
    config = EgoStateConfig()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = EgoStateNetwork(config)
    _measure(network, inputs, targets)
    optimiser = torch.optim.AdamW(network.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    draws = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(steps):
        batch = torch.randint(len(inputs), (min(BATCH, len(inputs)),), generator=draws)
        loss = (network(inputs[batch]) - targets[batch]).norm(dim=-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
    error = float(np.mean(losses[-max(1, steps // 10) :]))
    save_ego_state(network, config, folder, card=_card(len(pairs), source, steps, seed, error))
    return error


def _numbers(sample: DrivingSample) -> tuple[np.ndarray, np.ndarray]:
    """What the network reads of a sample, and the path [6, 2] that it is to plan."""
    observation = sample.observation
    return ego_numbers(observation.ego, observation.command.command), sample.future[:, :2]


def _measure(network: EgoStateNetwork, inputs: torch.Tensor, targets: torch.Tensor) -> None:
    network.input_mean.copy_(inputs.mean(0))
    network.input_scale.copy_(inputs.std(0, correction=0).clamp(min=1e-3))
    network.output_mean.copy_(targets.mean(0))
    network.output_scale.copy_(targets.std(0, correction=0).clamp(min=1e-3))


def _card(samples: int, source: str, steps: int, seed: int, error: float) -> str:
    return f"""# Ego-state baseline

A network of two hidden layers that plans from the ego motion (2 s of history, velocity, acceleration, yaw rate,
steering) and the navigation command. It sees no picture. It is here to be compared with, not to drive.

Trained on {samples} samples of the drives {source} that the small model learns from (training seeds only), {steps}
steps of {BATCH}, seed {seed}; mean distance of its six points at the end of training {error:.3f} m.
"""
