"""The integers behind a weight that was INT4 before: found again, so that packing it once more loses nothing.

GPTQ checkpoints are unpacked to q · s in float16 or float32. Where every block's values are whole steps of one float16
scale, the blocks are those integers; where a single one is not (a float weight, zero points, inputs in another order),
nothing is found and the weight is rounded like any other.

Axes: N rows, G blocks, B columns of a block, T candidate scales.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.device.contract.int4_blocks import VALUE_MAX, VALUE_MIN, Int4Blocks

# A float weight shows itself in the first rows.
PROBE_ROWS = 2


def found_blocks(weight: NDArray[np.float32], block: int) -> Int4Blocks | None:
    """The blocks that stand for a weight [N, K] exactly, or to the float16 it was stored in; None if there are none."""
    rows, columns = weight.shape
    if columns % block or not rows:
        return None
    blocks = weight.reshape(rows, -1, block)  # [N, G, B]
    if _scales(blocks[:PROBE_ROWS]) is None:
        return None
    scales = _scales(blocks)
    if scales is None:
        return None
    values = np.rint(blocks / scales[..., None]).astype(np.int8).reshape(rows, columns)
    return Int4Blocks(values, scales, block)


def _scales(blocks: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """One float16 scale [N, G] for each block, of which all its values are whole steps; None where one has none."""
    largest = np.abs(blocks).max(axis=2)  # [N, G]
    found = np.zeros_like(largest)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for steps in range(1, -VALUE_MIN + 1):
            near = (largest / np.float32(steps)).astype(np.float16)
            # Rounding to float16 may have moved the product by half a unit, so the scale by one.
            for scale in (near, np.nextafter(near, np.float16(0)), np.nextafter(near, np.float16(np.inf))):
                wide = scale.astype(np.float32)
                open_ = (found == 0) & (wide > 0) & np.isfinite(wide)
                if open_.any():
                    found = np.where(open_ & _fits(blocks, wide), wide, found)
    found = np.where(largest == 0, np.float32(1), found)
    return found if (found > 0).all() else None


def _fits(blocks: NDArray[np.float32], scale: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether each block's values are whole steps of its scale, exactly or once rounded to float16."""
    values = np.rint(blocks / scale[..., None])
    products = values * scale[..., None]
    same = (products == blocks) | (products.astype(np.float16).astype(np.float32) == blocks)
    fits: NDArray[np.bool_] = (same & (values >= VALUE_MIN) & (values <= VALUE_MAX)).all(axis=2)
    return fits
