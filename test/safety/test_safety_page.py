"""docs/safety.md names every limit at its default, and every change of state."""

from pathlib import Path

import pytest

from opendrivevla_ros.safety.plan_checks import Limits
from opendrivevla_ros.safety.supervisor import TABLE, State

PAGE = (Path(__file__).parents[2] / "docs" / "safety.md").read_text()


@pytest.mark.parametrize("name", Limits.__dataclass_fields__)
def test_every_limit_is_there_with_its_default(name: str) -> None:
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `limits.{name}`")]
    assert row.split("|")[2].strip() == str(getattr(Limits(), name))


@pytest.mark.parametrize("state", State)
def test_every_state_names_those_that_follow_it(state: State) -> None:
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| {state.name} |")]
    for _, after in TABLE[state]:
        assert after.name in row
