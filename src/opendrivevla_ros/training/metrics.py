"""What a run measures, step by step: a CSV table and TensorBoard events that a resumed run continues."""

import csv
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter

from opendrivevla_ros.training.errors import TrainingError

METRICS_FILE = "metrics.csv"
EVENTS_FOLDER = "tensorboard"


class Metrics:
    """Writes one row a step into a folder.

    resumed_at: the step that a run goes on after. Rows beyond it are dropped, and the events, of which a killed run
    loses some, are made anew from the table.
    """

    def __init__(self, folder: Path, *, resumed_at: int = 0) -> None:
        self._folder = folder
        path, events = folder / METRICS_FILE, folder / EVENTS_FOLDER
        kept = [row for row in read_metrics(folder) if row["step"] <= resumed_at]
        shutil.rmtree(events, ignore_errors=True)
        self._events = SummaryWriter(str(events))
        self._table: csv.DictWriter[str] | None = None
        temporary = path.with_suffix(".tmp")
        self._file = temporary.open("w", newline="", encoding="utf-8")
        for row in kept:
            self.write(int(row.pop("step")), row)
        self._file.flush()
        temporary.replace(path)  # the open file goes along

    def write(self, step: int, values: dict[str, float]) -> None:
        """One step's values; the names are those of the first step. Raises TrainingError where the disk is full."""
        row = {"step": step, **values}
        try:
            if self._table is None:
                self._table = csv.DictWriter(self._file, list(row))
                self._table.writeheader()
            self._table.writerow(row)
            self._file.flush()
            for name, value in values.items():
                self._events.add_scalar(name, value, step)
        except OSError as error:
            raise TrainingError(
                f"the metrics of step {step} cannot be written to {self._folder} ({error.strerror or error}); free"
                " disk space and start the same run again: it goes on from its last saved state"
            ) from error

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(OSError):  # every row is on disk already, or was refused
            self._file.close()
        with suppress(OSError):
            self._events.close()


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """The rows of a run's table; a last row that was cut off while being written is left out."""
    path = folder / METRICS_FILE
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        lines = [line for line in file if line.endswith("\n")]
    return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(lines)]


def first_and_last(rows: Sequence[Mapping[str, float]], name: str = "loss") -> tuple[float, float]:
    """A column's means over the first and over the last tenth of a run's rows."""
    tenth = max(len(rows) // 10, 1)
    first, last = (sum(row[name] for row in some) / tenth for some in (rows[:tenth], rows[-tenth:]))
    return first, last
