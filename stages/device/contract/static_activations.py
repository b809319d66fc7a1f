"""Activations as integers with a scale and a zero point that are fixed beforehand: QuantizeLinear nodes (QDQ).

    stored uint16 or uint8   [any]   clip(rint(x / scale) + zero, 0, most)      most = 65535 or 255
    x ~ (stored - zero) · scale

One encoding serves all tokens; it comes from calibration, and values beyond what was seen there are clipped. 0 is
always one of the numbers. Unsigned is what NPU compilers agree on. Source: BlueLM-V-3B Sec. 3.4 (INT16 activations,
INT8 KV).
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

StoredType = Literal["uint8", "uint16"]
MOST: dict[str, int] = {"uint8": 255, "uint16": 65535}
# A range narrower than this would have a scale that float16 arithmetic on an NPU takes for zero.
NARROWEST = 1e-4


class Encoding(NamedTuple):
    """How a value is stored: a float32 scale, the integer that stands for 0, and the integers' type."""

    scale: float
    zero: int
    dtype: StoredType = "uint16"

    @property
    def lowest(self) -> float:
        """The smallest number it holds."""
        return -self.zero * self.scale

    @property
    def highest(self) -> float:
        """The largest number it holds."""
        return (MOST[self.dtype] - self.zero) * self.scale


def encoding_of(low: float, high: float, dtype: StoredType = "uint16") -> Encoding:
    """The finest encoding that holds `low` to `high`, and 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    if high - low < NARROWEST:
        high = low + NARROWEST
    scale = float(np.float32((high - low) / MOST[dtype]))
    zero = int(np.clip(np.rint(-low / scale), 0, MOST[dtype]))
    return Encoding(scale, zero, dtype)


def symmetric(largest: float, dtype: StoredType = "uint16") -> Encoding:
    """As many steps on either side of 0: the values of signed integers, stored unsigned."""
    half = (MOST[dtype] + 1) // 2
    return Encoding(float(np.float32(largest / (half - 1))) if largest > 0 else 1.0, half, dtype)


def round_static(x: NDArray[Any], encoding: Encoding) -> NDArray[Any]:
    """What is stored of x, any shape; half to even, in float32."""
    steps = np.rint(x.astype(np.float32, copy=False) / np.float32(encoding.scale))
    return np.clip(steps + np.float32(encoding.zero), 0, MOST[encoding.dtype]).astype(encoding.dtype)


def unround_static(stored: NDArray[Any], encoding: Encoding) -> NDArray[np.float32]:
    """The numbers that a product with these activations computes with."""
    whole: NDArray[np.float32] = (stored.astype(np.float32) - encoding.zero) * np.float32(encoding.scale)
    return whole
