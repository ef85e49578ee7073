"""Small stores of drives that AutoVLA learns from: straight on at a constant speed, somebody ahead or nobody."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from policies.observations import make_observation

from opendrivevla_ros.core.plan import MapElement
from opendrivevla_ros.core.trajectory import FUTURE_TIMES_S
from opendrivevla_ros.datasets.drive_store import DriveStore, StoredSample, Words
from opendrivevla_ros.datasets.driving_samples import AgentLabel, DrivingSample

WORDS = Words(
    captions=(
        ("scene", "Describe the scene.", "We are on a street."),
        ("critical_objects", "Which road users are critical?", "The car ahead has stopped."),
        ("intent", "What is the intent?", "We follow the road."),
        ("action", "What is the best action?", "Best is to keep the speed."),
    )
)
THOUGHT = (
    "### Scene Description:\nWe are on a street.\n### Critical Object Description:\nThe car ahead has stopped.\n"
    "### Reasoning on Intent:\nWe follow the road.\n### Best Driving Action:\nBest is to keep the speed."
)
ROAD = MapElement("drivable_area", 1.0, np.array([[-20.0, -4.0], [80.0, -4.0], [80.0, 4.0], [-20.0, 4.0]]), True)


def standing_car(ahead: float, left: float = 0.0, *, points: int = 50) -> AgentLabel:
    place = np.array([ahead, left])
    return AgentLabel(
        track_id=1,
        label="car",
        position=np.array([ahead, left, 0.8]),
        size=np.array([4.5, 1.9, 1.6]),
        yaw=0.0,
        velocity=np.zeros(2),
        velocity_known=True,
        future=np.tile(place, (6, 1)),
        future_mask=np.ones(6, dtype=bool),
        points=points,
        visibility=4,
        attribute="",
    )


def stored(
    index: int,
    *,
    speed: float = 5.0,
    scene: str = "scene",
    agents: tuple[AgentLabel, ...] | None = (),
    known: int = 6,
    size: tuple[int, int] = (112, 63),
) -> StoredSample:
    """Sample `index` of a drive straight on, two a second."""
    mask = np.arange(6) < known
    future = np.column_stack([speed * FUTURE_TIMES_S, np.zeros(6), np.zeros(6)])
    sample = DrivingSample(
        scene=scene,
        token=f"{scene} {index}",
        index=index,
        observation=make_observation(10 + 0.5 * index, speed=speed, size=size),
        future=np.where(mask[:, None], future, 0.0),
        future_mask=mask,
        agents=agents,
        map_elements=(ROAD,),
    )
    return StoredSample(sample, WORDS)


def drives(folder: Path, *, samples: int = 6, speeds: tuple[float, ...] = (4.0, 8.0)) -> DriveStore:
    """A drive for each speed; in every other one a car stands ahead, so that its moments are slow."""
    store = DriveStore(folder)
    for number, speed in enumerate(speeds):
        agents = (standing_car(9.0),) if number % 2 else ()
        scene = f"scene{number}"
        store.write(scene, [stored(index, speed=speed, scene=scene, agents=agents) for index in range(samples)])
    return DriveStore(folder)


def elsewhere(one: StoredSample, metres: float) -> StoredSample:
    """The same sample with its ego to the left of where it was."""
    ego = one.sample.observation.ego
    moved = ego.base_to_world.copy()
    moved[1, 3] += metres
    observation = replace(one.sample.observation, ego=replace(ego, base_to_world=moved))
    return replace(one, sample=replace(one.sample, observation=observation))
