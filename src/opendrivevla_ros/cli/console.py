"""What the subcommands share: the terminal, failing with one sentence, figures in tables."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from opendrivevla_ros.core.workers import WorkerDied
from opendrivevla_ros.datasets.bags import BagError
from opendrivevla_ros.policies.registry import CheckpointError
from opendrivevla_ros.ros.command_node import RosNotFound
from opendrivevla_ros.sensing.calibration import CalibrationError

PACKAGES_OF_THE_WORLD = (
    "panda3d",
    "shapely",
    "matplotlib",
    "torch",
    "accelerate",
    "tensorboard",
    "sacrebleu",
    "nuscenes",
    "motmetrics",
    "pandas",
)

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


class CommandError(Exception):
    """A command that cannot do its job: one sentence with the remedy."""


USER_ERRORS = (
    CommandError,
    BagError,
    CalibrationError,
    CheckpointError,
    RosNotFound,
    WorkerDied,
    OSError,
)  # each a sentence that says what to do


@contextmanager
def one_sentence_errors() -> Iterator[None]:
    """Turns what a user can mend (a bag, a file, a name) into one line on stderr and exit code 1."""
    try:
        yield
    except USER_ERRORS as error:
        errors.print(f"[red]error:[/red] {error}", soft_wrap=True)
        raise typer.Exit(1) from None


@contextmanager
def packages_of_the_world() -> Iterator[None]:
    """Turns a package that the world, training or evaluation lacks into a CommandError."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in PACKAGES_OF_THE_WORLD:
            raise
        remedy = "pip install -r requirements/training.txt"
        raise CommandError(f"the driving world needs {error.name}, which is not installed; {remedy}") from None


def progress_bar() -> Progress:
    """A progress bar for fractions, with the time so far and an estimate of what is left; it goes away at the end."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"))
    times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    # estimated from all that was done: steps may be minutes apart, which is longer than what is looked at by default
    return Progress(*columns, *times, console=console, transient=True, speed_estimate_period=math.inf)


def show_progress(what: str, shares: Iterable[float]) -> None:
    """Does work that yields the share of it that is done, under a progress bar."""
    with progress_bar() as bar:
        task = bar.add_task(what, total=1.0)
        for share in shares:
            bar.update(task, completed=share)


def summarize_times(seconds: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """p50 and p95 in milliseconds, and the count, by name; names without samples are left out."""
    return {
        name: {
            "p50_ms": round(float(np.percentile(samples, 50)) * 1e3, 3),
            "p95_ms": round(float(np.percentile(samples, 95)) * 1e3, 3),
            "count": len(samples),
        }
        for name, samples in seconds.items()
        if len(samples)
    }


def times_table(times: Mapping[str, Mapping[str, float]]) -> Table:
    """The table of `summarize_times`."""
    table = Table("stage", "p50 ms", "p95 ms", "count")
    for name, row in times.items():
        table.add_row(name, f"{row['p50_ms']:.2f}", f"{row['p95_ms']:.2f}", str(int(row["count"])))
    return table


def package_version() -> str:
    """The version of this package, which results are written with."""
    try:
        return version("opendrivevla_ros")
    except PackageNotFoundError:  # run from the source tree
        return "source tree"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes readable JSON."""
    path.write_text(json.dumps(content, indent=2) + "\n")
