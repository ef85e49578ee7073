"""Work in processes of its own: results in order, and no work left behind by an error, a death or a kill."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from worker_tasks import double, end, noted, remember

from opendrivevla_ros.core.workers import WorkerDied, worked


def test_results_come_in_the_order_of_the_tasks(tmp_path: Path):
    found = list(worked(double, [(3,), (1,), (2,)], processes=2, begin=remember, given=(tmp_path,)))
    assert found == [6, 2, 4]
    assert 1 <= len(list(tmp_path.iterdir())) <= 2  # each process begins once
    assert list(worked(double, [], processes=2)) == []


def test_after_an_error_no_further_task_is_begun(tmp_path: Path):
    with pytest.raises(ValueError, match="the first one fails"):
        list(worked(noted, [(tmp_path, number) for number in range(500)], processes=1))
    assert len(list(tmp_path.iterdir())) < 10  # those that were on their way


def test_a_process_that_dies_is_one_sentence():
    with pytest.raises(
        WorkerDied, match=r"died at about \(7,\), perhaps for want of memory; try fewer than 2 processes"
    ):
        list(worked(end, [(7,)], processes=2))


WORKING = """
import sys, time
from pathlib import Path
from opendrivevla_ros.core.workers import worked
sys.path.insert(0, sys.argv[2])
import worker_tasks as tests

if __name__ == "__main__":
    list(worked(tests.stay, [(Path(sys.argv[1]),)], processes=1))
"""


def runs(process: int) -> bool:
    """Whether it is there, and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_who_works_ends_with_who_asked_for_it_even_if_that_is_killed(tmp_path: Path):
    script = tmp_path / "working.py"
    script.write_text(WORKING)
    folder = tmp_path / "workers"
    folder.mkdir()
    asking = subprocess.Popen([sys.executable, str(script), str(folder), str(Path(__file__).parents[1])])
    deadline = time.monotonic() + 60
    while not list(folder.iterdir()):
        assert time.monotonic() < deadline
        assert asking.poll() is None
        time.sleep(0.05)
    worker = int(next(folder.iterdir()).name)
    asking.send_signal(signal.SIGKILL)
    asking.wait()
    try:
        while runs(worker):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
