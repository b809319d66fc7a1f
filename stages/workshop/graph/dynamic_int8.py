"""Products of INT8 weights and activations that are rounded per token while the graph runs (a8, a16).

    x ─┬─ Abs ─ ReduceMax ─ Max ── scale ───────────────────────────────┐
       └─ Div by scale ─┬─ QuantizeLinear ── high ── MatMulIntegerToFloat ─┬─ (Add) ─ Mul ─ (Add bias)
                        └─ Sub what high says ─ QuantizeLinear ── low ─ MatMulIntegerToFloat
                                                 └──────── a16 only ────────┘

What is rounded, and how, is contract/activations.py. Activations are unsigned with zero point 128: onnxruntime has no
fast product of two signed bytes on x86. Weights may be initializers or graph inputs.

Axes: K columns of x, N columns of the product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stages.device.contract import activations
from stages.workshop.graph.emitter import GraphEmitter


@dataclass(frozen=True)
class RoundedRows:
    """Names of what a tensor [.., K] was rounded to: high and low uint8 [.., K] (low None for a8), scale [.., 1]."""

    high: str
    low: str | None
    scale: str


def emit_rounded(emitter: GraphEmitter, x: str, address: str, precision: Literal["int8", "int16"]) -> RoundedRows:
    """Rounds each token of x [.., K] as `activations.round_rows` does; several products may share the result."""
    zero = emitter.const(activations.ZERO_POINT, "uint8")
    high_step = emitter.const(float(activations.high_step()), "float32")
    largest = emitter.node(
        "ReduceMax", [emitter.node("Abs", [x], f"{address}/scale"), emitter.const([-1])], f"{address}/scale", keepdims=1
    )
    scale = emitter.node("Max", [largest, emitter.const(float(activations.SMALLEST), "float32")], f"{address}/scale")
    unit = emitter.node("Div", [x, scale], address)
    high = emitter.node("QuantizeLinear", [unit, high_step, zero], f"{address}/high")
    if precision == "int8":
        return RoundedRows(high, None, scale)
    kept = emitter.node("DequantizeLinear", [high, high_step, zero], f"{address}/high")
    rest = emitter.node("Sub", [unit, kept], f"{address}/low")
    low_step = emitter.const(float(activations.low_step()), "float32")
    return RoundedRows(high, emitter.node("QuantizeLinear", [rest, low_step, zero], f"{address}/low"), scale)


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
    product = _product(emitter, rounded.high, float(activations.high_step()), weight, scales, f"{address}/high")
    if rounded.low is not None:
        rest = _product(emitter, rounded.low, float(activations.low_step()), weight, scales, f"{address}/low")
        product = emitter.node("Add", [product, rest], f"{address}/parts")
    named: int | list[str] = [output] if output else 1
    if not bias:
        return emitter.node("Mul", [product, rounded.scale], address, outputs=named)
    return emitter.node("Add", [emitter.node("Mul", [product, rounded.scale], address), bias], address, outputs=named)


def _product(emitter: GraphEmitter, values: str, step: float, weight: str, scales: str, address: str) -> str:
    zero, size = emitter.const(activations.ZERO_POINT, "uint8"), emitter.const(step, "float32")
    return emitter.microsoft("MatMulIntegerToFloat", [values, weight, size, scales, zero], address)
