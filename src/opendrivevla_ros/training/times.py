"""How long each part of a run took, over all its sittings: a table of a row for each sitting."""

import csv
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

TIMES_FILE = "times.csv"


@contextmanager
def timed(folder: Path, part: str) -> Iterator[None]:
    """Adds how long the block took to a run's table, also where it was broken off."""
    started = time.monotonic()
    try:
        yield
    finally:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / TIMES_FILE).open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow([part, round(time.monotonic() - started, 1)])


def read_times(folder: Path) -> dict[str, float]:
    """Seconds of each part of a run, in the order in which they began; empty where nothing was timed."""
    path = folder / TIMES_FILE
    if not path.exists():
        return {}
    times: dict[str, float] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for part, seconds in csv.reader(file):
            times[part] = times.get(part, 0.0) + float(seconds)
    return times


def told(times: Mapping[str, float]) -> str:
    """The times in words, for a card."""
    hours = ", ".join(f"{part} {seconds / 3600:.1f}" for part, seconds in times.items())
    return f"{sum(times.values()) / 3600:.1f} hours by the clock: {hours}"
