"""The presets' sizes against the published keys and the public parameter counts."""

from pathlib import Path

import pytest

from opendrivevla_ros.policies import checkpoint
from opendrivevla_ros.policies.opendrivevla import config as configs
from opendrivevla_ros.policies.opendrivevla.config import OpenDriveVlaConfig
from opendrivevla_ros.policies.opendrivevla.import_published import PERCEPTION_PREFIX
from opendrivevla_ros.policies.opendrivevla.model import empty_model


def published_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes by this package's names, of a list of published keys."""
    shapes = {}
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            name, shape = line.split("\t")[:2]
            perception = name.startswith(PERCEPTION_PREFIX)
            own = f"perception.{name.removeprefix(PERCEPTION_PREFIX)}" if perception else f"language.{name}"
            shapes[own] = tuple(int(size) for size in shape.strip("[]").split(",") if size)
    return shapes


def test_base_has_exactly_the_published_keys_and_shapes(golden_folder: Path) -> None:
    expected = published_shapes(golden_folder / "vla_keys.txt")
    perception = published_shapes(golden_folder / "perception_keys.txt")
    expected.update({name.replace("language.", "perception."): shape for name, shape in perception.items()})
    del expected["language.lm_head.weight"]  # tied to the embedding
    assert checkpoint.expected_shapes(empty_model(configs.base())) == expected


@pytest.mark.parametrize(
    ("config", "parameters"),
    [(configs.base(), 494_032_768), (configs.base_3b(), 3_085_938_688), (configs.base_7b(), 7_615_616_512)],
    ids=["0.5b", "3b", "7b"],
)
def test_language_sizes_are_those_of_qwen(config: OpenDriveVlaConfig, parameters: int) -> None:
    model = empty_model(config).language
    assert model is not None
    named = model.named_parameters()
    assert sum(parameter.numel() for name, parameter in named if "mm_projector" not in name) == parameters


def test_small_stays_small() -> None:
    model = empty_model(configs.small(768, 1))
    assert sum(parameter.numel() for parameter in model.parameters()) < 4_000_000
