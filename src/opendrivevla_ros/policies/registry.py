"""Policies by name or by checkpoint folder. Nothing that needs torch is imported before such a policy is asked for."""

import json
from pathlib import Path
from typing import Any

from opendrivevla_ros.core.installation import install_file
from opendrivevla_ros.core.policy import DrivingPolicy
from opendrivevla_ros.policies.baselines import ConstantVelocityPolicy
from opendrivevla_ros.policies.errors import CheckpointError

PRECISIONS = ("float32", "bfloat16")
BASELINES = ("constant_velocity", "ego_state")  # kinds of policies without a language model
SHIPPED = "opendrivevla-small"
SHIPPED_FOLDER = "checkpoints/small"
RANDOM = "opendrivevla-small-random"  # the same network with random weights
NAMES = (SHIPPED, RANDOM, "constant_velocity")


def load_policy(
    folder_or_name: str | Path, *, device: str = "cpu", precision: str = "float32", seed: int = 0, **options: Any
) -> DrivingPolicy:
    """The policy of a name in NAMES, or of a checkpoint folder, whose config.json names its kind.

    device: "cpu", "cuda" or "cuda:N"; baselines always run on the CPU. seed: of random weights and of sampled plans.
    options: fields of `opendrivevla.policy.PlanningOptions`; a baseline takes none.
    Raises CheckpointError for an unknown name, an unfit folder, precision, device or option.
    """
    name = str(folder_or_name)
    if name == SHIPPED:
        return load_policy(_shipped_folder(), device=device, precision=precision, seed=seed, **options)
    if precision not in PRECISIONS:
        raise CheckpointError(f"precision {precision!r} is not supported; choose one of {', '.join(PRECISIONS)}")
    kind = kind_of(folder_or_name)
    if kind in BASELINES and options:
        raise CheckpointError(f"{kind} takes no options, but got {', '.join(sorted(options))}")
    if kind == "constant_velocity":
        return ConstantVelocityPolicy()
    if kind == "ego_state":
        from opendrivevla_ros.policies.ego_state import load_ego_state

        return load_ego_state(Path(folder_or_name))
    if name != RANDOM and not Path(folder_or_name).is_dir():
        raise CheckpointError(
            f"{name!r} is neither a checkpoint folder nor a policy name; the names are {', '.join(NAMES)}"
        )
    from opendrivevla_ros.policies.opendrivevla import loading

    if name == RANDOM:
        return loading.random_small(device=device, precision=precision, seed=seed, **options)
    return loading.from_folder(Path(folder_or_name), device=device, precision=precision, seed=seed, **options)


def _shipped_folder() -> Path:
    try:
        return install_file(SHIPPED_FOLDER)
    except FileNotFoundError as error:
        raise CheckpointError(str(error)) from error


def kind_of(folder_or_name: str | Path) -> str:
    """One of BASELINES, or "opendrivevla" for everything else, also for what its loader then refuses."""
    if str(folder_or_name) == "constant_velocity":
        return "constant_velocity"
    try:
        config = json.loads((Path(folder_or_name) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "opendrivevla"
    is_ego_state = isinstance(config, dict) and config.get("policy") == "ego_state"
    return "ego_state" if is_ego_state else "opendrivevla"
