"""Seeds of training, validation and test are disjoint by construction."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opendrivevla_ros.world.seeds import Split, seed_of, split_of


@given(st.sampled_from(Split), st.integers(0, 10**9))
def test_a_seed_belongs_to_the_split_it_was_taken_from(split: Split, index: int) -> None:
    assert split_of(seed_of(split, index)) is split


def test_seeds_of_a_split_are_all_different_and_every_seed_is_in_one_split() -> None:
    seeds = [seed_of(Split.TRAIN, k) for k in range(80)]
    seeds += [seed_of(split, k) for split in (Split.VALIDATION, Split.TEST) for k in range(10)]
    assert sorted(seeds) == list(range(100))


def test_a_negative_index_is_refused() -> None:
    with pytest.raises(ValueError, match="count from 0"):
        seed_of(Split.TEST, -1)
