"""A Linear as its weights are stored (float, INT4 in blocks, INT8 per channel) and how its inputs are rounded.

Axes: N output rows, K input columns. The quantized forms and their numerics are the contract's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.device.contract import int4_blocks, int8_channels
from stages.device.contract.activations import Activations
from stages.device.contract.int4_blocks import Int4Blocks
from stages.device.contract.int8_channels import Int8Channels

Floats = NDArray[np.float32]
Weight = Floats | Int4Blocks | Int8Channels


@dataclass(frozen=True)
class Linear:
    """y = x · weightᵀ + bias.

    Attributes:
        weight: [N, K] in one of three forms.
        bias: float32 [N] or None.
        activations: what x is rounded to; a float weight's inputs stay float.
    """

    weight: Weight
    bias: Floats | None = None
    activations: Activations = "int8"

    @property
    def shape(self) -> tuple[int, int]:
        """(N, K)."""
        rows, columns = _values(self.weight).shape
        return rows, columns

    def dequantized(self) -> Floats:
        """The weight every form computes with, float32 [N, K]."""
        match self.weight:
            case Int4Blocks():
                return int4_blocks.dequantize(self.weight)
            case Int8Channels():
                return int8_channels.dequantize(self.weight)
            case _:
                return self.weight


def stacked(linears: Sequence[Linear]) -> Linear | None:
    """One Linear that gives the outputs of several one after the other: exact, since every row keeps its own scales.

    Returns:
        None where they are stored in different forms or round their inputs differently, so that they cannot be one
        product.
    """
    biases = [linear.bias for linear in linears]
    if len({_form(linear) for linear in linears}) > 1 or len({bias is None for bias in biases}) > 1:
        return None
    bias = None if biases[0] is None else np.concatenate([bias for bias in biases if bias is not None])
    values = np.concatenate([_values(linear.weight) for linear in linears])  # [ΣN, K]
    first = linears[0].weight
    if isinstance(first, Int4Blocks | Int8Channels):
        scales = np.concatenate([linear.weight.scales for linear in linears])  # type: ignore[union-attr]
        return replace(linears[0], weight=first._replace(values=values, scales=scales), bias=bias)
    return replace(linears[0], weight=values, bias=bias)


def _values(weight: Weight) -> NDArray[Any]:
    return weight.values if isinstance(weight, Int4Blocks | Int8Channels) else weight


def _form(linear: Linear) -> tuple[str, int, str]:
    match linear.weight:
        case Int4Blocks(block=block):
            return "int4", block, linear.activations
        case Int8Channels():
            return "int8", 0, linear.activations
        case _:
            return "float", 0, ""
