"""Waypoints as text and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from opendrivevla_ros.language.trajectory_text import TrajectoryTextError, format_trajectory, parse_trajectory

POINTS = "(0.00,3.10),(0.01,6.20),(0.02,9.30),(0.03,12.40),(0.05,15.50),(-0.08,18.60)"
WHOLE = f"<traj_start>[{POINTS}]<traj_end>"


@given(arrays(np.float64, (6, 2), elements=st.floats(-999.99, 999.99)))
def test_a_formatted_trajectory_parses_to_its_values_rounded_to_centimetres(xy: np.ndarray) -> None:
    parsed = parse_trajectory(format_trajectory(xy))
    assert np.array_equal(parsed, [[float(f"{x:.2f}"), float(f"{y:.2f}")] for x, y in xy])


@given(st.text(alphabet="<traj_stend>[](),.-0123456789 "))
def test_any_text_parses_to_six_points_or_is_refused(text: str) -> None:
    try:
        waypoints = parse_trajectory(text)
    except TrajectoryTextError:
        return
    assert waypoints.shape == (6, 2)


@given(st.integers(0, len(WHOLE) - 1))
def test_a_text_that_is_cut_off_inside_the_list_is_refused(length: int) -> None:
    cut = WHOLE[:length]
    if "]" not in cut:
        with pytest.raises(TrajectoryTextError):
            parse_trajectory(cut)


@pytest.mark.parametrize(
    "text",
    [
        f"[{POINTS}] and [{POINTS}]",
        f"[{POINTS}](1.00,2.00)",
        f"<traj_end>[{POINTS}]<traj_start>",
        f"<traj_start><traj_start>[{POINTS}]<traj_end>",
        f"<traj_start>{POINTS}<traj_end>",
        f"[{POINTS},]",
        f"[{POINTS.replace('3.10', '٣.10')}]",
        f"[{POINTS.replace('3.10', '3100.10')}]",
        f"[{POINTS.replace('3.10', '+3.10')}]",
        f"[{POINTS.replace('3.10', '3,10')}]",
        f"[{POINTS.replace('3.10', '- 3.10')}]",
    ],
)
def test_anything_but_one_plain_list_of_six_pairs_is_refused(text: str) -> None:
    with pytest.raises(TrajectoryTextError):
        parse_trajectory(text)


@pytest.mark.parametrize("bad", [np.zeros((5, 2)), np.full((6, 2), np.nan), np.full((6, 2), 1000.0)])
def test_values_that_the_text_cannot_hold_are_not_formatted(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="trajectory text holds"):
        format_trajectory(bad)


def test_a_long_text_is_quoted_in_part_by_the_error() -> None:
    with pytest.raises(TrajectoryTextError) as caught:
        parse_trajectory("word " * 10_000)
    assert len(str(caught.value)) < 400
