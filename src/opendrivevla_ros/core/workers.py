"""Work in processes of its own: it ends with who asked for it, and with its first error."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any, TypeVar

Result = TypeVar("Result")


class WorkerDied(RuntimeError):
    """A process that is gone: one sentence that says at what, and what to try."""


def worked(
    work: Callable[..., Result],
    tasks: Sequence[tuple[Any, ...]],
    *,
    processes: int,
    begin: Callable[..., object] | None = None,
    given: tuple[Any, ...] = (),
) -> Iterator[Result]:
    """The results in the order of the tasks, each as soon as it and those before it are there.

    work: a function of a module, called with each task's arguments in one of so many fresh processes. begin: is called
    with `given` in each of them first. After an error, or where nobody wants more results, no further task is begun.
    Raises WorkerDied where a process dies, and what `work` raises.
    """
    if not tasks:
        return
    pool = ProcessPoolExecutor(min(processes, len(tasks)), get_context("spawn"), _begin, (begin, given))
    done = 0
    try:
        for job in [pool.submit(work, *task) for task in tasks]:
            yield job.result()
            done += 1
    except BrokenProcessPool:
        raise WorkerDied(
            f"a worker process died at about {tasks[done]}, perhaps for want of memory; try fewer than"
            f" {processes} processes"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(begin: Callable[..., object] | None, given: tuple[Any, ...]) -> None:
    _end_with_parent()
    if begin is not None:
        begin(*given)


def _end_with_parent() -> None:
    """Ends this process when the one that started it is gone: one that is killed cannot tell its workers."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()
