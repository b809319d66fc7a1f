"""INT4 weights in blocks, expanded to INT8 for one layer's products: exact, since block scales are integer steps.

    [N, G, B/2] bytes ─ transpose [G·B/2, N] ─ halves of bytes to even and odd rows ─ minus 8, times steps ─ int8 [K, N]

Axes: N output rows, K input columns, B block length, G = K/B. Numerics: contract/int4_blocks.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from stages.device.contract.int4_blocks import ZERO_POINT


class Expander:
    """Expands weights with some threads; numpy lets go of the interpreter's lock while it works.

    Args:
        pool: the threads.
        threads: how many pieces work is cut into.
    """

    def __init__(self, pool: ThreadPoolExecutor, threads: int) -> None:
        self._pool, self._threads = pool, threads

    def __call__(self, packed: NDArray[np.uint8], steps: NDArray[np.int8], out: NDArray[np.int8]) -> None:
        """Writes nibble · step for every weight.

        Args:
            packed: [N, G, B/2], as MatMulNBits has them: even columns in the low halves, value + 8.
            steps: [G, N].
            out: [K, N].
        """
        blocks = packed.shape[1]
        shares = [range(first, blocks, self._threads) for first in range(min(self._threads, blocks))]
        for done in [self._pool.submit(_expand, packed, steps, out, share) for share in shares]:
            done.result()


def _expand(packed: NDArray[np.uint8], steps: NDArray[np.int8], out: NDArray[np.int8], blocks: Iterable[int]) -> None:
    """Some blocks, one at a time, so that a block's bytes stay in the cache of the core between the passes."""
    rows, _, half = packed.shape
    turned = np.empty((half, rows), np.uint8)
    for block in blocks:
        np.copyto(turned, packed[:, block].T)
        values = out[2 * half * block : 2 * half * (block + 1)].reshape(half, 2, rows)
        nibbles = values.view(np.uint8)
        np.bitwise_and(turned, 0xF, out=nibbles[:, 0])
        np.right_shift(turned, 4, out=nibbles[:, 1])
        np.subtract(values, np.int8(ZERO_POINT), out=values)
        np.multiply(values, steps[block], out=values)
