"""INT4 to INT8: the expanded weight is the dequantized one, and threads change nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from stages.device.contract import int4_blocks
from stages.device.contract.int4_blocks import Int4Blocks
from stages.device.runtime.expansion import Expander


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(("rows", "blocks", "block"), [(1, 1, 16), (5, 3, 32), (24, 2, 128), (7, 5, 64)])
def test_expanded_times_channel_scale_is_dequantized(rows: int, blocks: int, block: int, threads: int) -> None:
    rng = np.random.default_rng(rows)
    values = rng.integers(-8, 8, (rows, blocks * block)).astype(np.int8)
    steps = (rng.integers(1, 16, (rows, blocks)) * rng.choice([-1, 1], (rows, blocks))).astype(np.int8)
    channel = (2.0 ** rng.integers(-9, -3, rows)).astype(np.float32)
    quantized = Int4Blocks(values, channel[:, None] * steps, block)
    out = np.zeros((blocks * block, rows), np.int8)
    with ThreadPoolExecutor(threads) as pool:
        Expander(pool, threads)(int4_blocks.pack(quantized), np.ascontiguousarray(steps.T), out)
    np.testing.assert_array_equal(out.T * channel[:, None], int4_blocks.dequantize(quantized))
