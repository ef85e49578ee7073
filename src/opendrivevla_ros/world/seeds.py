"""Which seeds are for training, validation and test: disjoint by construction, by the last decimal digit."""

from enum import Enum


class Split(Enum):
    """A share of all seeds; the values are the last digits that belong to it."""

    TRAIN = (0, 1, 2, 3, 4, 5, 6, 7)
    VALIDATION = (8,)
    TEST = (9,)


def seed_of(split: Split, index: int) -> int:
    """The seed with number `index` of a split. Raises ValueError for a negative index."""
    if index < 0:
        raise ValueError(f"seed index {index} is negative; count from 0")
    tens, digit = divmod(index, len(split.value))
    return 10 * tens + split.value[digit]


def split_of(seed: int) -> Split:
    """The split that a seed belongs to."""
    return next(split for split in Split if seed % 10 in split.value)
