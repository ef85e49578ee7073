"""A point in time by which generation must be over."""

import time
from dataclasses import dataclass


class DeadlineExceeded(Exception):
    """The deadline passed before the text was whole."""


@dataclass(frozen=True)
class Deadline:
    """monotonic_ns: on the clock of time.monotonic_ns; None never passes."""

    monotonic_ns: int | None = None

    def check(self) -> None:
        """Raises DeadlineExceeded once the time has come."""
        if self.monotonic_ns is not None and (late := time.monotonic_ns() - self.monotonic_ns) >= 0:
            raise DeadlineExceeded(f"the deadline passed {late / 1e6:.1f} ms ago, before the text was whole")
