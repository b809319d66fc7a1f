"""In which order samples are seen: a pure function of seed and sizes, so that a resumed run goes on where it stopped.

The run is one stream of shuffled passes over the data, cut into batches; a batch may span two passes, so every step has
exactly the batch that the recipe says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

# Batches that are sorted by length together: enough to pad little, few enough to stay shuffled.
_WINDOW = 32


class BatchOrder(Sampler[list[int]]):
    """Indices of the samples of every batch of a run.

    Args:
        lengths: tokens of each sample.
        batch_size: samples per batch (of one device and one pass).
        batches: batches of the whole run, over all processes.
        seed: seed of the shuffles.
        by_length: put samples of similar length together.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, batches: int, seed: int, by_length: bool) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.drop_last = True
        self.batches = batches
        self.seed = seed
        self.by_length = by_length

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[int]]:
        stream = self._stream()
        rng = np.random.default_rng([self.seed, 1])
        left = self.batches
        while left > 0:
            count = min(_WINDOW, left)
            indices = np.fromiter(stream, dtype=np.int64, count=count * self.batch_size)
            if self.by_length:
                indices = indices[np.argsort(self.lengths[indices], kind="stable")]
            window = indices.reshape(count, self.batch_size)  # [batches of the window, samples]
            if self.by_length:
                window = window[rng.permutation(count)]
            yield from window.tolist()
            left -= count

    def _stream(self) -> Iterator[int]:
        """Every sample once, shuffled; then again in another order; without end."""
        epoch = 0
        while True:
            yield from np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.lengths)).tolist()
            epoch += 1
