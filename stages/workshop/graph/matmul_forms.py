"""How a Linear becomes nodes: MatMul for float weights, MatMulNBits for INT4 blocks and INT8 channels.

Accuracy levels of MatMulNBits on the CPU (onnxruntime 1.31, AVX512-VNNI, one 729×1152 input, recipes/RESULTS.md):
0 multiplies in float32 (relative error 4e-7); 4 rounds the input to INT8 per block: 4e-3 (INT4, block 32) to 6.5e-3
(INT8, block 128), 1.2 to 2.2 times as fast, and about twice as fast in decoding.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.device.contract import int4_blocks, int8_channels
from stages.device.contract.int4_blocks import Int4Blocks
from stages.device.contract.int8_channels import Int8Channels
from stages.workshop.graph.emitter import GraphEmitter
from stages.workshop.graph.linear import Linear

AccuracyLevel = Literal[0, 1, 2, 3, 4]
# What MatMulNBits of onnxruntime 1.31 takes on the CPU.
INT4_BLOCKS = (16, 32, 64, 128, 256)
# INT8 channels have one scale a row, so the block only sets how finely level 4 rounds the input. 128 is where speed
# ends to grow (256 gains nothing more, 64 loses 20 %).
INT8_BLOCKS = (128, 64, 32, 16)
MAX_PADDING = 1 / 16
ROWS_AT_ONCE = 4096


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
    assert isinstance(weight, Int4Blocks | Int8Channels)
    rows, columns = linear.shape
    bits, block, packed, scales = packed_blocks(weight)
    place = weight_name(emitter, address, "MatMulNBits")
    inputs = [
        x,
        emitter.weight(f"{place}.qweight", packed),
        emitter.weight(f"{place}.scales", scales),
    ]
    if linear.bias is not None:
        inputs += ["", "", emitter.weight(f"{place}.bias", linear.bias)]
    return inputs, {"K": columns, "N": rows, "bits": bits, "block_size": block}


class PackedBlocks(NamedTuple):
    """A quantized weight as onnxruntime reads it: values uint8 [N, G, bytes per block], scales float32 [N, G]."""

    bits: int
    block: int
    values: NDArray[np.uint8]
    scales: NDArray[np.float32]


def packed_blocks(weight: Int4Blocks | Int8Channels) -> PackedBlocks:
    """Packs a weight by the contract, some rows at a time: packing works in wider numbers."""
    rows, columns = weight.values.shape
    block = weight.block if isinstance(weight, Int4Blocks) else int8_block(columns)
    values, scales = [], []
    for start in range(0, rows, ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        some = weight._replace(values=weight.values[part], scales=weight.scales[part])
        packed = (
            (int4_blocks.pack(some), some.scales) if isinstance(some, Int4Blocks) else int8_channels.pack(some, block)
        )
        values.append(packed[0])
        scales.append(packed[1])
    bits = 4 if isinstance(weight, Int4Blocks) else 8
    return PackedBlocks(bits, block, np.concatenate(values), np.concatenate(scales).astype(np.float32))


def int8_block(columns: int) -> int:
    """The largest block whose padding of the last one stays small."""
    for block in INT8_BLOCKS:
        if -columns % block <= columns * MAX_PADDING:
            return block
    return INT8_BLOCKS[-1]


def weight_name(emitter: GraphEmitter, address: str, op: str) -> str:
    """`model.layers.0.attn.qkv_proj.MatMulNBits` for the address `layers.0/attn/qkv_proj`."""
    return ".".join((emitter.root.strip("/"), address.replace("/", "."), op))
