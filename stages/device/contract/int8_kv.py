"""The INT8 KV cache: static scales for the keys (after rotary) and for the values of each layer.

    stored = clip(round_half_even(x / scale), -128, 127)        x' = stored · scale

A layer has one scale, or one per KV head, or one per channel of each head. That is what GroupQueryAttention does with
`kv_cache_bit_width=8` and PER_TENSOR scales, or PER_CHANNEL ones: onnxruntime 1.31 has no scales per head, so those are
written once for each of the head's channels. Axes: K KV heads, T tokens, D head size. Source: BlueLM-V-3B Sec. 3.4.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

VALUE_MIN, VALUE_MAX = -128, 127

# What shares a scale: all keys of a layer, those of a head, or one channel of a head.
Granularity = Literal["tensor", "head", "channel"]
# One number, or an array that broadcasts against [K, T, D].
Scale = float | NDArray[np.float32]


def scale_for(largest: float) -> float:
    """The scale that lets values up to `largest` in magnitude through unclipped; a float32 number, 1 for 0."""
    return float(np.float32(largest) / np.float32(VALUE_MAX)) if largest else 1.0


def quantize(values: NDArray[Any], scale: Scale) -> NDArray[np.int8]:
    """Keys or values of one layer, any shape, to INT8; the division is done in float32."""
    ratio = values.astype(np.float32, copy=False) / np.asarray(scale, np.float32)
    return np.clip(np.rint(ratio), VALUE_MIN, VALUE_MAX).astype(np.int8)


def dequantize(stored: NDArray[np.int8], scale: Scale) -> NDArray[np.float32]:
    """What attention sees: stored · scale in float32."""
    floats: NDArray[np.float32] = stored.astype(np.float32) * np.asarray(scale, np.float32)
    return floats
