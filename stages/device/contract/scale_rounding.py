"""How a scale becomes a stored number: shared by every quantized form, so that all agree to the last bit."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray


def store_scales(
    extreme: NDArray[Any], reach: int, dtype: Literal["float16", "float32"] = "float32"
) -> NDArray[np.float32]:
    """extreme / reach, rounded to what the file holds and given back in float32.

    Args:
        extreme: the values of largest magnitude, any shape, finite.
        reach: the quantized value they shall land on (7, -8, 127).
        dtype: the stored type.

    Returns:
        Same shape, float32, never 0: 1 where `extreme` is 0; one step away from 0 where rounding (of tiny, subnormal
        scales) would otherwise push the extreme more than half a step beyond `reach`.

    Raises:
        OverflowError: a scale is beyond the range of `dtype`.
    """
    exact = (extreme.astype(np.float32) / np.float32(reach)).astype(np.float32)
    with np.errstate(over="ignore"):
        stored = exact.astype(dtype)
    if not np.isfinite(stored).all():
        raise OverflowError(f"a scale of {np.abs(exact).max():g} does not fit into {dtype}")
    short = np.abs(extreme) > np.abs(stored.astype(np.float64)) * (abs(reach) + 0.5)
    away = np.nextafter(stored, np.copysign(np.array(np.inf, dtype), stored))
    stored = np.where(short, away, stored).astype(np.float32)
    return np.where(extreme == 0, np.float32(1), stored)


def grid_scales(
    extreme: NDArray[Any], reach: int, bits: int, steps: int, dtype: Literal["float16", "float32"] = "float32"
) -> NDArray[np.float32]:
    """extreme / reach, rounded up to few significant bits: the first of `steps` equally spaced scales per row.

    Args:
        extreme: the largest magnitude of each row [N], finite and not negative.
        reach: what it shall be at most, in units of the result.
        bits: significant bits of the result.
        steps: the largest integer it will be multiplied with; every such product is exact in `dtype`.
        dtype: what the products are stored as.

    Returns:
        float32 [N], positive; 1 where `extreme` is 0.

    Raises:
        OverflowError: the largest product is beyond the range of `dtype`.
    """
    exact = extreme.astype(np.float64) / reach
    limits = np.finfo(dtype)
    _, exponent = np.frexp(exact)
    quantum = np.maximum(np.ldexp(1.0, exponent - bits), float(limits.smallest_subnormal))
    rounded = np.ceil(exact / quantum) * quantum
    if rounded.max(initial=0) * steps > limits.max:
        raise OverflowError(f"a scale of {exact.max() * steps:g} does not fit into {dtype}")
    return np.where(extreme == 0, 1, rounded).astype(np.float32)
