"""How long open loop takes on as many samples as nuScenes' validation split has: the measures only, no model.

6,019 samples of made-up plans in 150 scenes, 50 road users at each of six instants, three policies, both collision
tests for both kinds of road user. `python benchmarks/open_loop.py` prints seconds on one core and on two, each beside
the limit. Exits with 1 where two cores are over it.
"""

import argparse
import sys
import time
from collections.abc import Sequence

import numpy as np

from opendrivevla_ros.core.geometry import NUSCENES_LIDAR_TO_BASE
from opendrivevla_ros.evaluation.nuscenes_open_loop import open_loop_figures
from opendrivevla_ros.evaluation.nuscenes_records import STEPS, SampleRecord, SceneRecord
from opendrivevla_ros.evaluation.world_scenes import spread

SAMPLES = 6019
SCENES = 150
AGENTS = 50
POLICIES = ("policy", "ego_state", "constant_velocity")
LIMIT_S = 60.0
REACH = 60.0  # metres around the vehicle, in which the road users are


def made_up_scene(index: int, samples: int, agents: int) -> SceneRecord:
    """A scene of road users of all sizes who move by 1 m a step, and plans some metres beside the reference."""
    random = np.random.default_rng(index)
    return SceneRecord(
        scene=f"scene-{index:04d}",
        settings={},
        lidar_to_base=NUSCENES_LIDAR_TO_BASE,
        samples=tuple(_sample(random, f"{index}.{number}", agents) for number in range(samples)),
    )


def _sample(random: np.random.Generator, token: str, agents: int) -> SampleRecord:
    places = random.uniform(-REACH, REACH, (agents, 2)) + np.cumsum(random.normal(0, 0.7, (STEPS, agents, 2)), axis=0)
    yaw = np.broadcast_to(random.uniform(-np.pi, np.pi, (agents, 1)), (STEPS, agents, 1))
    size = np.broadcast_to(random.uniform([0.5, 0.5], [12.0, 2.8], (agents, 2)), (STEPS, agents, 2))
    reference = np.cumsum(random.uniform([0.0, -0.3, -0.1], [6.0, 0.3, 0.1], (STEPS, 3)), axis=0)
    count = STEPS * agents
    return SampleRecord(
        token=token,
        pose=np.eye(4),
        reference=reference,
        mask=np.ones(STEPS, dtype=np.bool_),
        boxes=np.concatenate([places, yaw, size], axis=-1).reshape(count, 5),
        instants=np.repeat(np.arange(STEPS), agents),
        pedestrian=np.tile(random.uniform(size=agents) < 0.3, STEPS),
        hidden=np.tile(random.uniform(size=agents) < 0.1, STEPS),
        plans={name: reference + random.normal(0, [1.0, 1.0, 0.1], (STEPS, 3)) for name in POLICIES},
        failures={},
        agents=(),
        detections=(),
    )


def seconds_of(scenes: Sequence[tuple[int, int, int]]) -> float:
    """What the figures of made-up scenes (index, samples, agents) take, without making the scenes up."""
    records = [made_up_scene(*scene) for scene in scenes]
    began = time.perf_counter()
    open_loop_figures(records)
    return time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--agents", type=int, default=AGENTS)
    given = parser.parse_args()
    share, rest = divmod(given.samples, SCENES)
    scenes = [(index, share + (index < rest), given.agents) for index in range(SCENES) if share or index < rest]
    one = seconds_of(scenes)
    two = max(spread(seconds_of, [scenes[::2], scenes[1::2]], processes=2))
    what = f"{given.samples} samples, {given.agents} agents, {len(POLICIES)} policies"
    print(f"{what}: {one:.1f} s on one core, {two:.1f} s on two; limit {LIMIT_S:.0f} s on two")
    return int(two > LIMIT_S)


if __name__ == "__main__":
    sys.exit(main())
