"""Trains the ego-state-only policy on drives of the expert: no pictures, a minute or two on one core."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from opendrivevla_ros.core.ego import Command, EgoState
from opendrivevla_ros.core.geometry import Array, wrap_angle
from opendrivevla_ros.policies.ego_state import EgoStateConfig, EgoStateNetwork, ego_numbers, save_ego_state
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.world.expert import POINT_STEPS, STEP_S, expert_command
from opendrivevla_ros.world.families import FAMILIES, make_scenario
from opendrivevla_ros.world.seeds import Split, seed_of
from opendrivevla_ros.world.simulation import StartError, World

FUTURE_POINTS = 6
DRIVE_SAMPLES = 20  # of one scenario, two a second
BATCH = 256
LEARNING_RATE = 1e-3
STEPS = 20_000


class EgoSample(NamedTuple):
    """The ego motion, the command, and the motion that followed: [6, 3] x, y, yaw in base_link, every 0.5 s."""

    ego: EgoState
    command: Command
    future: Array


def draw_ego_samples(count: int, *, seed: int = 0) -> Iterator[EgoSample]:
    """So many samples of the expert's driving on training seeds, all families in turn; the same for the same seed.

    Every other drive starts with an error, from which the expert's way back is the future.
    """
    return islice(_all_samples(seed), count)


def _all_samples(seed: int) -> Iterator[EgoSample]:
    random = np.random.default_rng([seed, 71])
    drive = 0
    while True:
        error = StartError.drawn(random) if drive % 2 else None
        family = FAMILIES[drive // 2 % len(FAMILIES)]
        yield from drive_samples(World(make_scenario(family, seed_of(Split.TRAIN, drive)), error))
        drive += 1


def drive_samples(world: World) -> list[EgoSample]:
    """A sample every 0.5 s up to the goal. The expert's future is where it then goes."""
    states: list[tuple[EgoState, Command]] = []
    poses: list[tuple[float, float, float]] = []
    while len(poses) < len(states) + FUTURE_POINTS:
        if len(states) == len(poses) < DRIVE_SAMPLES and not world.finished:
            states.append((world.ego_state(), world.command))
        poses.append((world.ego.x, world.ego.y, world.ego.yaw))
        for _ in range(POINT_STEPS):
            world.step(STEP_S, expert_command(world))
    return [
        EgoSample(ego, command, _seen_from(np.array(poses[index : index + 1 + FUTURE_POINTS])))
        for index, (ego, command) in enumerate(states)
    ]


def _seen_from(poses: Array) -> Array:
    """The later ones of poses [N, 3], in the frame of the first."""
    x, y, yaw = (poses[1:] - poses[0]).T
    cosine, sine = np.cos(poses[0, 2]), np.sin(poses[0, 2])
    return np.column_stack([x * cosine + y * sine, y * cosine - x * sine, wrap_angle(yaw)])


def train_ego_state(samples: Iterable[EgoSample], folder: Path, *, steps: int = STEPS, seed: int = 0) -> float:
    """Trains on the samples and writes the policy folder; returns the mean distance over the last tenth, metres.

    The loss is the mean distance of the six points, which is what open loop measures; the learning rate falls to 0
    along a cosine. The same samples and seed give the same weights. Raises TrainingError without samples.
    """
    drawn = list(samples)
    if not drawn:
        raise TrainingError("there are no samples to train the ego-state policy on; draw at least one")
    inputs = torch.from_numpy(np.stack([ego_numbers(one.ego, one.command) for one in drawn])).float()
    targets = torch.from_numpy(np.stack([one.future[:, :2] for one in drawn])).float()
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
    save_ego_state(network, config, folder, card=_card(len(drawn), steps, seed, error))
    return error


def _measure(network: EgoStateNetwork, inputs: torch.Tensor, targets: torch.Tensor) -> None:
    network.input_mean.copy_(inputs.mean(0))
    network.input_scale.copy_(inputs.std(0, correction=0).clamp(min=1e-3))
    network.output_mean.copy_(targets.mean(0))
    network.output_scale.copy_(targets.std(0, correction=0).clamp(min=1e-3))


def _card(samples: int, steps: int, seed: int, error: float) -> str:
    return f"""# Ego-state baseline

A network of two hidden layers that plans from the ego motion (2 s of history, velocity, acceleration, yaw rate,
steering) and the navigation command. It sees no picture. It is here to be compared with, not to drive.

Trained on {samples} samples of the expert in the driving world (training seeds only), {steps} steps of {BATCH}, seed
{seed}; mean distance of its six points at the end of training {error:.3f} m.
"""
