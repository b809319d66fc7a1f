"""Activations as integers: what the inputs of a quantized product are rounded to, by matmul form.

    a8     one INT8 value per element, one step per token:       x ~ high · step,  step = max|x| / 127
    a16    the same and its remainder, INT8 again:               x ~ (high + low / 254) · step
    nbits  INT8 values, one scale per block of columns:          what MatMulNBits does inside at accuracy level 4
    nbits16  the same and its remainder, INT8 again, in a second row of MatMulNBits
    half   float16 values, multiplied in float32

a16 is the paper's INT16 activations on hardware that multiplies 8-bit integers: two products of the same weights, whose
sum has 127 · 254 steps up to a token's largest magnitude. Values are stored unsigned with zero point 128, since x86 has
no fast product of two signed bytes.

Axes: T tokens, K columns, B block length, G = ceil(K/B). Source: BlueLM-V-3B Sec. 3.4 (INT16 activations).
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

# How the inputs of a product are rounded: not at all, to half precision, to 16 bits, to 8 bits.
Activations = Literal["float", "float16", "int16", "int8"]
# Largest magnitude of half precision; what is beyond it becomes that.
HALF_MAX = 65504.0

ZERO_POINT = 128
STEPS = 127
# A remainder is at most half a step of the high part, so 127 steps of it make 254 to one.
LOW_STEPS = 2 * STEPS
# What stands for the largest magnitude of a token that is all zeros; keeps 0 / 0 out.
SMALLEST = np.float32(1e-30)

Floats = NDArray[np.float32]


class Rounded(NamedTuple):
    """Activations [.., T, K] as integers: high and low uint8 (low None for a8), step float32 [.., T, 1]."""

    high: NDArray[np.uint8]
    low: NDArray[np.uint8] | None
    step: Floats


def round_rows(x: NDArray[Any], precision: Literal["int16", "int8"]) -> Rounded:
    """Rounds each token in steps of a 127th of its own largest magnitude, in float32, half to even.

    step = max|x| of the token · (1/127)
    high = rint(x / step) + 128
    low  = rint((x / step - (high - 128)) / (1/254)) + 128        only int16; the difference is exact
    """
    x = x.astype(np.float32, copy=False)
    step = np.maximum(np.abs(x).max(axis=-1, keepdims=True), SMALLEST) * high_step()  # [.., T, 1]
    steps = x / step
    high = _to_uint8(steps)
    if precision == "int8":
        return Rounded(high, None, step)
    rest = steps - (high.astype(np.float32) - ZERO_POINT)
    return Rounded(high, _to_uint8(rest / low_step()), step)


def unround(rounded: Rounded) -> Floats:
    """The numbers that a product with these activations computes with, [.., T, K]."""
    steps = rounded.high.astype(np.float32) - ZERO_POINT
    if rounded.low is not None:
        steps = steps + (rounded.low.astype(np.float32) - ZERO_POINT) * low_step()
    return steps * rounded.step


def round_half(x: NDArray[Any]) -> Floats:
    """Numbers in half precision, half to even, as float32: the paper's 16 bits in vision tower and projector."""
    halves: Floats = np.clip(x, -HALF_MAX, HALF_MAX).astype(np.float16).astype(np.float32)
    return halves


def round_blocks(x: NDArray[Any], block: int) -> Floats:
    """What MatMulNBits at accuracy level 4 computes with: rint(x / scale) · scale, scale = max|x| / 127 of a block.

    Args:
        x: [.., K].
        block: columns per block; a last block that is cut short stands for itself.
    """
    x = x.astype(np.float32, copy=False)
    columns = x.shape[-1]
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -columns % block)])
    blocks = padded.reshape(*x.shape[:-1], -1, block)  # [.., G, B]
    scale = np.abs(blocks).max(axis=-1, keepdims=True) / np.float32(STEPS)  # [.., G, 1]
    rounded = np.rint(blocks / np.where(scale == 0, np.float32(1), scale)) * scale
    whole: Floats = rounded.reshape(padded.shape)[..., :columns].astype(np.float32)  # [.., K]
    return whole


def round_block_parts(x: NDArray[Any], block: int) -> Floats:
    """What nbits16 computes with: `round_blocks` of each block, and of the remainder that leaves.

    The graph works out the high part itself, since MatMulNBits does not tell what it rounded to; being a whole number
    of 127ths of the block's largest magnitude, it comes through the operator's own rounding unchanged.

    Args:
        x: [.., K].
        block: columns per block.
    """
    x = x.astype(np.float32, copy=False)
    columns = x.shape[-1]
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -columns % block)])
    blocks = padded.reshape(*x.shape[:-1], -1, block)  # [.., G, B]
    scale = np.maximum(np.abs(blocks).max(axis=-1, keepdims=True), SMALLEST)  # [.., G, 1]
    steps = _to_uint8(blocks / scale / high_step()).astype(np.float32) - ZERO_POINT
    high = (steps * high_step() * scale).reshape(padded.shape)[..., :columns]  # [.., K]
    whole: Floats = round_blocks(high, block) + round_blocks(x - high, block)
    return whole


def high_step() -> np.float32:
    """One step of `high`, where the largest magnitude is 1."""
    return np.float32(1 / STEPS)


def low_step() -> np.float32:
    """One step of `low`, in steps of `high`."""
    return np.float32(1 / LOW_STEPS)


def _to_uint8(steps: Floats) -> NDArray[np.uint8]:
    """QuantizeLinear with zero point 128 behind the division: round half to even, shift, saturate."""
    return np.clip(np.rint(steps) + ZERO_POINT, 0, 255).astype(np.uint8)
