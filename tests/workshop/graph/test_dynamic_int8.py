"""a8 and a16: the graph, numpy's integer product, and the float product of what the contract rounds to are one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from onnx import TensorProto

from stages.device.contract import activations, int8_channels
from stages.device.contract.int8_channels import Int8Channels
from stages.workshop.graph.dynamic_int8 import emit_int8_product, emit_rounded
from stages.workshop.graph.emitter import FLOAT, INT8, GraphEmitter

Precision = Literal["int8", "int16"]
ROWS, COLUMNS, TOKENS = 24, 70, 9


def tokens(kind: str) -> np.ndarray:
    """x [1, T, K] of several difficulties."""
    x = np.random.default_rng(3).standard_normal((1, TOKENS, COLUMNS)).astype(np.float32)
    match kind:
        case "zero rows":
            x[:, 2:4] = 0
        case "outlier rows":
            x[:, 5, 7], x[:, 1] = 900, x[:, 1] * 1e4
        case "tiny rows":
            x[:, 4] *= np.float32(1e-20)
    return x


def weights() -> tuple[Int8Channels, np.ndarray]:
    """A weight [N, K] as INT8 channels, one of them all zeros, and a bias [N]."""
    rng = np.random.default_rng(4)
    weight = rng.standard_normal((ROWS, COLUMNS)).astype(np.float32)
    weight[3] = 0
    return int8_channels.quantize(weight), rng.standard_normal(ROWS).astype(np.float32)


def integer_product(x: np.ndarray, weight: Int8Channels, precision: Precision) -> np.ndarray:
    """The same product from its integers, [.., T, N] float64: exact until the scales."""
    high, low, step = activations.round_rows(x, precision)
    turned = weight.values.T.astype(np.int64)
    product = ((high.astype(np.int64) - activations.ZERO_POINT) @ turned).astype(np.float64)
    if low is not None:
        rest = (low.astype(np.int64) - activations.ZERO_POINT) @ turned
        product = product + rest * float(activations.low_step())
    return product * step * weight.scales.reshape(-1).astype(np.float64)


def write(folder: Path, precision: Precision, form: str, bias: bool = True) -> tuple[Path, dict[str, np.ndarray]]:
    """One product as a graph; what must be fed beside x."""
    weight, offset = weights()
    values, scales = np.ascontiguousarray(weight.values.T), weight.scales.reshape(-1).astype(np.float32)
    with GraphEmitter(folder, "product.onnx", "/model") as emitter:
        emitter.input("x", FLOAT, [1, "tokens", COLUMNS])
        emitter.output("y", FLOAT, [1, "tokens", ROWS])
        if form == "inputs":
            emitter.input("w", INT8, list(values.shape))
            emitter.input("s", FLOAT, [ROWS])
        else:
            emitter.weight("w", values)
            emitter.weight("s", scales)
        rounded = emit_rounded(emitter, "x", "layers.0/part", precision)
        named = emitter.weight("b", offset) if bias else ""
        emit_int8_product(emitter, rounded, "w", "s", "layers.0/part", bias=named, output="y")
        emitter.save()
    return folder / "product.onnx", {"w": values, "s": scales} if form == "inputs" else {}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("form", ["initializers", "inputs"])
@pytest.mark.parametrize("kind", ["plain", "zero rows", "outlier rows", "tiny rows"])
@pytest.mark.parametrize("precision", ["int8", "int16"])
def test_graph_equals_integers_equals_floats(
    precision: Precision, kind: str, form: str, bias: bool, tmp_path: Path, open_graph: Callable[..., Any]
) -> None:
    path, feeds = write(tmp_path, precision, form, bias)
    weight, offset = weights()
    x = tokens(kind)
    added = offset.astype(np.float64) if bias else 0
    integers = integer_product(x, weight, precision)
    rounded = activations.unround(activations.round_rows(x, precision)).astype(np.float64)
    floats = rounded @ int8_channels.dequantize(weight).astype(np.float64).T
    found = open_graph(path)({"x": x, **feeds})["y"]
    # Each token against its own size: an outlier row must not hide what happens in the others.
    size = np.abs(integers).max(axis=-1, keepdims=True) + np.float64(1e-30)
    assert (np.abs(floats - integers) / size).max() < 1e-6
    assert (np.abs(found - (integers + added)) / (size + np.abs(added))).max() < 1e-6


@pytest.mark.parametrize("kind", ["plain", "zero rows", "outlier rows", "tiny rows"])
@pytest.mark.parametrize("precision", ["int8", "int16"])
def test_the_graph_rounds_as_the_contract_bit_for_bit(
    precision: Precision, kind: str, tmp_path: Path, open_graph: Callable[..., Any]
) -> None:
    x = tokens(kind)
    expected = activations.round_rows(x, precision)
    with GraphEmitter(tmp_path, "rounded.onnx", "/model") as emitter:
        emitter.input("x", FLOAT, [1, "tokens", COLUMNS])
        rounded = emit_rounded(emitter, "x", "layers.0/in", precision)
        emitter.output(rounded.step, FLOAT, [1, "tokens", 1])
        for part in filter(None, (rounded.high, rounded.low)):
            emitter.output(part, TensorProto.UINT8, [1, "tokens", COLUMNS])
        emitter.save()
    outputs = open_graph(tmp_path / "rounded.onnx")({"x": x})
    np.testing.assert_array_equal(outputs[rounded.step], expected.step)
    np.testing.assert_array_equal(outputs[rounded.high], expected.high)
    if rounded.low is not None:
        np.testing.assert_array_equal(outputs[rounded.low], expected.low)


@pytest.mark.parametrize("precision", ["int8", "int16"])
def test_a_token_does_not_see_the_others(precision: Precision, tmp_path: Path, open_graph: Callable[..., Any]) -> None:
    path, _ = write(tmp_path, precision, "initializers")
    run, x = open_graph(path), tokens("outlier rows")
    together = run({"x": x})["y"]
    for index in range(TOKENS):
        np.testing.assert_array_equal(run({"x": x[:, index : index + 1]})["y"][0, 0], together[0, index])


@pytest.mark.parametrize("precision", ["int8", "int16"])
def test_products_share_what_was_rounded(precision: Precision, tmp_path: Path, open_graph: Callable[..., Any]) -> None:
    weight, _ = weights()
    with GraphEmitter(tmp_path, "two.onnx", "/model") as emitter:
        emitter.input("x", FLOAT, ["tokens", COLUMNS])
        rounded = emit_rounded(emitter, "x", "layers.0/in", precision)
        for index, name in enumerate(("gate", "up")):
            emitter.output(name, FLOAT, ["tokens", ROWS])
            values = emitter.weight(f"{name}.w", np.ascontiguousarray(np.roll(weight.values, index, 0).T))
            scales = emitter.weight(f"{name}.s", np.roll(weight.scales.reshape(-1), index).astype(np.float32))
            emit_int8_product(emitter, rounded, values, scales, f"layers.0/{name}", output=name)
        emitter.save()
    x = tokens("plain")
    outputs = open_graph(tmp_path / "two.onnx")({"x": x[0]})
    expected = integer_product(x[0], weight, precision)
    for index, name in enumerate(("gate", "up")):
        np.testing.assert_allclose(outputs[name], np.roll(expected, index, -1), rtol=0, atol=1e-6 * expected.max())
