"""A training step on one CPU core: float32, bfloat16, and bfloat16 whose attention is in float32, as stages train.

`python benchmarks/training_precision.py [--rounds N]` prints a table for two parts that start from nothing: the
language model of `opendrivevla-small`, and the vision tower of `autovla-small`. A step is the way forwards and back.
The three take turns, and the least time of each counts: the machine may be shared.
"""

import argparse
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from opendrivevla_ros.language.action_lattice import lattice
from opendrivevla_ros.language.model import DrivingLanguageModel
from opendrivevla_ros.language.small_tokenizer import VOCABULARY_SIZE
from opendrivevla_ros.policies.autovla.loading import small_config
from opendrivevla_ros.policies.autovla.model import AutoVlaModel
from opendrivevla_ros.policies.autovla.tokenizer import build_tokenizer
from opendrivevla_ros.policies.opendrivevla.config import small
from opendrivevla_ros.training.attention import attend_in_float32

TURNS = 8  # of a process, of two, in a step of the stage driving
POSITIONS = 500  # of each; chosen, for turns are not of one length
MOMENTS = 8  # of a process, of two, in a step of the stage sight


@dataclass(frozen=True)
class Part:
    """What trains, whose attention is meant, and what it is given."""

    name: str
    network: nn.Module
    attends: PreTrainedModel
    answer: Callable[[], Tensor]


def language() -> Part:
    """The language model with prompts of random words."""
    config = small(VOCABULARY_SIZE, eos_id=0).language
    assert config is not None
    network = DrivingLanguageModel(config)
    words = torch.randint(VOCABULARY_SIZE, (TURNS, POSITIONS))
    return Part(f"language model, {TURNS} turns", network, network, lambda: network(words).logits)


def tower() -> Part:
    """The vision tower with pictures of noise."""
    codebook = lattice()
    network = AutoVlaModel(small_config(build_tokenizer(codebook), codebook))
    config = network.autovla_config
    vision = config.vision
    count = len(config.cameras) * config.video_tokens * vision.merge**2
    videos = [torch.randn(count, 3 * vision.temporal_patch * vision.patch**2) for _ in range(MOMENTS)]

    def answer() -> Tensor:
        patches = network.seen(videos).patches
        assert patches is not None
        return patches

    return Part(f"vision tower, {MOMENTS} moments", network, network.model.visual, answer)


def step_s(part: Part, *, bfloat16: bool) -> float:
    """Seconds of one step."""
    part.network.zero_grad()
    started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16) if bfloat16 else nullcontext():
        answer = part.answer()
    answer.float().square().mean().backward()
    return time.perf_counter() - started


def measure(part: Part, rounds: int) -> dict[str, float]:
    """The least seconds of a step in each way, after a round that does not count."""
    plain = part.attends.config._attn_implementation
    found: dict[str, list[float]] = {"float32": [], "bfloat16": [], "bfloat16, attention in float32": []}
    for _ in range(rounds + 1):
        for way, times in found.items():
            part.attends.config._attn_implementation = plain
            if "attention" in way:
                attend_in_float32(part.attends)
            times.append(step_s(part, bfloat16=way != "float32"))
    return {way: min(times[1:]) for way, times in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for part in (language(), tower()):
        print(part.name)
        least = measure(part, arguments.rounds)
        for way, seconds in least.items():
            print(f"  {way:32} {seconds:6.2f} s  {seconds / least['float32']:5.2f}")


if __name__ == "__main__":
    main()
