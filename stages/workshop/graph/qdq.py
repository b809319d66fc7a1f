"""A quantized weight as NPU compilers read it: integers behind DequantizeLinear, four bits stored as four bits.

It is a description more than a program: a compiler turns the pattern DequantizeLinear → MatMul into integer products.
onnxruntime's CPU provider makes it a MatMulNBits, or with its optimizations off runs it in float32.

Axes: K columns of x, N columns of the product, B block length, G = ceil(K/B).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from stages.device.contract.int4_blocks import Int4Blocks
from stages.device.contract.int8_channels import Int8Channels
from stages.workshop.graph.emitter import GraphEmitter


def emit_qdq_weight(emitter: GraphEmitter, weight: Int4Blocks | Int8Channels, address: str) -> str:
    """The weight float32 [K, N] from its integers: one scale per column of N, or per block of K there.

    Args:
        emitter: the graph.
        weight: [N, K]; INT4 blocks must divide K, or be as long.
        address: its place in the model.
    """
    place = ".".join((emitter.root.strip("/"), address.replace("/", "."), "DequantizeLinear"))
    turned = np.ascontiguousarray(weight.values.T)  # [K, N]
    scales = np.ascontiguousarray(weight.scales.astype(np.float32).T)  # [G, N], or [N] of INT8
    in_blocks = scales.ndim == 2 and len(scales) > 1
    inputs = [f"{place}.qweight", emitter.weight(f"{place}.scales", scales if in_blocks else scales.reshape(-1))]
    if isinstance(weight, Int8Channels):
        emitter.weight(inputs[0], turned)
        return emitter.node("DequantizeLinear", inputs, f"{address}/weight", axis=1)
    emitter.packed_weight(inputs[0], _nibbles(turned), TensorProto.INT4, turned.shape)
    if in_blocks:
        return emitter.node("DequantizeLinear", inputs, f"{address}/weight", axis=0, block_size=weight.block)
    # Without zero points Qualcomm's compiler takes INT4 per channel for something else, silently (recipes/RESULTS.md).
    zeros = np.zeros(len(turned[0]), np.int8)
    inputs.append(emitter.packed_weight(f"{place}.zeros", _nibbles(zeros), TensorProto.INT4, zeros.shape))
    return emitter.node("DequantizeLinear", inputs, f"{address}/weight", axis=1)


def _nibbles(values: NDArray[np.int8]) -> NDArray[np.uint8]:
    """ONNX's INT4: two values a byte, the first one in the lower half, over the ends of rows."""
    flat = np.append(values.ravel(), np.zeros(values.size % 2, np.int8)).view(np.uint8)
    low, high = flat[0::2] & np.uint8(0xF), flat[1::2] << np.uint8(4)
    packed: NDArray[np.uint8] = low | high
    return packed
