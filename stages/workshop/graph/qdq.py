"""A Linear in the form that NPU compilers read: static INT16 activations, weights behind DequantizeLinear.

    x ─ QuantizeLinear(uint16) ─ DequantizeLinear ─ MatMul ─ (Add bias)
                weight int4 or int8 ─ DequantizeLinear ─┘

It is a description more than a program: a compiler turns the pattern into integer products. onnxruntime's CPU provider
runs it in float32, or, with its optimizations on, makes the weight's half a MatMulNBits that rounds inputs again.

Axes: K columns of x, N columns of the product, B block length, G = ceil(K/B).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from stages.device.contract import static_activations
from stages.device.contract.int4_blocks import Int4Blocks
from stages.device.contract.int8_channels import Int8Channels
from stages.workshop.graph.emitter import GraphEmitter
from stages.workshop.graph.linear import Linear
from stages.workshop.graph.matmul_forms import weight_name


def emit_qdq_linear(
    emitter: GraphEmitter, x: str, linear: Linear, scale: np.float32, address: str, output: str = ""
) -> str:
    """x [.., K] → [.., N], under the name `output` where one is given.

    Args:
        emitter: the graph.
        x: the inputs' name.
        linear: with an INT4 or INT8 weight.
        scale: of x, see `static_activations`.
        address: its place in the model.
        output: the result's name.
    """
    place = weight_name(emitter, address, "DequantizeLinear")
    parts = [
        emitter.const(float(scale), "float32"),
        emitter.const(static_activations.ZERO_POINT, "uint16"),
    ]
    stored = emitter.node("QuantizeLinear", [x, *parts], f"{address}/input")
    rounded = emitter.node("DequantizeLinear", [stored, *parts], f"{address}/input")
    weight = _weight(emitter, linear, place, address)
    named: int | list[str] = [output] if output else 1
    if linear.bias is None:
        return emitter.node("MatMul", [rounded, weight], address, outputs=named)
    product = emitter.node("MatMul", [rounded, weight], address)
    return emitter.node("Add", [product, emitter.weight(f"{place}.bias", linear.bias)], address, outputs=named)


def _weight(emitter: GraphEmitter, linear: Linear, place: str, address: str) -> str:
    """The weight float32 [K, N] from its integers: one scale per column of N, or per block of K there."""
    weight = linear.weight
    assert isinstance(weight, Int4Blocks | Int8Channels)
    turned = np.ascontiguousarray(weight.values.T)  # [K, N]
    scales = np.ascontiguousarray(weight.scales.astype(np.float32).T)  # [G, N], or [N] of INT8
    in_blocks = scales.ndim == 2 and len(scales) > 1
    inputs = [f"{place}.qweight", emitter.weight(f"{place}.scales", scales if in_blocks else scales.reshape(-1))]
    if isinstance(weight, Int8Channels):
        emitter.weight(inputs[0], turned)
    else:
        emitter.packed_weight(inputs[0], _nibbles(turned), TensorProto.INT4, turned.shape)
    if in_blocks:
        assert isinstance(weight, Int4Blocks)
        return emitter.node("DequantizeLinear", inputs, f"{address}/weight", axis=0, block_size=weight.block)
    return emitter.node("DequantizeLinear", inputs, f"{address}/weight", axis=1)


def _nibbles(values: NDArray[np.int8]) -> NDArray[np.uint8]:
    """ONNX's INT4: two values a byte, the first one in the lower half, over the ends of rows."""
    flat = np.append(values.ravel(), np.zeros(values.size % 2, np.int8)).view(np.uint8)
    low, high = flat[0::2] & np.uint8(0xF), flat[1::2] << np.uint8(4)
    packed: NDArray[np.uint8] = low | high
    return packed
