"""Which nodes a Linear becomes: its weight's form, and what its inputs are rounded to, decide.

| weight        | float               | int8                | int16                                                |
|---------------|---------------------|---------------------|------------------------------------------------------|
| float32       | MatMul              | MatMul              | MatMul                                               |
| INT4 blocks   | MatMulNBits level 0 | MatMulNBits level 4 | MatMulNBits level 4 of high parts and remainders     |
| INT8 channels | MatMulNBits level 0 | a8                  | a16                                                  |

INT8 channels that see one token a call, as the head does, are read by MatMulNBits too, as blocks that share a scale: it
waits for memory and not for arithmetic, and a8 takes 1.4 and a16 2.6 times as long there.

Inputs in half precision (float16) go through it and back: the product is that of float ones.

Every product of a quantized weight has an exact twin, float32 arithmetic over the very same initializers: it answers
whether a graph is right apart from what its arithmetic costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stages.device.contract import int4_blocks, int8_channels
from stages.device.contract.activations import HALF_MAX
from stages.device.contract.int4_blocks import Int4Blocks
from stages.device.contract.int8_channels import Int8Channels
from stages.workshop.graph.block_parts import BlockParts, emit_block_parts, emit_sum_of_parts
from stages.workshop.graph.dynamic_int8 import RoundedRows, emit_int8_product, emit_rounded
from stages.workshop.graph.emitter import FLOAT, FLOAT16, GraphEmitter
from stages.workshop.graph.linear import Linear

Form = Literal["float", "nbits", "nbits8", "nbits16", "a8", "a16"]
# What MatMulNBits of onnxruntime 1.31 takes on the CPU.
INT4_BLOCKS = (16, 32, 64, 128, 256)
ROWS_AT_ONCE = 4096
# Accuracy levels of MatMulNBits: float32 products; INT8 inputs, rounded inside per block.
EXACT, INT8_INSIDE = 0, 4


def form_of(linear: Linear, *, one_token: bool = False) -> Form:
    """The form of a Linear's product; see the table above."""
    blocks = isinstance(linear.weight, Int4Blocks) or (one_token and isinstance(linear.weight, Int8Channels))
    match linear.weight, linear.activations:
        case _, "int8" if blocks:
            return "nbits8"
        case _, "int16" if blocks:
            return "nbits16"
        case Int8Channels(), "int8":
            return "a8"
        case Int8Channels(), "int16":
            return "a16"
        case Int4Blocks() | Int8Channels(), _:
            return "nbits"
        case _:
            return "float"


def emit_linear(
    emitter: GraphEmitter,
    x: str,
    linear: Linear,
    address: str,
    output: str = "",
    *,
    exact: bool = False,
    one_token: bool = False,
) -> str:
    """x [.., K] → [.., N], under the name `output` where one is given; the rest as for `emit_linears`."""
    outputs = [output] if output else ()
    return emit_linears(emitter, x, {address: linear}, outputs, exact=exact, one_token=one_token)[0]


def emit_linears(
    emitter: GraphEmitter,
    x: str,
    linears: Mapping[str, Linear],
    outputs: Sequence[str] = (),
    *,
    exact: bool = False,
    one_token: bool = False,
) -> list[str]:
    """Several Linears of one x [.., K], by address: what x is rounded to is computed once.

    Args:
        emitter: the graph.
        x: the inputs' name.
        linears: by their place in the model.
        outputs: names of the results, in the same order; by default named by place.
        exact: float32 arithmetic over the same initializers, whatever the Linears round x to.
        one_token: x never holds more than one token.
    """
    rounded: dict[tuple[Form, int], RoundedRows | BlockParts] = {}
    results = []
    half = ""
    for index, (address, linear) in enumerate(linears.items()):
        form, output = form_of(linear, one_token=one_token), outputs[index] if outputs else ""
        if form == "float":
            results.append(_float(emitter, x, linear, address, output))
        elif form in ("nbits", "nbits8") or (exact and form == "nbits16"):
            level = EXACT if exact or form == "nbits" else INT8_INSIDE
            if linear.activations == "float16" and not exact:
                half = half or _half(emitter, x, f"{address}/input")
            source = half if linear.activations == "float16" and not exact else x
            results.append(_nbits(emitter, source, linear, address, output, level))
        elif exact:
            results.append(_dequantized(emitter, x, linear, address, output))
        else:
            key = form, _block(linear) if form == "nbits16" else 0
            if key not in rounded:
                rounded[key] = _rounded(emitter, x, linear, address, form)
            results.append(_of_rounded(emitter, rounded[key], linear, address, output))
    return results


def _rounded(emitter: GraphEmitter, x: str, linear: Linear, address: str, form: Form) -> RoundedRows | BlockParts:
    place = f"{address}/input"
    if form == "nbits16":
        return emit_block_parts(emitter, x, place, linear.shape[1], _block(linear))
    assert linear.activations in ("int8", "int16")
    return emit_rounded(emitter, x, place, linear.activations)


def _of_rounded(
    emitter: GraphEmitter, rounded: RoundedRows | BlockParts, linear: Linear, address: str, output: str
) -> str:
    if isinstance(rounded, RoundedRows):
        weight, scales, bias = _int8_weights(emitter, linear, address)
        return emit_int8_product(emitter, rounded, weight, scales, address, bias=bias, output=output)
    inputs, attributes = _nbits_inputs(emitter, rounded.name, linear, address)
    # The operator would add the bias to both parts.
    products = emitter.microsoft("MatMulNBits", inputs[:3], address, accuracy_level=INT8_INSIDE, **attributes)
    return emit_sum_of_parts(emitter, products, inputs[5] if len(inputs) > 3 else "", address, output)


def _half(emitter: GraphEmitter, x: str, place: str) -> str:
    """x ── Clip ── Cast to float16 ── Cast to float32"""
    most = HALF_MAX
    clipped = emitter.node("Clip", [x, emitter.const(-most, "float32"), emitter.const(most, "float32")], place)
    halves = emitter.node("Cast", [clipped], f"{place}/half", to=FLOAT16)
    return emitter.node("Cast", [halves], f"{place}/float", to=FLOAT)


def _float(emitter: GraphEmitter, x: str, linear: Linear, address: str, output: str) -> str:
    """x ── MatMul ── (Add bias)"""
    assert isinstance(linear.weight, np.ndarray)
    weight = emitter.weight(f"{weight_name(emitter, address, 'MatMul')}.weight", linear.weight.T)  # [K, N]
    bias = _bias(emitter, linear, weight_name(emitter, address, "Add"))
    named: int | list[str] = [output] if output else 1
    if not bias:
        return emitter.node("MatMul", [x, weight], address, outputs=named)
    return emitter.node("Add", [emitter.node("MatMul", [x, weight], address), bias], address, outputs=named)


def _dequantized(emitter: GraphEmitter, x: str, linear: Linear, address: str, output: str) -> str:
    """x ── MatMul with Cast(weight) ── Mul scales ── (Add bias): the exact twin of a8 and a16.

    DequantizeLinear before the MatMul would not be exact: onnxruntime makes that a MatMulNBits at level 4.
    """
    values, scales, bias = _int8_weights(emitter, linear, address)
    weight = emitter.node("Cast", [values], f"{address}/weight", to=FLOAT)  # [K, N]
    product = emitter.node("MatMul", [x, weight], address)
    named: int | list[str] = [output] if output else 1
    if not bias:
        return emitter.node("Mul", [product, scales], address, outputs=named)
    scaled = emitter.node("Mul", [product, scales], address)
    return emitter.node("Add", [scaled, bias], address, outputs=named)


def _int8_weights(emitter: GraphEmitter, linear: Linear, address: str) -> tuple[str, str, str]:
    """Values int8 [K, N], scales float32 [N] and bias [N] ("" where there is none) as initializers."""
    weight = linear.weight
    assert isinstance(weight, Int8Channels)
    place = weight_name(emitter, address, "MatMulIntegerToFloat")
    values = emitter.weight(f"{place}.qweight", weight.values.T)  # [K, N]
    scales = emitter.weight(f"{place}.scales", weight.scales.astype(np.float32))
    return values, scales, _bias(emitter, linear, place)


def _nbits(emitter: GraphEmitter, x: str, linear: Linear, address: str, output: str, level: int) -> str:
    """x ── MatMulNBits, bias inside."""
    inputs, attributes = _nbits_inputs(emitter, x, linear, address)
    named: int | list[str] = [output] if output else 1
    return emitter.microsoft("MatMulNBits", inputs, address, outputs=named, accuracy_level=level, **attributes)


def _nbits_inputs(emitter: GraphEmitter, x: str, linear: Linear, address: str) -> tuple[list[str], dict[str, int]]:
    """Inputs (x, values, scales, and with a bias "", "", bias) and attributes of MatMulNBits.

    Its zero point, where none is given, is the contract's.
    """
    weight = linear.weight
    assert isinstance(weight, Int4Blocks | Int8Channels)
    rows, columns = linear.shape
    bits, block, packed, scales = packed_blocks(weight)
    place = weight_name(emitter, address, "MatMulNBits")
    inputs = [x, emitter.weight(f"{place}.qweight", packed), emitter.weight(f"{place}.scales", scales)]
    bias = _bias(emitter, linear, place)
    return inputs + (["", "", bias] if bias else []), {"K": columns, "N": rows, "bits": bits, "block_size": block}


def _block(linear: Linear) -> int:
    """Columns that MatMulNBits gives one scale."""
    weight = linear.weight
    return weight.block if isinstance(weight, Int4Blocks) else int8_channels.block_length(linear.shape[1])


def _bias(emitter: GraphEmitter, linear: Linear, place: str) -> str:
    return "" if linear.bias is None else emitter.weight(f"{place}.bias", linear.bias)


class PackedBlocks(NamedTuple):
    """A quantized weight as onnxruntime reads it: values uint8 [N, G, bytes per block], scales float32 [N, G]."""

    bits: int
    block: int
    values: NDArray[np.uint8]
    scales: NDArray[np.float32]


def packed_blocks(weight: Int4Blocks | Int8Channels) -> PackedBlocks:
    """Packs a weight by the contract, some rows at a time: packing works in wider numbers."""
    rows, columns = weight.values.shape
    block = weight.block if isinstance(weight, Int4Blocks) else int8_channels.block_length(columns)
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


def weight_name(emitter: GraphEmitter, address: str, op: str) -> str:
    """`model.layers.0.attn.qkv_proj.MatMulNBits` for the address `layers.0/attn/qkv_proj`."""
    return ".".join((emitter.root.strip("/"), address.replace("/", "."), op))
