"""The policy's configuration as strict JSON."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from opendrivevla_ros.language.system_text import SMALL_SYSTEM_TEXT
from opendrivevla_ros.policies.errors import CheckpointError
from opendrivevla_ros.policies.opendrivevla import config as configs
from opendrivevla_ros.policies.opendrivevla.config import OpenDriveVlaConfig, parse_config, save_config
from opendrivevla_ros.policies.opendrivevla.model import empty_model


@pytest.mark.parametrize(
    "preset",
    [
        configs.base(),
        configs.base_3b(),
        configs.base_7b(),
        configs.small(300, 2),
        replace(configs.base(), language=None),
    ],
    ids=["base", "3b", "7b", "small", "perception_only"],
)
def test_every_preset_survives_json(preset: OpenDriveVlaConfig, tmp_path: Path) -> None:
    save_config(preset, tmp_path / "config.json")
    assert parse_config(json.loads((tmp_path / "config.json").read_text())) == preset


def test_a_file_from_before_thoughts_and_proposals_is_of_a_model_without(tmp_path: Path) -> None:
    save_config(configs.base(), tmp_path / "config.json")
    written = json.loads((tmp_path / "config.json").read_text())
    del written["thinks"], written["proposal_scales"]
    assert parse_config(written) == configs.base()


def test_small_has_a_short_system_text_of_its_own() -> None:
    assert configs.small(300, 2).system_text == SMALL_SYSTEM_TEXT
    assert len(SMALL_SYSTEM_TEXT) < 100 < len(configs.base().system_text)


def data(tmp_path: Path) -> dict:
    save_config(configs.small(300, 2), tmp_path / "config.json")
    return json.loads((tmp_path / "config.json").read_text())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(colour="red"), r"config has unknown keys \['colour'\]"),
        (lambda d: d.pop("eos_ids"), r"config lacks the keys \['eos_ids'\]"),
        (lambda d: d["perception"].pop("queries"), r"config\.perception lacks the keys \['queries'\]"),
        (lambda d: d["perception"].update(queries="many"), r"config\.perception\.queries must be int, not 'many'"),
        (lambda d: d["perception"].update(queries=True), r"config\.perception\.queries must be int, not True"),
        (lambda d: d["perception"].update(image_size=[1]), r"image_size must have 2 entries, not 1"),
        (lambda d: d["perception"].update(mean_bgr=[1, 2, "3"]), r"mean_bgr\[2\] must be float"),
        (lambda d: d["perception"]["quirks"].update(shift_leaks=1), r"quirks\.shift_leaks must be bool, not 1"),
        (lambda d: d.update(language=[]), r"config\.language must be an object"),
        (lambda d: d.update(policy="autovla"), r"config\.policy must be \"opendrivevla\", not 'autovla'"),
    ],
)
def test_a_wrong_configuration_is_refused_by_the_name_of_its_key(change, message: str, tmp_path: Path) -> None:
    plain = data(tmp_path)
    change(plain)
    with pytest.raises(ValueError, match=message):
        parse_config(plain)


@pytest.mark.parametrize(
    "change",
    [
        {"proposal_scales": ((0.1, 0.2),) * 5},
        {"proposal_scales": ((0.1, 0.2, 0.3),) * 6},
        {"proposal_scales": ((0.1, 0.0),) * 6},
        {"perception": replace(configs.small_perception(), ego_layers=0)},
    ],
    ids=["five pairs", "triples", "no error", "no query"],
)
def test_errors_of_proposals_that_cannot_be_are_refused(change: dict) -> None:
    with pytest.raises(CheckpointError, match=r"config\.proposal_scales"):
        empty_model(replace(configs.small(300, 2), **change))
