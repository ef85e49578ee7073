"""Results as JSON and as Markdown tables."""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

from opendrivevla_ros.evaluation.open_loop import HorizonValues


def json_text(result: Any) -> str:
    """A result dataclass as JSON; numbers that are not finite become null."""
    return json.dumps(_plain(result), indent=2) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, HorizonValues):
        return {**dataclasses.asdict(value), "average": value.average}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def share(value: float) -> str:
    """A share of 1 as percent."""
    return f"{100 * value:.2f} %"
