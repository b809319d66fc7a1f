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
