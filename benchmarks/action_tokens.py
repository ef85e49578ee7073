"""Action tokens: how closely the lattice follows motions of other families, and what encoding costs.

`python benchmarks/action_tokens.py` prints the average error by speed, and the time of 10,000 trajectories of ten
steps against a search through all tokens, which gives the same ids.
"""

import time

import numpy as np

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.language.action_codebook import ActionCodebook, box_contours
from opendrivevla_ros.language.action_lattice import TOKEN_S, MotionLimits, lattice

SUB_STEP_S = 0.05
BANDS = [(low, low + 5.0) for low in range(0, 35, 5)]
TRAJECTORIES, COMPARED = 10_000, 200


def driven(speed: Array, yaw_rate: Array) -> Array:
    """Poses [N, 10, 3] after each half second of speeds and yaw rates [N, 100], integrated finely."""
    heading = np.cumsum(yaw_rate * SUB_STEP_S, axis=1)
    middle = heading - yaw_rate * SUB_STEP_S / 2
    x, y = (np.cumsum(speed * turn(middle) * SUB_STEP_S, axis=1) for turn in (np.cos, np.sin))
    return np.stack([x, y, heading], axis=-1)[:, 9::10]


def spirals(speed: Array, random: np.random.Generator) -> Array:
    """Turns that tighten or open."""
    first, last = random.uniform(-1, 1, (2, len(speed)))
    return turning(speed, np.linspace(first, last, 100, axis=1))


def braking_turns(speed: Array, random: np.random.Generator) -> Array:
    """Turns while the speed falls or rises."""
    times = SUB_STEP_S * np.arange(100)
    slowing = np.clip(speed[:, None] + random.uniform(-4, 2, (len(speed), 1)) * times, 0.0, 36.0)
    return turning(slowing, np.repeat(random.uniform(-1, 1, (len(speed), 1)), 100, axis=1))


def lane_changes(speed: Array, random: np.random.Generator) -> Array:
    """3.5 m to a side in 3 to 5 s."""
    times, seconds = SUB_STEP_S * np.arange(100), random.uniform(3, 5, (len(speed), 1))
    width = random.choice([-3.5, 3.5], (len(speed), 1))
    aside = width * 2 * np.pi / seconds**2 * np.sin(2 * np.pi * times / seconds) * (times < seconds)
    speeds = np.maximum(np.repeat(speed[:, None], 100, axis=1), 5.0)
    return driven(speeds, aside / speeds)


def turning(speed: Array, share: Array) -> Array:
    """Turns by a share of what a vehicle can."""
    speeds = np.broadcast_to(speed.reshape(len(speed), -1), share.shape)
    most = MotionLimits().heading(speeds * TOKEN_S) / TOKEN_S
    return driven(speeds, 0.9 * share * most)


def average_error(codebook: ActionCodebook, trajectories: Array) -> float:
    """Metres between where the tokens lead and where the motion went."""
    off = codebook.decode(codebook.encode(trajectories)) - trajectories
    return float(np.hypot(off[..., 0], off[..., 1]).mean())


FAMILIES = {"spirals": spirals, "braking turns": braking_turns, "lane changes": lane_changes}


def search(codebook: ActionCodebook, trajectories: np.ndarray) -> np.ndarray:
    """Ids by comparing every token at every step."""
    ids = np.zeros(trajectories.shape[:2], dtype=np.int64)
    for row, trajectory in enumerate(trajectories):
        for step in range(len(trajectory)):
            tried = np.broadcast_to(ids[row, :step], (len(codebook), step))
            ends = codebook.decode(np.column_stack([tried, np.arange(len(codebook))]))[:, -1]
            corners = box_contours(ends) - box_contours(trajectory[step])
            ids[row, step] = np.hypot(corners[..., 0], corners[..., 1]).sum(axis=-1).argmin()
    return ids


def main() -> None:
    """Prints the tables."""
    codebook, random = lattice(), np.random.default_rng(1)
    print(f"{len(codebook)} tokens; average error in metres")
    print("m/s        " + "  ".join(f"{name:>13}" for name in FAMILIES))
    for band in BANDS:
        errors = [average_error(codebook, family(random.uniform(*band, 500), random)) for family in FAMILIES.values()]
        print(f"{band[0]:4.0f} to {band[1]:2.0f} " + "  ".join(f"{value:13.3f}" for value in errors))
    speeds = random.uniform(0, 35, TRAJECTORIES)
    trajectories = spirals(speeds, random)
    codebook.encode(trajectories[:10])
    started = time.perf_counter()
    ids = codebook.encode(trajectories)
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    searched = search(codebook, trajectories[:COMPARED])
    slow = (time.perf_counter() - started) * TRAJECTORIES / COMPARED
    same = np.array_equal(ids[:COMPARED], searched)
    print(f"encoding {TRAJECTORIES} trajectories of ten steps: {seconds:.2f} s, {slow / seconds:.0f} times as fast as")
    print(f"decoding and comparing every token ({COMPARED} of them; the ids are {'equal' if same else 'NOT EQUAL'})")


if __name__ == "__main__":
    main()
