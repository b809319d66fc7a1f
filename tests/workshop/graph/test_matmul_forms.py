"""A Linear in each of its forms: the graph's product is that of the contract's dequantized weight."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.device.contract import int4_blocks, int8_channels
from stages.device.contract.activations import Activations
from stages.workshop.graph.emitter import FLOAT, GraphEmitter
from stages.workshop.graph.linear import Linear, stacked
from stages.workshop.graph.matmul_forms import emit_linear, packed_blocks


def linear_of(
    form: str, rows: int, columns: int, bias: bool = True, seed: int = 0, activations: Activations = "float"
) -> Linear:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((rows, columns)).astype(np.float32)
    offset = rng.standard_normal(rows).astype(np.float32) if bias else None
    if form == "float":
        return Linear(weight, offset, activations)
    quantized = int8_channels.quantize(weight) if form == "int8" else int4_blocks.quantize(weight, int(form))
    return Linear(quantized, offset, activations)


def product(linear: Linear, x: np.ndarray, folder: Path, open_graph: Any, *, exact: bool = False) -> np.ndarray:
    rows, columns = linear.shape
    with GraphEmitter(folder, "linear.onnx", "/model") as emitter:
        emitter.input("x", FLOAT, [1, "tokens", columns])
        emitter.output("y", FLOAT, [1, "tokens", rows])
        emit_linear(emitter, "x", linear, "layers.0/part", "y", exact=exact)
        emitter.save()
    return open_graph(folder / "linear.onnx")({"x": x})["y"]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("rows", "columns"), [(24, 64), (1, 32), (97, 300), (7, 20), (130, 1152)])
@pytest.mark.parametrize("form", ["float", "int8", "16", "32", "128"])
def test_the_product_is_the_dequantized_weights(
    form: str, rows: int, columns: int, bias: bool, tmp_path: Path, open_graph: Any
) -> None:
    linear = linear_of(form, rows, columns, bias)
    x = np.random.default_rng(1).standard_normal((1, 5, columns)).astype(np.float32)
    expected = x.astype(np.float64) @ linear.dequantized().astype(np.float64).T
    if linear.bias is not None:
        expected = expected + linear.bias
    found = product(linear, x, tmp_path, open_graph)
    assert np.abs(found - expected).max() <= 3e-6 * np.abs(expected).max()
    if form != "float":
        rough = product(replace(linear, activations="int8"), x, tmp_path, open_graph)
        assert np.linalg.norm(rough - expected) <= 1.5e-2 * np.linalg.norm(expected)


@pytest.mark.parametrize("form", ["float", "int8", "32"])
def test_stacked_linears_give_the_outputs_of_each(form: str, tmp_path: Path, open_graph: Any) -> None:
    parts = [linear_of(form, rows, 64, seed=rows) for rows in (24, 8, 8)]
    joined = stacked(parts)
    assert joined is not None
    x = np.random.default_rng(1).standard_normal((1, 5, 64)).astype(np.float32)
    found = product(joined, x, tmp_path, open_graph)
    each = np.concatenate([product(part, x, tmp_path, open_graph) for part in parts], axis=-1)
    np.testing.assert_allclose(found, each, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "parts",
    [
        (linear_of("int8", 8, 64), linear_of("32", 8, 64)),
        (linear_of("16", 8, 64), linear_of("32", 8, 64)),
        (linear_of("32", 8, 64), linear_of("32", 8, 64, bias=False)),
        (linear_of("float", 8, 64), linear_of("int8", 8, 64)),
        (linear_of("32", 8, 64), linear_of("32", 8, 64, activations="int16")),
    ],
)
def test_different_forms_stay_apart(parts: tuple[Linear, ...]) -> None:
    assert stacked(parts) is None


@given(st.integers(1, 6000))
def test_int8_blocks_waste_little(columns: int) -> None:
    block = int8_channels.block_length(columns)
    assert block in int8_channels.BLOCKS
    assert block == int8_channels.BLOCKS[-1] or -columns % block <= columns / 16
    larger = [other for other in int8_channels.BLOCKS if other > block]
    assert all(-columns % other > columns / 16 for other in larger)


def test_packing_in_slices_is_packing_whole() -> None:
    four, eight = linear_of("32", 9001, 64).weight, linear_of("int8", 9001, 70).weight
    np.testing.assert_array_equal(packed_blocks(four).values, int4_blocks.pack(four))
    np.testing.assert_array_equal(packed_blocks(four).scales, four.scales)
    values, scales = int8_channels.pack(eight, int8_channels.block_length(70))
    np.testing.assert_array_equal(packed_blocks(eight).values, values)
    np.testing.assert_array_equal(packed_blocks(eight).scales, scales)
