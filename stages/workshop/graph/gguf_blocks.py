"""Weights as GGUF holds them: the integers of a quantized Linear in llama.cpp's blocks of 32, without rounding again.

    INT4 in blocks of 32, 64, 128 or 256   → Q4_0: a float16 scale and 32 nibbles, value + 8; low nibbles come first
    INT4 in blocks of 16, two-level scales → Q8_0: value · step with the row's scale
    INT8 per channel                       → Q8_0: the row's scale in every block
    float → the float type of the file; columns that 32 does not divide → float32

A feed-forward block whose width 32 does not divide is given channels that are always zero (`padded`): then it packs.

Every one of them is exact where the scale is a float16 number, as `bluelm quantize` stores it by default; otherwise the
scale is rounded and the tensor says so. Axes: N output rows, K input columns.
Source: ggml's block_q4_0 and block_q8_0 (ggml-common.h); leads: symmetric INT4 repacks bit-exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stages.device.contract import int4_blocks, int8_channels
from stages.device.contract.int4_blocks import Int4Blocks
from stages.device.contract.int8_channels import Int8Channels
from stages.workshop.graph.linear import Floats, Linear, Weight

BLOCK = 32
GgufType = Literal["F32", "F16", "BF16", "Q4_0", "Q8_0"]


@dataclass(frozen=True)
class GgufTensor:
    """One tensor of a GGUF file.

    Attributes:
        kind: ggml's name of its type.
        data: float32 or float16 as it is; blocks (and bfloat16) as bytes [N, bytes per row].
        exact: its numbers are those of the weight, not only near them.
    """

    kind: GgufType
    data: NDArray[Any]
    exact: bool = True


def tensor_of(weight: Weight, stored: str = "F32") -> GgufTensor:
    """A weight [N, K] in the smallest type that holds its integers.

    Args:
        weight: in any form.
        stored: safetensors' type of a float weight.
    """
    if not isinstance(weight, Int4Blocks | Int8Channels):
        return floats(weight, stored)
    if weight.values.shape[1] % BLOCK:
        return GgufTensor("F32", _dequantized(weight))
    if isinstance(weight, Int8Channels):
        return _q8_0(weight.values, np.repeat(weight.scales[:, None], weight.values.shape[1] // BLOCK, axis=1))
    if weight.block % BLOCK == 0:
        return _q4_0(weight)
    return _expanded(weight)


def padded(linear: Linear, rows: int, columns: int) -> Linear:
    """A Linear with rows and columns of zeros behind its own: what is behind a zero of SiLU or GELU stays zero."""
    weight: Any = linear.weight
    more = (0, rows - linear.shape[0]), (0, columns - linear.shape[1])
    if isinstance(weight, np.ndarray):
        wide: Any = np.pad(weight, more)
    else:
        blocks = -(-columns // weight.block) if isinstance(weight, Int4Blocks) else 0
        beside = ((0, blocks - weight.scales.shape[1]),) if blocks else ()
        scales = np.pad(weight.scales, (more[0], *beside), constant_values=1)
        wide = weight._replace(values=np.pad(weight.values, more), scales=scales)
    return replace(linear, weight=wide, bias=None if linear.bias is None else np.pad(linear.bias, more[0]))


def floats(values: Floats, stored: str) -> GgufTensor:
    """Float numbers in the type that they were stored in."""
    if stored == "F16":
        return GgufTensor("F16", values.astype(np.float16))
    if stored == "BF16":
        return GgufTensor("BF16", (values.view(np.uint32) >> np.uint32(16)).astype(np.uint16).view(np.uint8))
    return GgufTensor("F32", values)


def unpacked(tensor: GgufTensor) -> Floats:
    """The numbers that llama.cpp computes with, float32 [N, K]."""
    rows = tensor.data.shape[0]
    if tensor.kind == "Q4_0":
        blocks = tensor.data.reshape(rows, -1, 2 + BLOCK // 2)
        nibbles = np.concatenate([blocks[..., 2:] & 0xF, blocks[..., 2:] >> np.uint8(4)], axis=-1)
        values = nibbles.astype(np.float32) - int4_blocks.ZERO_POINT
    elif tensor.kind == "Q8_0":
        blocks = tensor.data.reshape(rows, -1, 2 + BLOCK)
        values = blocks[..., 2:].view(np.int8).astype(np.float32)
    elif tensor.kind == "BF16":
        return (tensor.data.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
    else:
        return tensor.data.astype(np.float32)
    scales = np.ascontiguousarray(blocks[..., :2]).view(np.float16).astype(np.float32)  # [N, K/32, 1]
    return np.ascontiguousarray((values * scales).reshape(rows, -1))


def _q4_0(weight: Int4Blocks) -> GgufTensor:
    rows, columns = weight.values.shape
    scales = np.repeat(weight.scales, weight.block // BLOCK, axis=1)[:, : columns // BLOCK]  # [N, K/32]
    stored, exact = _half(scales)
    nibbles = (weight.values + np.int8(int4_blocks.ZERO_POINT)).view(np.uint8).reshape(rows, -1, 2, BLOCK // 2)
    packed = nibbles[..., 0, :] | (nibbles[..., 1, :] << np.uint8(4))  # [N, K/32, 16]
    return GgufTensor("Q4_0", _joined(stored, packed), exact)


def _q8_0(values: NDArray[np.int8], scales: Floats) -> GgufTensor:
    """INT8 values [N, K] with a scale for each block [N, K/32]."""
    stored, exact = _half(scales)
    return GgufTensor("Q8_0", _joined(stored, values.view(np.uint8).reshape(len(values), -1, BLOCK)), exact)


def _expanded(weight: Int4Blocks) -> GgufTensor:
    """Blocks shorter than 32: with two-level scales they are INT8 with one scale a row."""
    split = int4_blocks.split_scales(weight.scales)
    if split is None:
        return GgufTensor("F32", _dequantized(weight))
    values = int4_blocks.expand(weight.values, split.steps, weight.block)
    return _q8_0(values, np.repeat(split.channel[:, None], values.shape[1] // BLOCK, axis=1))


def _half(scales: Floats) -> tuple[NDArray[np.float16], bool]:
    with np.errstate(over="ignore"):
        stored = scales.astype(np.float16)
    if not np.isfinite(stored).all():
        raise OverflowError(f"a scale of {np.abs(scales).max():.3g} is beyond float16, which GGUF's blocks have")
    return stored, bool((stored.astype(np.float32) == scales).all())


def _joined(scales: NDArray[np.float16], payload: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Scale and payload of each block one after the other: uint8 [N, bytes per row]."""
    heads = np.ascontiguousarray(scales)[..., None].view(np.uint8)  # [N, K/32, 2]
    return np.ascontiguousarray(np.concatenate([heads, payload], axis=-1).reshape(len(scales), -1))


def _dequantized(weight: Int4Blocks | Int8Channels) -> Floats:
    return int4_blocks.dequantize(weight) if isinstance(weight, Int4Blocks) else int8_channels.dequantize(weight)
