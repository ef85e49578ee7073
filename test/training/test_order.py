"""The order of samples: every sample once an epoch, split among processes, and the same from any start."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.order import SampleOrder

counts = st.integers(1, 30)


@given(samples=counts, batch_size=st.integers(1, 7), seed=st.integers(0, 99))
def test_every_epoch_holds_every_sample_once(samples: int, batch_size: int, seed: int):
    order = SampleOrder(samples, batch_size=batch_size, seed=seed, first=0, last=samples * 2)
    positions = [index for batch in order for index in batch]
    assert len(positions) == samples * 2 * batch_size
    for epoch in range(2 * batch_size):
        assert sorted(positions[epoch * samples : (epoch + 1) * samples]) == list(range(samples))


@given(samples=counts, first=st.integers(0, 12))
def test_an_order_that_starts_later_gives_the_same_batches(samples: int, first: int):
    whole = list(SampleOrder(samples, batch_size=3, seed=1, first=0, last=12))
    assert list(SampleOrder(samples, batch_size=3, seed=1, first=first, last=12)) == whole[first:]


def test_the_processes_share_out_the_batches():
    alone = list(SampleOrder(20, batch_size=2, seed=1, first=0, last=6))
    shared = [list(SampleOrder(20, batch_size=2, seed=1, first=0, last=2, rank=rank, ranks=3)) for rank in range(3)]
    assert [batch for step in zip(*shared, strict=True) for batch in step] == alone


def test_seeds_give_different_orders():
    first, second = (list(SampleOrder(30, batch_size=30, seed=seed, first=0, last=1)) for seed in (0, 1))
    assert first != second


def test_no_samples_are_refused():
    with pytest.raises(TrainingError, match="holds no samples"):
        SampleOrder(0, batch_size=1, seed=0, first=0, last=1)
