"""The INT8 KV cache: one static scale per layer for the keys (after rotary) and one for the values.

    stored = clip(round_half_even(x / scale), -128, 127)        x' = stored · scale

That is what GroupQueryAttention does with `kv_cache_bit_width=8` and PER_TENSOR scales. Source: BlueLM-V-3B Sec. 3.4.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

VALUE_MIN, VALUE_MAX = -128, 127


def scale_for(largest: float) -> float:
    """The scale that lets values up to `largest` in magnitude through unclipped; a float32 number, 1 for 0."""
    return float(np.float32(largest) / np.float32(VALUE_MAX)) if largest else 1.0


def quantize(values: NDArray[Any], scale: float) -> NDArray[np.int8]:
    """Keys or values of one layer, any shape, to INT8; the division is done in float32."""
    ratio = values.astype(np.float32, copy=False) / np.float32(scale)
    return np.clip(np.rint(ratio), VALUE_MIN, VALUE_MAX).astype(np.int8)


def dequantize(stored: NDArray[np.int8], scale: float) -> NDArray[np.float32]:
    """What attention sees: stored · scale in float32."""
    return stored.astype(np.float32) * np.float32(scale)
