"""A thread with a slot of one: the newest item wins, and nothing queues up behind slow work. No rclpy."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


def _nothing_to_do() -> bool:
    return False


class NewestWinsWorker(Generic[Item]):
    """Calls `work` with the newest submitted item, one at a time, in a thread of its own.

    work: must not raise. idle: called after `wake`, between items, so that neither starves the other; it does one
    piece of less urgent work and returns whether there may be more.
    """

    def __init__(self, name: str, work: Callable[[Item], None], idle: Callable[[], bool] = _nothing_to_do) -> None:
        self._work, self._idle = work, idle
        self._changed = threading.Condition()
        self._waiting: Item | None = None
        self._woken = False
        self._stopping = False
        self._busy_since: float | None = None  # steady clock, of the work in progress
        # A daemon, because a model in mid-inference cannot be interrupted and must not hold up the process's end.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, item: Item) -> bool:
        """Puts an item in the slot; True when it replaced one that was never worked on."""
        with self._changed:
            replaced = self._waiting is not None
            self._waiting = item
            self._changed.notify()
        return replaced

    def discard(self) -> None:
        """Empties the slot; work in progress goes on."""
        with self._changed:
            self._waiting = None

    def wake(self) -> None:
        """Says that there is idle work."""
        with self._changed:
            self._woken = True
            self._changed.notify()

    @property
    def is_busy(self) -> bool:
        with self._changed:
            return self._busy_since is not None

    @property
    def busy_s(self) -> float:
        """Seconds that the work in progress has taken; 0 where there is none."""
        with self._changed:
            return 0.0 if self._busy_since is None else time.monotonic() - self._busy_since

    def stop(self, timeout_s: float) -> bool:
        """Ends the thread after the work in progress; False when that takes longer than the timeout."""
        with self._changed:
            self._stopping = True
            self._waiting = None
            self._changed.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy_since = None
                while self._waiting is None and not self._woken and not self._stopping:
                    self._changed.wait()
                if self._stopping:
                    return
                item, self._waiting = self._waiting, None
                is_awake, self._woken = self._woken, False
                self._busy_since = time.monotonic()
            if item is not None:
                self._work(item)
            if is_awake and self._idle():
                self.wake()
