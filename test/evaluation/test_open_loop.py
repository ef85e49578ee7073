"""Open-loop displacement and the published collision test."""

import numpy as np
import pytest
from benchmarks.golden_metrics import compare
from hypothesis import given
from hypothesis import strategies as st

from opendrivevla_ros.evaluation import open_loop

CELL = open_loop.CELL_METRES
finite = st.floats(-60.0, 60.0, allow_nan=False)
points = st.lists(st.tuples(finite, finite), min_size=6, max_size=6).map(np.array)


def occupied_at(*cells: tuple[int, int]) -> np.ndarray:
    """Six equal tables with these (row, column) cells occupied."""
    table = np.zeros((6, 200, 200), dtype=bool)
    for row, column in cells:
        table[:, row, column] = True
    return table


def test_every_value_of_the_published_evaluation_is_reproduced(golden_folder):
    comparisons = list(compare(golden_folder))
    assert [str(comparison) for comparison in comparisons if not comparison.passed] == []
    assert len(comparisons) == 24


def test_a_folder_without_metrics_gives_no_comparison(tmp_path):
    assert list(compare(tmp_path)) == []


def test_the_ego_box_covers_the_published_cells():
    rows, columns = open_loop.ego_cells()
    expected = {(row, column) for row in range(97, 105) for column in range(98, 102)}
    assert set(zip(rows.tolist(), columns.tolist(), strict=True)) == expected
    assert len(rows) == 32


@given(finite, finite, st.floats(1.0, 8.0), st.floats(1.0, 8.0), st.floats(-np.pi, np.pi))
def test_cells_of_a_turned_rectangle_are_those_with_their_centre_inside(row, column, length, width, angle):
    corners = np.array([[length, width], [-length, width], [-length, -width], [length, -width]])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    rows, columns = open_loop.cells_in_polygon(corners @ turn.T + [row, column])
    grid = np.stack(np.meshgrid(np.arange(-80, 81), np.arange(-80, 81), indexing="ij"), axis=-1).reshape(-1, 2)
    own = np.abs((grid - [row, column]) @ turn) - [length, width]
    found = set(zip(rows.tolist(), columns.tolist(), strict=True))
    assert {tuple(cell) for cell in grid[(own < -1e-9).all(axis=1)].tolist()} <= found
    assert found <= {tuple(cell) for cell in grid[(own < 1e-9).all(axis=1)].tolist()}


@given(points, points, st.lists(st.booleans(), min_size=6, max_size=6))
def test_displacement_is_the_distance_where_observed_and_zero_elsewhere(predicted, reference, observed):
    mask = np.repeat(np.array(observed, dtype=float)[:, None], 2, axis=1)
    distance = open_loop.displacement(predicted, reference, mask)
    expected = np.linalg.norm(predicted - reference, axis=1) * observed
    np.testing.assert_allclose(distance, expected, rtol=1e-12, atol=1e-12)


@given(st.lists(st.tuples(points, points), min_size=1, max_size=3), st.integers(0, 2**32 - 1))
def test_a_batch_of_samples_gives_what_each_sample_gives_alone(samples, seed):
    predicted, reference = (np.stack(part) for part in zip(*samples, strict=True))
    occupancy = np.random.default_rng(seed).random((len(samples), 6, 200, 200)) < 0.01
    together = open_loop.collisions(predicted, reference, occupancy)
    for index in range(len(samples)):
        alone = open_loop.collisions(predicted[index], reference[index], occupancy[index])
        for name in ("box", "centre", "reference"):
            assert np.array_equal(getattr(together, name)[index], getattr(alone, name))


def test_the_box_moves_with_the_plan_and_rows_run_forward():
    plan = np.column_stack([np.arange(6) * 10.0, np.zeros(6)])
    assert open_loop.box_touches(plan, occupied_at((141, 100))).tolist() == [False, False, True, False, False, False]
    sideways = plan[:, ::-1]
    assert open_loop.box_touches(sideways, occupied_at((100, 141))).tolist() == [False, False, True] + [False] * 3


def test_steps_where_the_reference_collides_are_not_counted():
    plan, reference = np.zeros((6, 2)), np.zeros((6, 2))
    reference[3:] = [20.0, 0.0]
    outcome = open_loop.collisions(plan, reference, occupied_at((99, 99)))
    assert outcome.reference.tolist() == [True, True, True, False, False, False]
    assert outcome.box.tolist() == [False, False, False, True, True, True]
    assert outcome.centre.tolist() == outcome.box.tolist()


def test_beyond_the_grid_the_box_is_at_its_border_and_the_centre_touches_nothing():
    plan = np.full((6, 2), 80.0)
    occupancy = occupied_at((199, 199))
    assert open_loop.box_touches(plan, occupancy).all()
    assert not open_loop.centre_touches(plan, occupancy).any()


@pytest.mark.parametrize("steps", [6, 7])
def test_an_odd_time_length_drops_the_present_frame(steps):
    kept = open_loop.without_present(np.arange(steps))
    assert kept.tolist() == list(range(steps - 6, steps))


@pytest.mark.parametrize("steps", [0, 5, 8])
def test_other_time_lengths_are_refused(steps):
    with pytest.raises(ValueError, match=rf"got {steps} time steps; give 6 future steps"):
        open_loop.without_present(np.zeros((steps, 2)))


def test_the_two_conventions_average_steps_differently():
    values = [np.arange(6.0), np.arange(6.0) + 2.0]
    uniad, stp3 = open_loop.uniad_convention(values), open_loop.stp3_convention(values)
    assert (uniad.one_second, uniad.two_seconds, uniad.three_seconds, uniad.average) == (2.0, 4.0, 6.0, 4.0)
    assert (stp3.one_second, stp3.two_seconds, stp3.three_seconds, stp3.average) == (1.5, 2.5, 3.5, 2.5)


@pytest.mark.parametrize("convention", [open_loop.uniad_convention, open_loop.stp3_convention])
@pytest.mark.parametrize("values", [[], np.zeros((0, 6)), np.zeros((3, 5))])
def test_averages_of_nothing_or_of_other_steps_are_refused(convention, values):
    with pytest.raises(ValueError, match=r"values \[samples, 6\] of one sample or more, not"):
        convention(values)


def test_bad_positions_are_refused_in_one_sentence():
    good, bad = np.zeros((6, 2)), np.full((6, 2), np.nan)
    with pytest.raises(ValueError, match="predicted holds 12 values that are not finite"):
        open_loop.displacement(bad, good, good)
    with pytest.raises(ValueError, match=r"must have one shape"):
        open_loop.displacement(good, good[:1], good)
    with pytest.raises(ValueError, match=r"reference must be points .* not \[0, 2\]"):
        open_loop.displacement(good, good[:0], good)
    with pytest.raises(ValueError, match=r"occupancy must be \[6, 200, 200\] .* not \[5, 200, 200\]"):
        open_loop.collisions(good, good, np.zeros((5, 200, 200), dtype=bool))
