"""Draws the drives that the small model learns from: many short stretches of many scenarios, seen and described."""

import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np

from opendrivevla_ros.core.workers import worked
from opendrivevla_ros.datasets.drive_store import DriveStore, StoredSample, Words
from opendrivevla_ros.datasets.driving_samples import DrivingSample
from opendrivevla_ros.datasets.world_samples import NoPictures, WorldSampler
from opendrivevla_ros.world.expert import STEP_S, expert_command
from opendrivevla_ros.world.families import FAMILIES, make_scenario
from opendrivevla_ros.world.narration import CAPTION_QUESTIONS, narrate
from opendrivevla_ros.world.questions import ask
from opendrivevla_ros.world.renderer import Renderer
from opendrivevla_ros.world.rig import nuscenes_rig
from opendrivevla_ros.world.seeds import Split, seed_of
from opendrivevla_ros.world.simulation import StartError, World
from opendrivevla_ros.world.vehicle import EgoCommand

STRETCHES, STRETCH_SAMPLES = 2, 6  # of each drive, and samples of each: 2.5 s
FIRST_WAIT_S, NEXT_WAIT_S = 4.0, 5.0  # most seconds before the first stretch, and between two
UNDISTURBED = 0.4  # share of the drives that the expert drives as it wants
DISTURBANCE_S = 0.8  # how long a disturbance lasts, on average
MOST_ACCELERATION, MOST_STEERING = 1.5, 0.035  # m/s^2, rad: standard deviations of the strongest disturbances
LAPSES_EVERY_S, LAPSE_S = 4.0, 2.0  # between lapses, and how long one lasts, on average
NUDGED_ABOVE, LAPSED_ABOVE = -3.0, -5.0  # m/s^2: an expert that brakes harder brakes for its life
QUESTIONS = 4
MAP_REACH = (42.0, 42.0)  # metres, of map labels: what the small network perceives, and a little more


def draw_drives(
    folder: Path, *, scenarios: int, split: Split, image_size: tuple[int, int] | None, processes: int, first: int = 0
) -> Iterator[int]:
    """Fills a store with drives of the scenarios numbered `first` to `first + scenarios` of a split, family by turns.

    image_size: None for drives without pictures. Yields the number of scenarios done so far; those that are there
    already count at once.
    """
    done = {name.split("-")[0] for name in DriveStore(folder).names if name.split("-")[1] == "0"}
    wanted = [number for number in range(first, first + scenarios) if f"{split.name.lower()}{number:06d}" not in done]
    yield scenarios - len(wanted)
    if not wanted:
        return
    tasks = [(folder, number, split, image_size) for number in wanted]
    for count, _ in enumerate(worked(_draw, tasks, processes=processes), start=1):
        yield scenarios - len(wanted) + count


def scenario_of(number: int, split: Split) -> tuple[str, int]:
    """Family and seed of scenario `number` of a split: the families take turns."""
    return FAMILIES[number % len(FAMILIES)], seed_of(split, number // len(FAMILIES))


def stretches(number: int, split: Split, renderer: Renderer | NoPictures) -> Iterator[list[StoredSample]]:
    """The stretches of scenario `number`: driven with disturbances, answered by the expert. The same every time."""
    family, seed = scenario_of(number, split)
    sampler = WorldSampler(make_scenario(family, seed), renderer, map_reach=MAP_REACH)
    random = np.random.default_rng([seed, 71, number])
    disturbed = random.uniform() >= UNDISTURBED
    world = World(sampler.scenario, StartError.drawn(random) if disturbed else None)
    driver = disturbed_expert(random) if disturbed else expert_command
    wait_s = random.uniform(0.0, FIRST_WAIT_S)
    for _ in range(STRETCHES):
        for _ in range(round(wait_s / STEP_S)):
            world.step(STEP_S, driver(world))
        found = [
            StoredSample(sample, words_of(world, sample, int(random.integers(1 << 30))))
            for sample in sampler.follow(world, STRETCH_SAMPLES, driver)
        ]
        if found:
            yield found
        wait_s = random.uniform(0.0, NEXT_WAIT_S)


def disturbed_expert(random: np.random.Generator) -> Callable[[World], EgoCommand]:
    """The expert with a nudged hand and a wandering mind, so that its way back is among what is learned.

    The nudges are an Ornstein-Uhlenbeck process; how strong they are is drawn once (DART, arXiv 1703.09327). In a
    lapse the ego goes on at the speed that it has, whatever is ahead, or stands on where it stands. Without lapses a
    motion history tells what the expert is about, and a model learns to go on as it went, which at the wheel it then
    does for ever (the copycat problem, arXiv 2010.14876).
    """
    strength = random.uniform(0.2, 1.0) * np.array([MOST_ACCELERATION, MOST_STEERING])
    keep = np.exp(-STEP_S / DISTURBANCE_S)
    nudge, lapse_s = np.zeros(2), 0.0

    def drive(world: World) -> EgoCommand:
        nonlocal nudge, lapse_s
        nudge = keep * nudge + np.sqrt(1 - keep**2) * strength * random.standard_normal(2)
        lapse_s -= STEP_S
        if random.uniform() < STEP_S / LAPSES_EVERY_S:
            lapse_s = random.exponential(LAPSE_S)
        command = expert_command(world)
        if lapse_s > 0 and command.acceleration > LAPSED_ABOVE:
            return EgoCommand(0.0, command.steering)
        if command.acceleration < NUDGED_ABOVE:  # whoever disturbs that teaches collisions
            return command
        return EgoCommand(command.acceleration + nudge[0], command.steering + nudge[1])

    return drive


def words_of(world: World, sample: DrivingSample, seed: int) -> Words:
    """What is said about a sample of a world as it is now; the same seed gives the same words."""
    state = world.state
    told = narrate(state, sample.future, seed=seed).captions
    asked = ask(state, sample.future, seed=seed, count=QUESTIONS)
    return Words(
        tuple((name, question, told[name]) for name, question in CAPTION_QUESTIONS.items()),
        tuple((pair.kind, pair.question, pair.answer) for pair in asked),
    )


def _draw(folder: Path, number: int, split: Split, image_size: tuple[int, int] | None) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    store = DriveStore(folder)
    drawn = list(enumerate(stretches(number, split, eyes_of(image_size))))
    for part, found in reversed(drawn):  # with the first the scenario is done
        store.write(f"{split.name.lower()}{number:06d}-{part}", found)


@cache
def eyes_of(image_size: tuple[int, int] | None) -> Renderer | NoPictures:
    """The renderer of this process for pictures of a size; for None, what draws none."""
    return NoPictures(nuscenes_rig()) if image_size is None else Renderer(nuscenes_rig(*image_size))
