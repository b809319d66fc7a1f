"""How a Linear becomes nodes: MatMul for float weights, MatMulNBits for INT4 blocks and INT8 channels.

Accuracy levels of MatMulNBits on the CPU (onnxruntime 1.31, AVX512-VNNI, one 729×1152 input, recipes/RESULTS.md):
0 multiplies in float32 (relative error 4e-7); 4 rounds the input to INT8 per block: 4e-3 (INT4, block 32) to 6.5e-3
(INT8, block 128), 1.2 to 2.2 times as fast, and about twice as fast in decoding.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from stages.device.contract import int4_blocks, int8_channels
from stages.device.contract.int4_blocks import Int4Blocks
from stages.device.contract.int8_channels import Int8Channels
from stages.workshop.graph.emitter import GraphEmitter
from stages.workshop.graph.linear import Linear

AccuracyLevel = Literal[0, 1, 2, 3, 4]
# INT8 channels have one scale a row, so the block only sets how finely level 4 rounds the input. 128 is where speed
# ends to grow (256 gains nothing more, 64 loses 20 %).
INT8_BLOCKS = (128, 64, 32, 16)
MAX_PADDING = 1 / 16


def emit_linear(
    emitter: GraphEmitter, x: str, linear: Linear, address: str, accuracy_level: AccuracyLevel, output: str = ""
) -> str:
    """x [.., K] → [.., N], under the name `output` where one is given.

    x ── MatMul ── (Add bias)           float
    x ── MatMulNBits (bias inside)      INT4 blocks, INT8 channels
    """
    named: int | list[str] = [output] if output else 1
    if isinstance(linear.weight, Int4Blocks | Int8Channels):
        inputs, attributes = _nbits(emitter, x, linear, address)
        return emitter.microsoft(
            "MatMulNBits", inputs, address, outputs=named, accuracy_level=accuracy_level, **attributes
        )
    weight = emitter.weight(f"{weight_name(emitter, address, 'MatMul')}.weight", linear.weight.T)  # [K, N]
    if linear.bias is None:
        return emitter.node("MatMul", [x, weight], address, outputs=named)
    bias = emitter.weight(f"{weight_name(emitter, address, 'Add')}.bias", linear.bias)
    return emitter.node("Add", [emitter.node("MatMul", [x, weight], address), bias], address, outputs=named)


def _nbits(emitter: GraphEmitter, x: str, linear: Linear, address: str) -> tuple[list[str], dict[str, int]]:
    """Inputs and attributes of MatMulNBits; its zero point, where none is given, is the contract's."""
    weight = linear.weight
    rows, columns = linear.shape
    if isinstance(weight, Int4Blocks):
        bits, block = 4, weight.block
        packed, scales = int4_blocks.pack(weight), weight.scales  # uint8 [N, G, B/2], [N, G]
    else:
        assert isinstance(weight, Int8Channels)
        bits, block = 8, int8_block(columns)
        packed, scales = int8_channels.pack(weight, block)  # uint8 [N, G, B], [N, G]
    place = weight_name(emitter, address, "MatMulNBits")
    inputs = [
        x,
        emitter.weight(f"{place}.qweight", packed),
        emitter.weight(f"{place}.scales", scales.astype(np.float32)),
    ]
    if linear.bias is not None:
        inputs += ["", "", emitter.weight(f"{place}.bias", linear.bias)]
    return inputs, {"K": columns, "N": rows, "bits": bits, "block_size": block}


def int8_block(columns: int) -> int:
    """The largest block whose padding of the last one stays small."""
    for block in INT8_BLOCKS:
        if -columns % block <= columns * MAX_PADDING:
            return block
    return INT8_BLOCKS[-1]


def weight_name(emitter: GraphEmitter, address: str, op: str) -> str:
    """`model.layers.0.attn.qkv_proj.MatMulNBits` for the address `layers.0/attn/qkv_proj`."""
    return ".".join((emitter.root.strip("/"), address.replace("/", "."), op))
