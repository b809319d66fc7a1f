"""INT4 weights in blocks: the numbers behind MatMulNBits bits=4 and compressed-tensors' `group` strategy.

A weight [N, K] (rows = outputs, columns = inputs) is cut along its columns into blocks that share one scale:

    values  int8    [N, K]           in [-8, 7]
    scales  float32 [N, ceil(K/B)]   may be negative, see `block_scales`
    weight  ~ values · scales, block by block, in float32

Axes: N output rows, K input columns, B block length, G = ceil(K/B) blocks per row.
Source: BlueLM-V-3B Sec. 3.4 (INT4 weights); the second scale is llama.cpp's Q4_0.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.device.contract.scale_rounding import store_scales

VALUE_MIN, VALUE_MAX = -8, 7
# MatMulNBits stores value + 8 in an unsigned nibble; 8 is also its default when no zero points are given.
ZERO_POINT = 8

ScaleDtype = Literal["float16", "float32"]


class Int4Blocks(NamedTuple):
    """A quantized weight: values int8 [N, K] in [-8, 7], scales float32 [N, G], block length B."""

    values: NDArray[np.int8]
    scales: NDArray[np.float32]
    block: int


def block_scales(weight: NDArray[Any], block: int, scale_dtype: ScaleDtype = "float32") -> NDArray[np.float32]:
    """The scale of each block: of max/7 and signed-max/-8, the one with the smaller squared error (max/7 on a tie).

    max/7 clips nothing. Signed-max/-8 uses the value -8 too, so its steps are finer, but it may clip the largest
    values of the other sign.

    Args:
        weight: [N, K], finite.
        block: columns per block; a last block that is cut short counts as filled with zeros.
        scale_dtype: what the scales are stored as; both candidates are rounded to it before they compete.

    Returns:
        float32 [N, G], exactly representable in `scale_dtype`; 1 for an all-zero block.
    """
    blocks = _in_blocks(weight, block)  # [N, G, B]
    where = np.abs(blocks).argmax(axis=-1, keepdims=True)
    extreme = np.take_along_axis(blocks, where, axis=-1)[..., 0]  # [N, G], signed
    plain = store_scales(np.abs(extreme), VALUE_MAX, scale_dtype)
    fine = store_scales(extreme, VALUE_MIN, scale_dtype)
    return np.where(_block_error(blocks, fine) < _block_error(blocks, plain), fine, plain)


def quantize(
    weight: NDArray[Any],
    block: int,
    *,
    scales: NDArray[np.float32] | None = None,
    scale_dtype: ScaleDtype = "float32",
) -> Int4Blocks:
    """Rounds a weight to the nearest INT4 value, half to even: clip(round(w / scale), -8, 7) in float32.

    Args:
        weight: [N, K], finite.
        block: columns per block.
        scales: [N, G] to use; chosen by `block_scales` when not given.
        scale_dtype: see `block_scales`.
    """
    if scales is None:
        scales = block_scales(weight, block, scale_dtype)
    rows, columns = weight.shape
    values = _round(_in_blocks(weight, block), scales).astype(np.int8)  # [N, G, B]
    return Int4Blocks(np.ascontiguousarray(values.reshape(rows, -1)[:, :columns]), scales, block)


def dequantize(quantized: Int4Blocks) -> NDArray[np.float32]:
    """values · scales in float32, [N, K]: what every matmul form of this weight must compute with."""
    columns = quantized.values.shape[1]
    wide = np.repeat(quantized.scales.astype(np.float32), quantized.block, axis=1)[:, :columns]  # [N, K]
    return quantized.values.astype(np.float32) * wide


def pack(quantized: Int4Blocks) -> NDArray[np.uint8]:
    """The `B` input of MatMulNBits bits=4: uint8 [N, G, B/2], low nibble first, value + 8.

    Raises:
        ValueError: the block length is odd.
    """
    if quantized.block % 2:
        raise ValueError(f"two values share a byte, so a block of {quantized.block} cannot be packed")
    rows, columns = quantized.values.shape
    padded = np.pad(quantized.values, ((0, 0), (0, -columns % quantized.block)))
    nibbles = (padded + np.int8(ZERO_POINT)).view(np.uint8).reshape(rows, -1, quantized.block)  # [N, G, B]
    return nibbles[..., 0::2] | (nibbles[..., 1::2] << np.uint8(4))  # [N, G, B/2]


def unpack(packed: NDArray[np.uint8], columns: int) -> NDArray[np.int8]:
    """The values [N, K] behind `pack`'s bytes [N, G, B/2]; `columns` drops the padding of the last block."""
    nibbles = np.stack([packed & 0xF, packed >> np.uint8(4)], axis=-1)  # [N, G, B/2, 2]
    values = nibbles.reshape(packed.shape[0], -1)[:, :columns].astype(np.int8) - np.int8(ZERO_POINT)  # [N, K]
    return np.ascontiguousarray(values)


def _in_blocks(weight: NDArray[Any], block: int) -> NDArray[np.float32]:
    rows, columns = weight.shape
    padding = -columns % block
    weight = weight.astype(np.float32, copy=False)
    if padding:
        weight = np.pad(weight, ((0, 0), (0, padding)))
    return weight.reshape(rows, -1, block)  # [N, G, B]


def _round(blocks: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.clip(np.rint(blocks / scales[..., None]), VALUE_MIN, VALUE_MAX)  # [N, G, B]


def _block_error(blocks: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.float64]:
    difference = _round(blocks, scales) * scales[..., None] - blocks  # [N, G, B]
    # float64, so that the choice does not depend on the order in which a machine adds.
    return np.einsum("ngb,ngb->ng", difference, difference, dtype=np.float64)
