"""Drives of a policy, with the expert's answer at every instant: what it must learn.

DAgger (arXiv 1011.0686): a policy that learned from the expert's drives alone never learned the way back from its own
mistakes. Every instant at which it plans becomes a sample, whose future is what the expert would do from there.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import torch

from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.policy import DrivingPolicy
from opendrivevla_ros.datasets.drive_store import DriveStore, StoredSample
from opendrivevla_ros.datasets.world_samples import NoPictures, WorldSampler
from opendrivevla_ros.policies.opendrivevla.config import small_perception
from opendrivevla_ros.policies.registry import load_policy
from opendrivevla_ros.training.ego_step import EgoPolicy, load_ego_training
from opendrivevla_ros.training.world_drives import MAP_REACH, eyes_of, scenario_of, words_of
from opendrivevla_ros.world.families import make_scenario
from opendrivevla_ros.world.outcome import drive
from opendrivevla_ros.world.policy_driver import PolicyDriver
from opendrivevla_ros.world.renderer import Renderer
from opendrivevla_ros.world.seeds import Split
from opendrivevla_ros.world.simulation import World

NAME = "own"
EXPERT_SAMPLES = 20  # of a drive of the expert's, from its start


def draw_own_drives(
    folder: Path,
    driver: Path | None,
    numbers: Sequence[int],
    *,
    image_size: tuple[int, int] | None,
    processes: int,
) -> Iterator[float]:
    """Has a driver drive the training scenarios of these numbers (`world_drives.scenario_of`), into a store.

    driver: a policy's checkpoint folder, or the weights file of an ego's step; None for the expert. image_size: None
    for drives without pictures, which take a fraction of the time. Yields the share that is done; drives that are
    there are kept.
    """
    done = {name.split("-")[0] for name in DriveStore(folder).names}
    wanted = [number for number in numbers if f"{NAME}{number:06d}" not in done]
    yield 1 - len(wanted) / max(len(numbers), 1)
    with ProcessPoolExecutor(processes, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        jobs = [pool.submit(_draw, folder, driver, number, image_size) for number in wanted]
        for count, job in enumerate(jobs, start=1):
            job.result()
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


def _draw(folder: Path, driver: Path | None, number: int, image_size: tuple[int, int] | None) -> None:
    eyes = eyes_of(image_size)
    found = expert_drive(number, eyes) if driver is None else own_drive(number, _policy(driver), eyes)
    DriveStore(folder).write(f"{NAME}{number:06d}-0", found)


@cache
def _policy(driver: Path) -> DrivingPolicy:
    if driver.is_file():
        return EgoPolicy(load_ego_training(driver, small_perception()))
    policy = load_policy(driver, samples=0)
    torch.set_num_threads(1)
    return policy
