"""Shared functions: inverse sigmoid, softmax, rotation of the grid."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from opendrivevla_ros.perception.transforms import inverse_sigmoid, rotate_bev, softmax_of_few


@given(st.floats(-10, 10))
def test_inverse_sigmoid_undoes_the_sigmoid(logit: float) -> None:
    value = torch.tensor(logit, dtype=torch.float64)
    torch.testing.assert_close(inverse_sigmoid(value.sigmoid()), value, rtol=1e-6, atol=1e-6)


def test_inverse_sigmoid_is_finite_at_and_beyond_the_ends() -> None:
    assert inverse_sigmoid(torch.tensor([-1.0, 0.0, 1.0, 2.0])).isfinite().all()


def test_softmax_of_few_is_softmax_also_of_a_view_that_is_not_contiguous() -> None:
    x = torch.randn(3, 12, 5)[:, ::2].transpose(1, 2).unflatten(2, (2, 3))
    torch.testing.assert_close(softmax_of_few(x), x.softmax(-1))


@pytest.mark.parametrize("size", [4, 5])
@pytest.mark.parametrize("quarters", [0, 1, 2, 3, -1, 4])
def test_quarter_turns_move_whole_cells_counter_clockwise_with_the_first_row_on_top(size: int, quarters: int) -> None:
    grid = torch.arange(1, size * size + 1).float().view(size, size)
    turned = rotate_bev(grid.view(-1, 1), 90.0 * quarters).view(size, size)
    assert turned.equal(grid.rot90(quarters))


def test_cells_that_come_from_outside_are_zero() -> None:
    turned = rotate_bev(torch.ones(100, 2), 45.0).view(10, 10, 2)
    assert turned[0, 0].eq(0).all()
    assert turned[5, 5].eq(1).all()
