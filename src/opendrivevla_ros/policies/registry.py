"""Policies by name or by checkpoint folder. Nothing that needs torch is imported before such a policy is asked for."""

import hashlib
import json
from pathlib import Path
from typing import Any

from opendrivevla_ros.core.installation import install_file
from opendrivevla_ros.core.policy import DrivingPolicy
from opendrivevla_ros.policies.baselines import ConstantVelocityPolicy
from opendrivevla_ros.policies.errors import CheckpointError

PRECISIONS = ("float32", "bfloat16", "int8")
BASELINES = ("constant_velocity", "ego_state")  # kinds of policies without a language model
SHIPPED = "opendrivevla-small"
EGO_STATE = "ego_state"
SHIPPED_FOLDERS = {SHIPPED: "checkpoints/small", EGO_STATE: "checkpoints/ego_state"}
RANDOM = "opendrivevla-small-random"  # the same network with random weights
RANDOM_AUTOVLA = "autovla-small-random"
NAMES = (SHIPPED, RANDOM, RANDOM_AUTOVLA, "constant_velocity", EGO_STATE)
UNDESCRIBED = ("README.md", "model.safetensors")  # see `described`
BLIND = ("constant_velocity", EGO_STATE)  # stand beside every policy: they tell how much of its figures needs eyes


def load_policy(
    folder_or_name: str | Path, *, device: str = "cpu", precision: str = "float32", seed: int = 0, **options: Any
) -> DrivingPolicy:
    """The policy of a name in NAMES, or of a checkpoint folder, whose config.json names its kind.

    device: "cpu", "cuda" or "cuda:N"; baselines always run on the CPU. precision: of PRECISIONS; "int8" is "bfloat16"
    with the language model's weights in int8. seed: of random weights and of sampled plans.
    options: fields of the policy's `PlanningOptions`, in `opendrivevla.policy` or `autovla.policy`, and `cameras` of
    `autovla.loading.from_folder`; any other policy takes 6 `cameras` alone, as many as it is shown, and a baseline
    nothing else.
    Raises CheckpointError for an unknown name, an unfit folder, precision, device or option.
    """
    name = str(folder_or_name)
    if name in SHIPPED_FOLDERS:
        return load_policy(_shipped_folder(name), device=device, precision=precision, seed=seed, **options)
    if precision not in PRECISIONS:
        raise CheckpointError(f"precision {precision!r} is not supported; choose one of {', '.join(PRECISIONS)}")
    if name not in NAMES and not Path(folder_or_name).is_dir():
        raise CheckpointError(
            f"{name!r} is neither a checkpoint folder nor a policy name; the names are {', '.join(NAMES)}"
        )
    kind = kind_of(folder_or_name)
    if kind != "autovla" and (cameras := options.pop("cameras", 6)) != 6:
        raise CheckpointError(
            f"{name} cannot do with {cameras!r} cameras in place of six; give 6, or choose an AutoVLA, which takes 3"
        )
    if kind in BASELINES and options:
        raise CheckpointError(f"{kind} takes no options, but got {', '.join(sorted(options))}")
    if kind == "constant_velocity":
        return ConstantVelocityPolicy()
    if kind == "ego_state":
        from opendrivevla_ros.policies.ego_state import load_ego_state

        return load_ego_state(Path(folder_or_name))
    if kind == "autovla":
        from opendrivevla_ros.policies.autovla import loading as autovla

        if name == RANDOM_AUTOVLA:
            return autovla.random_small(device=device, precision=precision, seed=seed, **options)
        return autovla.from_folder(Path(folder_or_name), device=device, precision=precision, seed=seed, **options)
    from opendrivevla_ros.policies.opendrivevla import loading

    if name == RANDOM:
        return loading.random_small(device=device, precision=precision, seed=seed, **options)
    return loading.from_folder(Path(folder_or_name), device=device, precision=precision, seed=seed, **options)


def described(folder_or_name: str | Path) -> dict[str, str]:
    """By name the SHA-256 of every file that a policy is made of; {} without a folder.

    The card is left out, and so are the weights, whose checksum is a file beside them.

    Raises CheckpointError for a shipped one that is not there.
    """
    name = str(folder_or_name)
    folder = _shipped_folder(name) if name in SHIPPED_FOLDERS else Path(folder_or_name)
    if name in NAMES and name not in SHIPPED_FOLDERS:
        return {}
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name not in UNDESCRIBED)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _shipped_folder(name: str) -> Path:
    try:
        return install_file(SHIPPED_FOLDERS[name])
    except FileNotFoundError as error:
        raise CheckpointError(str(error)) from error


def kind_of(folder_or_name: str | Path) -> str:
    """One of BASELINES, "autovla", or "opendrivevla" for everything else, also for what its loader then refuses."""
    if str(folder_or_name) in BLIND:
        return str(folder_or_name)
    if str(folder_or_name) == RANDOM_AUTOVLA:
        return "autovla"
    try:
        config = json.loads((Path(folder_or_name) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "opendrivevla"
    kind = config.get("policy") if isinstance(config, dict) else None
    return kind if kind in ("ego_state", "autovla") else "opendrivevla"
