"""Drives of a policy, with the expert's answer at every instant: what it must learn.

DAgger (arXiv 1011.0686): a policy that learned from the expert's drives alone never learned the way back from its own
mistakes. Every instant at which it plans becomes a sample, whose future is what the expert would do from there.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import torch

from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.policy import DrivingPolicy
from opendrivevla_ros.core.workers import worked
from opendrivevla_ros.datasets.drive_store import DriveStore, StoredSample
from opendrivevla_ros.datasets.world_samples import NoPictures, WorldSampler
from opendrivevla_ros.policies.registry import load_policy
from opendrivevla_ros.training.world_drives import MAP_REACH, eyes_of, scenario_of, words_of
from opendrivevla_ros.world.families import make_scenario
from opendrivevla_ros.world.outcome import drive
from opendrivevla_ros.world.policy_driver import PolicyDriver
from opendrivevla_ros.world.renderer import Renderer
from opendrivevla_ros.world.seeds import Split
from opendrivevla_ros.world.simulation import World

NAME = "own"
EXPERT_SAMPLES = 20  # of a drive of the expert's, from its start


class Driver(Hashable, Protocol):
    """Who drives, in processes of their own, into which it is pickled."""

    def policy(self) -> DrivingPolicy:
        """What takes the wheel. Raises TrainingError and CheckpointError."""

    def keep(self, policy: DrivingPolicy, found: Sequence[StoredSample], name: str) -> None:
        """Keeps what `policy` saw at the samples of the drive of that name, which is stored, if it is wanted again."""


@dataclass(frozen=True)
class CheckpointDriver:
    """The policy of a checkpoint folder. Nothing of what it saw is kept."""

    folder: Path

    def policy(self) -> DrivingPolicy:
        """The policy, on one core."""
        policy = load_policy(self.folder, samples=0)
        torch.set_num_threads(1)
        return policy

    def keep(self, policy: DrivingPolicy, found: Sequence[StoredSample], name: str) -> None:
        """Nothing."""


def draw_own_drives(
    folder: Path,
    driver: Driver | None,
    numbers: Sequence[int],
    *,
    image_size: tuple[int, int] | None,
    processes: int,
) -> Iterator[float]:
    """Has a driver drive the training scenarios of these numbers (`world_drives.scenario_of`), into a store.

    driver: None for the expert. image_size: None for drives without pictures, which take a fraction of the time.
    Yields the share that is done; drives that are there are kept.
    """
    there = {name.split("-")[0] for name in DriveStore(folder).names}
    wanted = [number for number in numbers if f"{NAME}{number:06d}" not in there]
    yield 1 - len(wanted) / max(len(numbers), 1)
    tasks = [(folder, driver, number, image_size) for number in wanted]
    done = worked(_draw, tasks, processes=processes, begin=torch.set_num_threads, given=(1,))
    for count, _ in enumerate(done, start=1):
        yield 1 - (len(wanted) - count) / len(numbers)


def own_drive(number: int, policy: DrivingPolicy, renderer: Renderer | NoPictures) -> list[StoredSample]:
    """What a policy met in training scenario `number`, up to its end, the time limit or a collision."""
    family, seed = scenario_of(number, Split.TRAIN)
    sampler = WorldSampler(make_scenario(family, seed), renderer, map_reach=MAP_REACH)
    found: list[StoredSample] = []
    drive(World(sampler.scenario), PolicyDriver(policy, _recording(sampler, found)))
    return found


def expert_drive(number: int, renderer: Renderer | NoPictures) -> list[StoredSample]:
    """What the expert meets in training scenario `number`, undisturbed, in its first EXPERT_SAMPLES instants."""
    family, seed = scenario_of(number, Split.TRAIN)
    sampler = WorldSampler(make_scenario(family, seed), renderer, map_reach=MAP_REACH)
    world = World(sampler.scenario)
    return [
        StoredSample(sample, words_of(world, sample, _words_seed(sampler, sample.index)))
        for sample in sampler.follow(world, EXPERT_SAMPLES)
    ]


def _words_seed(sampler: WorldSampler, index: int) -> int:
    return sampler.scenario.seed * 1000 + index


def _recording(sampler: WorldSampler, found: list[StoredSample]) -> Callable[[World], Observation]:
    def observe(world: World) -> Observation:
        sample = sampler.sample(world, len(found))
        found.append(StoredSample(sample, words_of(world, sample, _words_seed(sampler, len(found)))))
        return sample.observation

    return observe


@torch.inference_mode()
def _draw(folder: Path, driver: Driver | None, number: int, image_size: tuple[int, int] | None) -> None:
    eyes = eyes_of(image_size)
    policy = None if driver is None else _policy(driver)
    found = expert_drive(number, eyes) if policy is None else own_drive(number, policy, eyes)
    name = DriveStore(folder).write(f"{NAME}{number:06d}-0", found)
    if driver is not None and policy is not None:
        driver.keep(policy, found, name)


@cache
def _policy(driver: Driver) -> DrivingPolicy:
    return driver.policy()
