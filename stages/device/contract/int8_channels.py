"""INT8 weights per channel: the ViT's and projector's Linears (BlueLM-V-3B Sec. 3.4), compressed-tensors' `channel`.

    values  int8    [N, K]   in [-127, 127], symmetric
    scales  float32 [N]      one per output row, positive
    weight  ~ values · scales[:, None] in float32

In ONNX it is MatMulNBits bits=8 with the row's scale repeated for each block. Axes: N output rows, K input columns,
B block length of the graph's op, G = ceil(K/B).
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.device.contract.scale_rounding import store_scales

VALUE_MAX = 127
# MatMulNBits stores value + 128 in a byte; 128 is also its default when no zero points are given.
ZERO_POINT = 128
# A row has one scale, so the block only sets how finely MatMulNBits rounds its inputs. 128 is where speed ends to grow.
BLOCKS = (128, 64, 32, 16)
MAX_PADDING = 1 / 16


class Int8Channels(NamedTuple):
    """A quantized weight: values int8 [N, K] in [-127, 127], scales float32 [N]."""

    values: NDArray[np.int8]
    scales: NDArray[np.float32]


def channel_scales(weight: NDArray[Any], scale_dtype: Literal["float16", "float32"] = "float32") -> NDArray[np.float32]:
    """max|row| / 127 for each row of [N, K], exactly representable in `scale_dtype`; 1 for an all-zero row."""
    return store_scales(np.abs(weight.astype(np.float32, copy=False)).max(axis=1), VALUE_MAX, scale_dtype)


def quantize(
    weight: NDArray[Any],
    *,
    scales: NDArray[np.float32] | None = None,
    scale_dtype: Literal["float16", "float32"] = "float32",
) -> Int8Channels:
    """Rounds a weight [N, K] to the nearest INT8 value, half to even: clip(round(w / scale), -127, 127) in float32."""
    if scales is None:
        scales = channel_scales(weight, scale_dtype)
    ratio = weight.astype(np.float32, copy=False) / scales[:, None]
    return Int8Channels(np.clip(np.rint(ratio), -VALUE_MAX, VALUE_MAX).astype(np.int8), scales)


def dequantize(quantized: Int8Channels) -> NDArray[np.float32]:
    """values · scales in float32, [N, K]: what every matmul form of this weight must compute with."""
    return quantized.values.astype(np.float32) * quantized.scales.astype(np.float32)[:, None]


def block_length(columns: int) -> int:
    """The largest block whose padding of the last one stays small."""
    for block in BLOCKS:
        if -columns % block <= columns * MAX_PADDING:
            return block
    return BLOCKS[-1]


def pack(quantized: Int8Channels, block: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The `B` and `scales` inputs of MatMulNBits bits=8: uint8 [N, G, B], value + 128, and float32 [N, G].

    Columns beyond K hold the zero point, that is 0.
    """
    rows, columns = quantized.values.shape
    padded = np.pad(quantized.values, ((0, 0), (0, -columns % block)))
    packed = (padded.astype(np.int16) + ZERO_POINT).astype(np.uint8).reshape(rows, -1, block)  # [N, G, B]
    return packed, np.repeat(quantized.scales.astype(np.float32)[:, None], packed.shape[1], axis=1)


def unpack(packed: NDArray[np.uint8], columns: int) -> NDArray[np.int8]:
    """The values [N, K] behind `pack`'s bytes [N, G, B]; `columns` drops the padding of the last block."""
    values = packed.reshape(packed.shape[0], -1)[:, :columns].astype(np.int16) - ZERO_POINT  # [N, K]
    return values.astype(np.int8)
