"""Time and memory from an observation to a plan: `python benchmarks/plan.py [FOLDER_OR_NAME]`.

Pictures are noise and the vehicle drives straight on, so that temporal state is in use; decoding is not included.
Prints one line of percentiles, a table of stages, tokens per plan and peak memory.
"""

import argparse
import resource
import time
from dataclasses import replace

import numpy as np
import torch

from opendrivevla_ros.core.ego import Command, DrivingCommand, EgoState
from opendrivevla_ros.core.geometry import planar_transform
from opendrivevla_ros.core.observation import CameraFrame, Observation
from opendrivevla_ros.core.plan import Plan
from opendrivevla_ros.core.rig import CAMERA_NAMES
from opendrivevla_ros.policies.registry import PRECISIONS, load_policy
from opendrivevla_ros.world.rig import nuscenes_rig

SPEED = 8.0  # m/s
TRIGGER_STEP_NS = 8_000_000  # between two cameras
STEP_S = 0.5
TARGET_MS = 150.0  # p95 of `small` on two cores


def drive(count: int, size: tuple[int, int]) -> list[Observation]:
    """`count` observations, half a second apart, with pictures of `size` (width, height).

    As on a vehicle, speed changes and the cameras are triggered one after the other, so that no two frames share the
    projection into the pictures.
    """
    rig = nuscenes_rig(*size)
    images = np.random.default_rng(0).integers(0, 256, (6, size[1], size[0], 3), dtype=np.uint8)
    history = np.array([[-4.0, 0, 0], [-3.0, 0, 0], [-2.0, 0, 0], [-1.0, 0, 0]]) * [SPEED * STEP_S, 1, 1]
    ego = EgoState(0, np.eye(4), np.array([SPEED, 0.0, 0.0]), np.zeros(3), np.zeros(3), history)
    observations = []
    for index in range(count):
        stamp_ns = int(index * STEP_S * 1e9)
        pictures = tuple(
            CameraFrame(name, stamp_ns + TRIGGER_STEP_NS * place, np.roll(image, 8 * index, axis=1))
            for place, (name, image) in enumerate(zip(CAMERA_NAMES, images, strict=True))
        )
        pose = planar_transform(SPEED * STEP_S * index, 0.0, 0.0)
        velocity = np.array([SPEED + 0.01 * index, 0.0, 0.0])
        here = replace(ego, stamp_ns=stamp_ns, base_to_world=pose, velocity=velocity)
        observations.append(
            Observation(stamp_ns, pictures, rig, here, DrivingCommand(Command.KEEP_FORWARD, "", False))
        )
    return observations


def measure(arguments: argparse.Namespace) -> tuple[list[float], list[Plan], float]:
    """Milliseconds, plans, and processor milliseconds a plan, after `warmup` plans that do not count."""
    policy = load_policy(
        arguments.policy, device=arguments.device, precision=arguments.precision, samples=arguments.samples
    )
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    print(f"{policy.info.model_id} on {arguments.device}, {arguments.precision}, {torch.get_num_threads()} threads,")
    print(f"  {arguments.samples} samples beside the greedy plan, pictures {arguments.width}x{arguments.height}")
    observations = drive(arguments.warmup + arguments.plans, (arguments.width, arguments.height))
    times, plans, cpu_started = [], [], 0.0
    for index, observation in enumerate(observations):
        if index == arguments.warmup:
            cpu_started = time.process_time()
        started = time.perf_counter()
        plans.append(policy.plan(observation))
        times.append((time.perf_counter() - started) * 1e3)
    cpu_ms = (time.process_time() - cpu_started) * 1e3 / arguments.plans
    return times[arguments.warmup :], plans[arguments.warmup :], cpu_ms


def report(times: list[float], plans: list[Plan], cpu_ms: float) -> None:
    """Prints the figures. cpu_ms: processor time a plan over all threads, which other programs hardly change."""
    p50, p95, p99 = np.percentile(times, [50, 95, 99])
    print(f"plan: best {min(times):.1f} ms, p50 {p50:.1f} ms, p95 {p95:.1f} ms, p99 {p99:.1f} ms ({len(times)} plans)")
    print(f"  {cpu_ms:.1f} ms of processor time a plan")
    print(f"  small's target on two cores is p95 under {TARGET_MS:.0f} ms")
    print(f"{'stage':<20}{'best ms':>10}{'p50 ms':>10}{'p95 ms':>10}{'share':>8}")
    stages = {name: [plan.stage_times[name] * 1e3 for plan in plans] for name in plans[0].stage_times}
    whole = sum(float(np.percentile(values, 50)) for values in stages.values())
    for name, values in stages.items():
        middle, high = np.percentile(values, [50, 95])
        print(f"{name:<20}{min(values):>10.2f}{middle:>10.2f}{high:>10.2f}{middle / whole:>8.0%}")
    counts = {name: float(np.mean([plan.token_counts[name] for plan in plans])) for name in plans[0].token_counts}
    print("tokens a plan: " + ", ".join(f"{name} {count:.1f}" for name, count in counts.items()))
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB resident")
    if torch.cuda.is_available():
        print(f"peak memory on the GPU: {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("policy", nargs="?", default="opendrivevla-small", help="checkpoint folder or name")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32", choices=PRECISIONS)
    parser.add_argument("--plans", type=int, default=50)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of torch; default: what loading a policy chooses")
    parser.add_argument("--width", type=int, default=400)
    parser.add_argument("--height", type=int, default=225)
    arguments = parser.parse_args()
    report(*measure(arguments))


if __name__ == "__main__":
    main()
