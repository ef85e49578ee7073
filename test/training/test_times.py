"""How long the parts of a run took."""

from pathlib import Path

import pytest

from opendrivevla_ros.training import times
from opendrivevla_ros.training.times import read_times, timed, told


def test_the_sittings_of_a_part_count_together_also_one_that_was_broken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    clock = iter([0.0, 3600.0, 5000.0, 5900.0, 6000.0, 7800.0])
    monkeypatch.setattr(times.time, "monotonic", lambda: next(clock))
    run = tmp_path / "run"
    assert read_times(run) == {}
    with timed(run, "drives"):
        pass
    with pytest.raises(KeyboardInterrupt), timed(run, "perception"):
        raise KeyboardInterrupt
    with timed(run, "perception"):
        pass
    assert read_times(run) == {"drives": 3600.0, "perception": 2700.0}
    assert told(read_times(run)) == "1.8 hours by the clock: drives 1.0, perception 0.8"
