"""What an AutoVLA checkpoint folder holds, and what is wrong with it."""

from pathlib import Path

from opendrivevla_ros.policies import checkpoint
from opendrivevla_ros.policies.autovla.config import AutoVlaConfig
from opendrivevla_ros.policies.autovla.model import CODEBOOK, action_tokens, empty_model, load_codebook, load_config
from opendrivevla_ros.policies.errors import CheckpointError
from opendrivevla_ros.policies.loading import read_tokenizer
from opendrivevla_ros.policies.opendrivevla.inspection import Inspection, inspected


def inspect(folder: Path) -> Inspection:
    """Looks at everything in a folder, also after the first problem. Raises CheckpointError if there is no folder.

    Parameters are counted as vision, language and head.
    """
    return inspected(folder, load_config=load_config, shapes_of=_shapes, room_of=_room, other_problems=_vocabulary)


def _shapes(config: AutoVlaConfig) -> dict[str, tuple[int, ...]]:
    return checkpoint.expected_shapes(empty_model(config))


def _vocabulary(folder: Path, config: AutoVlaConfig) -> list[str]:
    """What is wrong with tokenizer and codebook."""
    try:
        tokenizer = read_tokenizer(folder, config.language.vocabulary_size)
        checkpoint.require(folder, CODEBOOK)
        action_tokens(config, tokenizer, load_codebook(folder / CODEBOOK))
    except CheckpointError as error:
        return [str(error)]
    return []


def _room(name: str) -> str:
    if name.startswith("model.visual."):
        return "vision"
    return "language" if name.startswith("model.") else "head"
