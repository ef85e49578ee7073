"""The table of parameters, its schema and the shipped files say the same."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from opendrivevla_ros.ros.parameters import ENTRIES, TABLE, contradictions, parameter_schema

CONFIG = Path(__file__).parents[2] / "config"
DEFAULTS = {entry.name: entry.default for entry in TABLE}


def _flat(group: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in group.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def test_the_shipped_schema_is_the_one_that_the_table_gives() -> None:
    assert json.loads((CONFIG / "vla.param.schema.json").read_text()) == parameter_schema(), (
        "write json.dumps(parameter_schema(), indent=2) to config/vla.param.schema.json"
    )


def test_the_shipped_parameter_file_holds_every_default_and_nothing_else() -> None:
    shipped = yaml.safe_load((CONFIG / "vla.param.yaml").read_text())["/**"]["ros__parameters"]
    assert _flat(shipped) == DEFAULTS


def test_every_default_is_within_its_own_limits() -> None:
    assert [entry.problem(entry.default) for entry in TABLE] == [""] * len(TABLE)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("sync.slop", 5.0, ["sync.slop is 5.0", "0.001 to 1 s"]),
        ("sync.anchor", "cam_top", ["'cam_top'", "cam_front, "]),
        ("device", "gpu", ["'gpu'", "cpu|cuda"]),
        ("seed", "zero", ["'zero'", "must be a int"]),
        ("autostart", 1, ["1", "must be a bool"]),
    ],
)
def test_a_wrong_value_is_named_with_its_limit(name: str, value: object, words: list[str]) -> None:
    problem = ENTRIES[name].problem(value)
    assert all(re.search(re.escape(word), problem) for word in words), problem


def test_an_integer_is_taken_for_a_number_of_seconds() -> None:
    assert ENTRIES["deadline"].problem(3) == ""


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "rig_file is empty"),
        ({"rig_file": "r", "sync.missing_camera": "hold_last", "sync.hold_max_age": 0.01}, "sync.hold_max_age"),
        ({"rig_file": "r", "sync.gap_limit": 0.1, "sync.slop": 0.5}, "sync.gap_limit"),
    ],
)
def test_values_that_contradict_each_other_are_named(changes: dict[str, Any], word: str) -> None:
    assert any(word in sentence for sentence in contradictions(DEFAULTS | changes))


def test_every_parameter_has_a_description_and_every_range_a_unit_or_a_count() -> None:
    for entry in TABLE:
        assert entry.description, entry.name
        assert (entry.minimum is None) == (entry.maximum is None), entry.name
        if isinstance(entry.default, float):
            assert entry.unit, entry.name
