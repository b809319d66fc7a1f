"""Products of INT8 weights and activations that are rounded per token while the graph runs (a8, a16).

    x ─┬─ ReduceMax ─────────┐
       ├─ ReduceMin ─ Neg ─ Max ─ Mul 1/127 ── step ────────────┐
       │                                                        │
    a8 ├─ QuantizeLinear by step ── high ─ MatMulIntegerToFloat ┴─ Mul ─ (Add bias)
       │
    a16└─ Div by step ─┬─ QuantizeLinear ── high ─ MatMulIntegerToFloat ─┬─ Add ─ Mul by step ─ (Add bias)
                       └─ Sub what high says ─ QuantizeLinear ── low ────┘

What is rounded, and how, is contract/activations.py; that the graph finds it in two reductions and not by Abs, and that
a8 does not divide first, is what onnxruntime does fastest. Activations are unsigned with zero point 128: onnxruntime
has no fast product of two signed bytes on x86. Weights may be initializers or graph inputs.

Axes: K columns of x, N columns of the product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stages.device.contract import activations
from stages.workshop.graph.emitter import GraphEmitter

# Blocked QuantizeLinear with one scale per row: by ONNX's definition any block from the row's length up says that.
WHOLE_ROW = 1 << 20


@dataclass(frozen=True)
class RoundedRows:
    """Names of what a tensor [.., K] was rounded to: high and low uint8 [.., K] (low None for a8), step [.., 1]."""

    high: str
    low: str | None
    step: str


def emit_rounded(emitter: GraphEmitter, x: str, address: str, precision: Literal["int8", "int16"]) -> RoundedRows:
    """Rounds each token of x [.., K] as `activations.round_rows` does; several products may share the result."""
    step = emit_step(emitter, emit_largest(emitter, x, f"{address}/step"), f"{address}/step")
    if precision == "int8":
        return RoundedRows(emit_quantized(emitter, x, step, address, WHOLE_ROW), None, step)
    zero, one = emitter.const(activations.ZERO_POINT, "uint8"), emitter.const(1.0, "float32")
    steps = emitter.node("Div", [x, step], address)
    high = emitter.node("QuantizeLinear", [steps, one, zero], f"{address}/high")
    kept = emitter.node("DequantizeLinear", [high, one, zero], f"{address}/high")
    rest = emitter.node("Sub", [steps, kept], f"{address}/low")
    low_step = emitter.const(float(activations.low_step()), "float32")
    return RoundedRows(high, emitter.node("QuantizeLinear", [rest, low_step, zero], f"{address}/low"), step)


def emit_largest(emitter: GraphEmitter, x: str, address: str) -> str:
    """The largest magnitude along the last axis: [.., K] → [.., 1]."""
    last = emitter.const([-1])
    most = emitter.node("ReduceMax", [x, last], address, keepdims=1)
    least = emitter.node("Neg", [emitter.node("ReduceMin", [x, last], address, keepdims=1)], address)
    return emitter.node("Max", [most, least, emitter.const(float(activations.SMALLEST), "float32")], address)


def emit_step(emitter: GraphEmitter, largest: str, address: str) -> str:
    """One step of INT8 where the largest magnitude is this."""
    return emitter.node("Mul", [largest, emitter.const(float(activations.high_step()), "float32")], address)


def emit_quantized(
    emitter: GraphEmitter, x: str, step: str, address: str, block: int, element: Literal["uint8", "int8"] = "uint8"
) -> str:
    """x [.., K] in steps [.., K / block]: uint8 with zero point 128, or int8 with 0."""
    zero = activations.ZERO_POINT if element == "uint8" else 0
    # A zero point must have the shape of the scales, which is free here: as many zeros, quantized.
    nothing = emitter.node("Sub", [step, step], f"{address}/zero_point")
    one, zero_point = emitter.const(1.0, "float32"), emitter.const(zero, element)
    zeros = emitter.node("QuantizeLinear", [nothing, one, zero_point], f"{address}/zero_point")
    return emitter.node("QuantizeLinear", [x, step, zeros], address, axis=-1, block_size=block)


def emit_int8_product(
    emitter: GraphEmitter,
    rounded: RoundedRows,
    weight: str,
    scales: str,
    address: str,
    *,
    bias: str = "",
    output: str = "",
) -> str:
    """[.., K] → [.., N]: the rounded activations times weight · scales, under the name `output` where one is given.

    Args:
        emitter: the graph.
        rounded: the activations.
        weight: name of an int8 [K, N].
        scales: name of a float32 [N].
        address: the product's place in the model.
        bias: name of a float32 [N].
        output: the result's name.
    """
    product = _product(emitter, rounded.high, 1.0, weight, scales, f"{address}/high")
    if rounded.low is not None:
        rest = _product(emitter, rounded.low, float(activations.low_step()), weight, scales, f"{address}/low")
        product = emitter.node("Add", [product, rest], f"{address}/parts")
    named: int | list[str] = [output] if output else 1
    if not bias:
        return emitter.node("Mul", [product, rounded.step], address, outputs=named)
    return emitter.node("Add", [emitter.node("Mul", [product, rounded.step], address), bias], address, outputs=named)


def _product(emitter: GraphEmitter, values: str, step: float, weight: str, scales: str, address: str) -> str:
    zero, size = emitter.const(activations.ZERO_POINT, "uint8"), emitter.const(step, "float32")
    return emitter.microsoft("MatMulIntegerToFloat", [values, weight, size, scales, zero], address)
