"""INT4 weights in blocks: the numbers behind MatMulNBits bits=4 and compressed-tensors' `group` strategy.

A weight [N, K] (rows = outputs, columns = inputs) is cut along its columns into blocks that share one scale:

    values  int8    [N, K]           in [-8, 7]
    scales  float32 [N, ceil(K/B)]   may be negative, see `block_scales`
    weight  ~ values · scales, block by block, in float32

Two-level scales lie on a grid of their row: scale = channel · step with an integer step in ±1..15, so that a block is
also INT8 (value · step, at most 120) with one scale per row: prefill multiplies with that. A channel has at most 7
significant bits, so that channel · step is exact in float16.

Axes: N output rows, K input columns, B block length, G = ceil(K/B) blocks per row.
Source: BlueLM-V-3B Sec. 3.4 (INT4 weights); the second scale is llama.cpp's Q4_0.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.device.contract.scale_rounding import grid_scales, store_scales

VALUE_MIN, VALUE_MAX = -8, 7
STEP_MAX = 15
CHANNEL_BITS = 7
# MatMulNBits stores value + 8 in an unsigned nibble; 8 is also its default when no zero points are given.
ZERO_POINT = 8

# The search for a scale works on so many values at a time: they stay in a core's cache.
VALUES_AT_ONCE = 1 << 16

ScaleDtype = Literal["float16", "float32"]


class Int4Blocks(NamedTuple):
    """A quantized weight: values int8 [N, K] in [-8, 7], scales float32 [N, G], block length B."""

    values: NDArray[np.int8]
    scales: NDArray[np.float32]
    block: int


class TwoLevel(NamedTuple):
    """Block scales as channel · steps: float32 [N], positive, and int8 [N, G] in ±1..15."""

    channel: NDArray[np.float32]
    steps: NDArray[np.int8]


def block_scales(
    weight: NDArray[Any], block: int, scale_dtype: ScaleDtype = "float32", *, two_level: bool = False
) -> NDArray[np.float32]:
    """The scale of each block: of max/7 and signed-max/-8, the one with the smaller squared error (max/7 on a tie).

    With two levels it is the one with the smallest squared error of a few steps of the row's grid around these two.

    max/7 clips nothing. Signed-max/-8 uses the value -8 too, so its steps are finer, but it may clip the largest
    values of the other sign.

    Args:
        weight: [N, K], finite.
        block: columns per block; a last block that is cut short counts as filled with zeros.
        scale_dtype: what the scales are stored as; all candidates are rounded to it before they compete.
        two_level: keep to a grid per row, see `split_scales`.

    Returns:
        float32 [N, G], exactly representable in `scale_dtype`; of an all-zero block 1, or its row's channel scale.

    Raises:
        OverflowError: a scale is beyond the range of `scale_dtype`.
    """
    blocks = _in_blocks(weight, block)  # [N, G, B]
    where = np.abs(blocks).argmax(axis=-1, keepdims=True)
    extreme = np.take_along_axis(blocks, where, axis=-1)[..., 0]  # [N, G], signed
    if two_level:
        return _grid_scales(blocks, extreme, scale_dtype)
    plain = store_scales(np.abs(extreme), VALUE_MAX, scale_dtype)
    fine = store_scales(extreme, VALUE_MIN, scale_dtype)
    return np.where(_block_error(blocks, fine) < _block_error(blocks, plain), fine, plain)


def quantize(
    weight: NDArray[Any],
    block: int,
    *,
    scales: NDArray[np.float32] | None = None,
    scale_dtype: ScaleDtype = "float32",
    two_level: bool = False,
) -> Int4Blocks:
    """Rounds a weight to the nearest INT4 value, half to even: clip(round(w / scale), -8, 7) in float32.

    Args:
        weight: [N, K], finite.
        block: columns per block.
        scales: [N, G] to use; chosen by `block_scales` when not given.
        scale_dtype: see `block_scales`.
        two_level: see `block_scales`.
    """
    if scales is None:
        scales = block_scales(weight, block, scale_dtype, two_level=two_level)
    rows, columns = weight.shape
    values = _round(_in_blocks(weight, block), scales).astype(np.int8)  # [N, G, B]
    return Int4Blocks(np.ascontiguousarray(values.reshape(rows, -1)[:, :columns]), scales, block)


def dequantize(quantized: Int4Blocks) -> NDArray[np.float32]:
    """values · scales in float32, [N, K]: what every matmul form of this weight must compute with."""
    columns = quantized.values.shape[1]
    wide = np.repeat(quantized.scales.astype(np.float32), quantized.block, axis=1)[:, :columns]  # [N, K]
    return quantized.values.astype(np.float32) * wide


def split_scales(scales: NDArray[np.float32]) -> TwoLevel | None:
    """Channel scales and integer steps whose products are exactly these block scales [N, G]; None where there are none.

    The largest channel that fits is taken, so that the same scales always give the same split.
    """
    largest = np.abs(scales).max(axis=1)  # [N]
    channel = np.zeros_like(largest)
    for step in range(1, STEP_MAX + 1):
        candidate = (largest / np.float32(step)).astype(np.float32)
        fits = (channel == 0) & (_steps_on(candidate, scales)[1].all(axis=1))
        channel = np.where(fits, candidate, channel)
    if not (channel > 0).all():
        return None
    return TwoLevel(channel, _steps_on(channel, scales)[0].astype(np.int8))


def expand(values: NDArray[np.int8], steps: NDArray[np.int8], block: int) -> NDArray[np.int8]:
    """value · step, int8 [N, K] in ±120: times the channel scale it is exactly `dequantize`'s weight."""
    wide = np.repeat(steps, block, axis=1)[:, : values.shape[1]]  # [N, K]
    return values * wide


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


def _grid_scales(
    blocks: NDArray[np.float32], extreme: NDArray[np.float32], scale_dtype: ScaleDtype
) -> NDArray[np.float32]:
    """The best scales [N, G] on a grid per row, for blocks [N, G, B] whose largest values are `extreme` [N, G].

    The grid ends where the row's largest value is -8 of the largest step. Signs that make a block's extreme negative
    use all 16 values, so they are tried with four steps; max/7 with one.
    """
    magnitude = np.abs(extreme)
    channel = grid_scales(magnitude.max(axis=1), -VALUE_MIN * STEP_MAX, CHANNEL_BITS, STEP_MAX, scale_dtype)[:, None]
    away = np.where(extreme < 0, channel, -channel)  # [N, G], the sign that turns the extreme negative
    fine, plain = (np.rint(magnitude / channel / np.float32(reach)) for reach in (-VALUE_MIN, VALUE_MAX))
    candidates = [np.clip(fine + offset, 1, STEP_MAX) * away for offset in (0, -1, -2, 1)]
    candidates.append(np.clip(plain, 1, STEP_MAX) * -away)
    scales = np.empty_like(extreme)
    rows = max(1, VALUES_AT_ONCE // max(1, blocks[0].size))
    for start in range(0, len(blocks), rows):
        part = slice(start, start + rows)
        errors = np.stack([_block_error(blocks[part], candidate[part]) for candidate in candidates])  # [tries, n, G]
        tried = np.stack([candidate[part] for candidate in candidates])
        scales[part] = np.take_along_axis(tried, errors.argmin(axis=0)[None], axis=0)[0]
    return np.where(magnitude == 0, channel, scales)


def _steps_on(
    channel: NDArray[np.float32], scales: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Steps [N, G] of scales on grids [N], and whether they hit exactly."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        steps = np.rint(scales / channel[:, None])
        hit = (steps * channel[:, None] == scales) & (np.abs(steps) >= 1) & (np.abs(steps) <= STEP_MAX)
    return steps, hit


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
