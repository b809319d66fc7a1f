"""How fast memory is read: what bounds decoding.

Every thread multiplies its part of an array by itself and adds up, which is one pass over memory and little else.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

import numpy as np

# Far more than any cache holds.
ARRAY_BYTES = 512 << 20
GIGA = 1e9


class ReadRate(Protocol):
    """Reads the array once and gives GB/s."""

    def __call__(self) -> float: ...


@contextmanager
def reader(threads: int, array_bytes: int = ARRAY_BYTES) -> Iterator[ReadRate]:
    """Allocates an array and gives what reads it; call that several times and take the best or the median."""
    array = np.ones(array_bytes // 4, np.float32)
    parts = np.array_split(array, threads)
    with ThreadPoolExecutor(threads) as pool:

        def rate() -> float:
            start = time.perf_counter()
            for _ in pool.map(lambda part: np.dot(part, part), parts):
                pass
            return array.nbytes / (time.perf_counter() - start) / GIGA

        yield rate
