"""Policies by name or by checkpoint folder. Nothing that needs torch is imported before such a policy is asked for."""

from pathlib import Path
from typing import Any

from opendrivevla_ros.core.policy import DrivingPolicy
from opendrivevla_ros.policies.baselines import ConstantVelocityPolicy
from opendrivevla_ros.policies.errors import CheckpointError

PRECISIONS = ("float32", "bfloat16")
NAMES = ("constant_velocity", "opendrivevla-small-random")


def load_policy(
    folder_or_name: str | Path, *, device: str = "cpu", precision: str = "float32", seed: int = 0, **options: Any
) -> DrivingPolicy:
    """The policy of a name in NAMES, or of a checkpoint folder (config.json, model.safetensors, tokenizer files).

    device: "cpu", "cuda" or "cuda:N". seed: of random weights and of sampled plans. options: fields of
    `opendrivevla.policy.PlanningOptions`; a baseline takes none.
    Raises CheckpointError for an unknown name, an unfit folder, precision, device or option.
    """
    name = str(folder_or_name)
    if precision not in PRECISIONS:
        raise CheckpointError(f"precision {precision!r} is not supported; choose one of {', '.join(PRECISIONS)}")
    if name == "constant_velocity":
        if options:
            raise CheckpointError(f"constant_velocity takes no options, but got {', '.join(sorted(options))}")
        return ConstantVelocityPolicy()
    if name != "opendrivevla-small-random" and not Path(folder_or_name).is_dir():
        raise CheckpointError(
            f"{name!r} is neither a checkpoint folder nor a policy name; the names are {', '.join(NAMES)}"
        )
    from opendrivevla_ros.policies.opendrivevla import loading

    if name == "opendrivevla-small-random":
        return loading.random_small(device=device, precision=precision, seed=seed, **options)
    return loading.from_folder(Path(folder_or_name), device=device, precision=precision, seed=seed, **options)
