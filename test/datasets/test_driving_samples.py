"""Values between and beyond measured times."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from opendrivevla_ros.datasets.driving_samples import COVER_TOLERANCE_S, values_at


@given(
    st.lists(st.floats(0.05, 2.0), min_size=1, max_size=12),
    st.lists(st.floats(-3.0, 20.0), min_size=1, max_size=8),
    st.floats(-5.0, 5.0),
)
def test_a_line_stays_a_line_wherever_it_is_covered(steps: list[float], wanted: list[float], slope: float) -> None:
    times = np.cumsum([0.0, *steps])
    found, covered = values_at(times, np.column_stack([slope * times, -times]), wanted)
    asked = np.array(wanted)
    inside = (asked >= -COVER_TOLERANCE_S) & (asked <= times[-1] + COVER_TOLERANCE_S)
    np.testing.assert_array_equal(covered, inside)
    np.testing.assert_allclose(found[covered], np.column_stack([slope * asked, -asked])[covered], atol=1e-9)
    assert not found[~covered].any()


def test_one_measured_time_covers_itself_only() -> None:
    found, covered = values_at([1.0], np.array([[3.0, 4.0]]), [0.5, 1.0, 1.05, 1.5])
    assert covered.tolist() == [False, True, True, False]
    np.testing.assert_array_equal(found, [[0, 0], [3, 4], [3, 4], [0, 0]])
