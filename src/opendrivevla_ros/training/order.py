"""The order in which a run sees its samples: a function of the seed alone, so that a run can go on anywhere."""

from collections.abc import Iterator

import numpy as np

from opendrivevla_ros.training.errors import TrainingError


class SampleOrder:
    """Batches of sample indices, one epoch's permutation after the other; a batch may hold the seam of two.

    samples: how many there are. first, last: the batches to give, of all ranks together rank by rank. rank, ranks:
    of this process. Raises TrainingError where there are no samples.
    """

    def __init__(
        self, samples: int, *, batch_size: int, seed: int, first: int, last: int, rank: int = 0, ranks: int = 1
    ) -> None:
        if samples < 1:
            raise TrainingError("the data set holds no samples; export or record some before training")
        self._samples, self._batch_size, self._seed = samples, batch_size, seed
        self._batches = range(first * ranks + rank, last * ranks, ranks)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        epoch, permutation = -1, np.zeros(0, dtype=np.int64)
        for batch in self._batches:
            indices = []
            for position in range(batch * self._batch_size, (batch + 1) * self._batch_size):
                if position // self._samples != epoch:
                    epoch = position // self._samples
                    permutation = np.random.default_rng([self._seed, epoch]).permutation(self._samples)
                indices.append(int(permutation[position % self._samples]))
            yield indices
