"""compressed-tensors' `pack-quantized` layout: what a quantized Linear is on disk, and back.

    NAME.weight [N, K]  →  NAME.weight_packed  int32 [N, ceil(K·bits/32)]   value + 2^(bits-1), dense, low bits first
                           NAME.weight_scale   [N, K/group] or [N, 1]       float16 or float32
                           NAME.weight_shape   int64 [2]                    N, K

Packing and unpacking are the library's own functions; the values are the contract's. Axes: N output rows, K columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stages.artifacts.errors import ModelError
from stages.device.contract import int4_blocks, int8_channels
from stages.device.contract.int4_blocks import Int4Blocks, ScaleDtype
from stages.device.contract.int8_channels import Int8Channels
from stages.workshop.quant.policy import Scheme
from stages.workshop.quant.regrid import found_blocks

if TYPE_CHECKING:
    import torch

PACKED, SCALE, SHAPE = "weight_packed", "weight_scale", "weight_shape"
SUFFIXES = (PACKED, SCALE, SHAPE)

Quantized = Int4Blocks | Int8Channels


class ScaleFormat(NamedTuple):
    """What scales are rounded to: the type they are stored as, and for INT4 whether they lie on a grid per row."""

    dtype: ScaleDtype = "float32"
    two_level: bool = False


# A large embedding would take four times its size in float32 temporaries.
CHUNK_VALUES = 1 << 24


def round_to_nearest(name: str, weight: torch.Tensor, scheme: Scheme, scales: ScaleFormat) -> Quantized:
    """Quantizes a weight [N, K] by rounding, with the contract's scales.

    Raises:
        ModelError: values that are not finite, or a scale that does not fit into its type.
    """
    try:
        # Rows are independent, so that only a few of them are ever float32.
        parts = [_round_rows(weight[rows], scheme, scales) for rows in row_chunks(*weight.shape)]
    except FloatingPointError as error:
        bad = int((~weight.isfinite()).sum())
        raise ModelError(
            f"{name} holds {bad} values that are not finite.",
            "They have no integer form, and a model with them answers nonsense.",
            "Take a checkpoint from before the training diverged.",
        ) from error
    except OverflowError as error:
        raise ModelError(
            f"{name}: {error}.", "Its largest weights would become infinite.", "Use --set scale_dtype=float32"
        ) from error
    whole_values, whole_scales = (
        np.concatenate([getattr(part, field) for part in parts]) for field in ("values", "scales")
    )
    return parts[0]._replace(values=whole_values, scales=whole_scales)


def row_chunks(rows: int, columns: int) -> Iterator[slice]:
    """Slices of rows that hold about `CHUNK_VALUES` values each."""
    step = max(1, CHUNK_VALUES // columns)
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def relative_error(weight: torch.Tensor, quantized: Quantized) -> float:
    """‖W − Ŵ‖ / ‖W‖ of a weight [N, K], summed in float64; 0 for an all-zero weight."""
    right = wrong = 0.0
    for rows in row_chunks(*weight.shape):
        exact = weight[rows].float().numpy()
        part = quantized._replace(values=quantized.values[rows], scales=quantized.scales[rows])
        right += float(np.square(exact, dtype=np.float64).sum())
        wrong += float(np.square(exact - dequantize(part), dtype=np.float64).sum())
    return math.sqrt(wrong / right) if right else 0.0


def dequantize(quantized: Quantized) -> np.ndarray:
    """The float32 weight [N, K] behind either form."""
    if isinstance(quantized, Int4Blocks):
        return int4_blocks.dequantize(quantized)
    return int8_channels.dequantize(quantized)


def pack(quantized: Quantized, scale_dtype: ScaleDtype) -> dict[str, torch.Tensor]:
    """The three tensors of a quantized weight, by suffix."""
    import torch
    from compressed_tensors.compressors.pack_quantized import pack_to_int32

    bits = 4 if isinstance(quantized, Int4Blocks) else 8
    values = torch.from_numpy(quantized.values)
    words = torch.cat([pack_to_int32(values[rows], bits) for rows in row_chunks(*values.shape)])
    scales = torch.from_numpy(quantized.scales.astype(scale_dtype))
    return {
        PACKED: words,  # [N, ceil(K·bits/32)]
        SCALE: scales.reshape(len(scales), -1),  # [N, G] or [N, 1]
        SHAPE: torch.tensor(quantized.values.shape),
    }


def unpack(tensors: dict[str, torch.Tensor], scheme: Scheme) -> Quantized:
    """The quantized weight behind its three tensors.

    Args:
        tensors: by suffix, as `pack` gives them.
        scheme: int4 or int8, from the folder's configuration.
    """
    from compressed_tensors.compressors.pack_quantized import unpack_from_int32

    if scheme.bits is None:
        raise ValueError("a float weight is not packed")
    values = unpack_from_int32(tensors[PACKED], scheme.bits, tensors[SHAPE].tolist()).numpy()
    scales = tensors[SCALE].float().numpy()
    if scheme.group_size is not None:
        return Int4Blocks(values, scales, scheme.group_size)
    return Int8Channels(values, scales[:, 0])


def packed_bytes(rows: int, columns: int, scheme: Scheme, scale_dtype: ScaleDtype) -> int:
    """What the three tensors of a weight [rows, columns] take on disk, without making them."""
    assert scheme.bits is not None
    words = rows * math.ceil(columns * scheme.bits / 32)
    return 4 * words + np.dtype(scale_dtype).itemsize * scheme.scale_count(rows, columns) + 2 * 8


def _round_rows(weight: torch.Tensor, scheme: Scheme, scales: ScaleFormat) -> Quantized:
    values = weight.detach().float().numpy()
    if not np.isfinite(values).all():
        raise FloatingPointError
    if scheme.group_size is not None:
        size = scheme.group_size
        found = None if scales.two_level else found_blocks(values, size)
        return found or int4_blocks.quantize(values, size, scale_dtype=scales.dtype, two_level=scales.two_level)
    return int8_channels.quantize(values, scale_dtype=scales.dtype)
