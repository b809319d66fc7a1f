"""INT16 activations for MatMulNBits: each block of the inputs as the part that it rounds exactly, and the remainder.

At accuracy level 4 MatMulNBits rounds its inputs to INT8 per block. What it would round them to is computed first; that
high part survives its rounding unchanged. The remainder, at most half a step, is rounded by 1/254 of that. Both go
through one call as rows, so that the weights are read once:

    x ─ (Pad) ─ Reshape ─┬─ Abs ─ ReduceMax ─ Max ─ scale ──────────────────────┐
        [.., S, G, B]    ├─ Div by scale ─ QuantizeLinear ─ DequantizeLinear ─ Mul ─ high ─┐
                         └─ Sub high ───────────────────────────────────────────────── low ─ Concat ─ Reshape ─ (Slice)
    parts [.., 2S, K] ─ MatMulNBits ─ Split ─ Add ─ (Add bias)

Axes: S tokens, K columns, B block length, G = ceil(K/B) blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

from stages.device.contract import activations
from stages.workshop.graph.emitter import GraphEmitter


@dataclass(frozen=True)
class BlockParts:
    """Name of a tensor [T, 2S, K]: the high parts of S tokens, then their remainders."""

    name: str


def emit_block_parts(emitter: GraphEmitter, x: str, address: str, columns: int, block: int) -> BlockParts:
    """High parts and remainders of x [T, S, K] in blocks, as `activations.round_block_parts` defines them."""
    groups = -(-columns // block)
    padding = groups * block - columns
    if padding:
        x = emitter.node("Pad", [x, emitter.const([0, 0, 0, 0, 0, padding])], address)
    blocks = emitter.node("Reshape", [x, emitter.const([0, 0, groups, block])], f"{address}/blocks")  # [T, S, G, B]
    place = f"{address}/scale"
    magnitudes = emitter.node("Abs", [blocks], place)
    largest = emitter.node("ReduceMax", [magnitudes, emitter.const([-1])], place, keepdims=1)  # [T, S, G, 1]
    scale = emitter.node("Max", [largest, emitter.const(float(activations.SMALLEST), "float32")], place)
    step, zero = (
        emitter.const(float(activations.high_step()), "float32"),
        emitter.const(activations.ZERO_POINT, "uint8"),
    )
    place = f"{address}/high"
    unit = emitter.node("Div", [blocks, scale], place)
    kept = emitter.node("QuantizeLinear", [unit, step, zero], place)
    high = emitter.node("Mul", [emitter.node("DequantizeLinear", [kept, step, zero], place), scale], place)
    low = emitter.node("Sub", [blocks, high], f"{address}/low")
    both = emitter.node("Concat", [high, low], f"{address}/parts", axis=1)  # [T, 2S, G, B]
    rows = emitter.node("Reshape", [both, emitter.const([0, 0, groups * block])], f"{address}/parts")
    if padding:
        start, end, axis = (emitter.const([value]) for value in (0, columns, 2))
        rows = emitter.node("Slice", [rows, start, end, axis], f"{address}/parts")
    return BlockParts(rows)


def emit_sum_of_parts(emitter: GraphEmitter, products: str, bias: str, address: str, output: str = "") -> str:
    """Products of both parts [T, 2S, N] → [T, S, N], plus a bias where there is one."""
    halves = [f"{emitter.root}/{address}/Split/output_{index}" for index in range(2)]
    emitter.node("Split", [products], address, outputs=halves, axis=1, num_outputs=2)
    named: int | list[str] = [output] if output else 1
    if not bias:
        return emitter.node("Add", halves, f"{address}/parts", outputs=named)
    whole = emitter.node("Add", halves, f"{address}/parts")
    return emitter.node("Add", [whole, bias], f"{address}/bias", outputs=named)
