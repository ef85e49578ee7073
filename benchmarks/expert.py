"""How well the world's expert drives, and how fast the world runs: `python benchmarks/expert.py --seeds 500`.

Every seed is driven in every family, the odd ones from a perturbed start. One row for each family: collisions, routes
not finished in time, drives off the road or out of the lane, comfort, and time a step.
"""

import argparse
import time
from collections.abc import Iterable
from multiprocessing import Pool

import numpy as np

from opendrivevla_ros.world.expert import expert_command, roll_out
from opendrivevla_ros.world.families import FAMILIES, make_scenario
from opendrivevla_ros.world.outcome import STEP_S, WITHIN_LANE, Outcome, drive
from opendrivevla_ros.world.simulation import StartError, World


def drive_one(task: tuple[str, int]) -> tuple[str, int, Outcome, float]:
    """One drive: family, seed, outcome, and seconds of processor time a step."""
    family, seed = task
    error = StartError.drawn(np.random.default_rng(seed)) if seed % 2 else None
    world = World(make_scenario(family, seed), error)
    start = time.process_time()
    outcome = drive(world, expert_command)
    return family, seed, outcome, (time.process_time() - start) / max(1.0, outcome.time_s / STEP_S)


def rows(results: Iterable[tuple[str, int, Outcome, float]]) -> list[str]:
    """The table, with the seeds of whatever went wrong."""
    table = [f"{'family':20} drives hits late off-road out-of-lane  braking p99/max  lateral max  step ms"]
    every = list(results)
    for family in (*FAMILIES, "all"):
        of = [result for result in every if family in (result[0], "all")]
        outcomes = [outcome for _, _, outcome, _ in of]
        hits = [seed for _, seed, outcome, _ in of if outcome.collision]
        late = [seed for _, seed, outcome, _ in of if not outcome.collision and not outcome.in_time]
        off = [seed for _, seed, outcome, _ in of if outcome.off_road]
        out = [seed for _, seed, outcome, _ in of if outcome.most_lateral > WITHIN_LANE]
        braking = [outcome.hardest_braking for outcome in outcomes]
        sideways = max(outcome.most_lateral_acceleration for outcome in outcomes)
        table.append(
            f"{family:20} {len(of):6} {len(hits):4} {len(late):4} {len(off):8} {len(out):11}"
            f"  {np.percentile(braking, 99):7.1f}/{max(braking):.1f}  {sideways:14.1f}"
            f"  {1e3 * float(np.median([step for *_, step in of])):7.2f}"
        )
        if family != "all":
            table += [
                f"    {what}: seeds {seeds[:12]}"
                for what, seeds in (("hits", hits), ("late", late), ("off-road", off), ("out of lane", out))
                if seeds
            ]
    return table


def rollout_ms() -> float:
    """Milliseconds of processor time for one 3 s future, the median over all families."""
    times = []
    for family in FAMILIES:
        world = World(make_scenario(family, 0))
        for _ in range(5):
            start = time.process_time()
            roll_out(world)
            times.append(time.process_time() - start)
            for _ in range(10):
                world.step(STEP_S, expert_command(world))
    return 1e3 * float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=50, help="seeds driven in each family")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    tasks = [(family, seed) for family in FAMILIES for seed in seeds]
    with Pool(arguments.processes) as pool:
        print("\n".join(rows(pool.imap_unordered(drive_one, tasks, chunksize=8))))
    print(f"3 s future: {rollout_ms():.1f} ms")


if __name__ == "__main__":
    main()
