"""Drawing time of the six cameras: `python benchmarks/renderer.py [--frames N]`, one thread.

Draws junction and occluded-pedestrian scenarios of the world at several sizes, with and without antialiasing, and
prints the median processor milliseconds of six views. The baseline of the ratios is the same size without
antialiasing. The first frame of a scenario also builds its street; that is a column of its own.
"""

import argparse
import time

import cv2
import numpy as np

from opendrivevla_ros.world.expert import expert_command
from opendrivevla_ros.world.families import make_scenario
from opendrivevla_ros.world.renderer import Renderer
from opendrivevla_ros.world.rig import nuscenes_rig
from opendrivevla_ros.world.seeds import Split, seed_of
from opendrivevla_ros.world.simulation import World
from opendrivevla_ros.world.state import WorldState

SIZES = ((224, 128), (400, 224), (1600, 900))
FAMILIES = ("junction_straight", "occluded_pedestrian")


def drive(family: str, frames: int) -> list[WorldState]:
    """So many states, half a second apart from the third second on, the expert at the wheel."""
    world = World(make_scenario(family, seed_of(Split.TEST, 3)))
    states = []
    for step in range(30 + 5 * frames):
        if step >= 30 and step % 5 == 0:
            states.append(world.state)
        world.step(0.1, expert_command(world))
    return states


def measure(size: tuple[int, int], antialiasing: int, drives: list[list[WorldState]]) -> tuple[float, float]:
    """Median milliseconds of a frame, and of what a scenario's first frame takes on top."""
    renderer = Renderer(nuscenes_rig(), image_size=size, antialiasing=antialiasing)
    renderer.render(drives[0][0])  # shapes and textures are made once in a process
    frames, firsts = [], []
    for states in [*drives[1:], drives[0]]:
        times = []
        for state in states:
            start = time.process_time()
            renderer.render(state)
            times.append(1e3 * (time.process_time() - start))
        frames += times[1:]
        firsts.append(times[0])
    renderer.close()
    frame = float(np.median(frames))
    return frame, float(np.median(firsts)) - frame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=12, help="frames of each scenario (default: 12)")
    frames = parser.parse_args().frames
    cv2.setNumThreads(1)
    drives = [drive(family, frames) for family in FAMILIES]
    print(f"{'six views of':>14} {'antialiasing':>13} {'ms':>8} {'ratio':>6} {'frames/s':>9} {'new street, ms':>15}")
    for size in SIZES:
        baseline = None
        for antialiasing in (1, 2):
            milliseconds, building = measure(size, antialiasing, drives)
            baseline = baseline or milliseconds
            label = f"{size[0]}x{size[1]}"
            rate, ratio = 1e3 / milliseconds, milliseconds / baseline
            print(f"{label:>14} {antialiasing:>13} {milliseconds:8.1f} {ratio:6.2f} {rate:9.1f} {building:15.0f}")


if __name__ == "__main__":
    main()
