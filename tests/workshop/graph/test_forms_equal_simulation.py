"""Each form of a product, three ways: the graph in onnxruntime, the contract in numpy, the simulation in torch.

Axes: T tokens, K columns, N rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import nn

from stages.device.contract import activations, int4_blocks, int8_channels
from stages.workshop.graph.emitter import FLOAT, GraphEmitter
from stages.workshop.graph.linear import Floats, Linear
from stages.workshop.graph.matmul_forms import emit_linear, emit_linears, form_of
from stages.workshop.quant.input_rounding import InputRounding, rounded_inputs

FORMS = {
    "float": ("float", "int8"),
    "nbits": ("int4", "float"),
    "half": ("int8", "float16"),
    "nbits8": ("int4", "int8"),
    "nbits16": ("int4", "int16"),
    "a8": ("int8", "int8"),
    "a16": ("int8", "int16"),
}
# What the form's rounding costs these inputs, at most: they have outliers.
COST = {"float": 1e-6, "nbits": 1e-6, "half": 1e-3, "nbits8": 3e-2, "nbits16": 1e-4, "a8": 2e-1, "a16": 1e-3}


def linear_of(form: str, columns: int, block: int, bias: bool, rows: int = 40) -> Linear:
    rng = np.random.default_rng(columns)
    weight = rng.standard_normal((rows, columns)).astype(np.float32)
    offset = rng.standard_normal(rows).astype(np.float32) if bias else None
    stored, precision = FORMS[form]
    if stored == "float":
        return Linear(weight, offset, precision)
    if stored == "int8":
        return Linear(int8_channels.quantize(weight), offset, precision)
    return Linear(int4_blocks.quantize(weight, block, two_level=True), offset, precision)


def inputs_of(tokens: int, columns: int) -> Floats:
    """Random rows with one channel 60 times as large; a row of zeros; one whose last block is zeros; small numbers."""
    x = np.random.default_rng(tokens).standard_normal((1, tokens, columns)).astype(np.float32)
    x[..., columns // 3] *= 60
    if tokens > 3:
        x[0, 1] = 0
        x[0, 2, columns // 2 :] = 0
        x[0, 3] *= np.float32(1e-20)
    return x


def run_graph(linear: Linear, x: Floats, folder: Path, open_graph: Any, **how: bool) -> Floats:
    rows, columns = linear.shape
    with GraphEmitter(folder, "linear.onnx", "/model") as emitter:
        emitter.input("x", FLOAT, [1, "tokens", columns])
        emitter.output("y", FLOAT, [1, "tokens", rows])
        emit_linear(emitter, "x", linear, "layers.0/part", "y", **how)
        emitter.save()
    found: Floats = open_graph(folder / "linear.onnx")({"x": x})["y"]
    return found


def by_contract(form: str, linear: Linear, x: Floats, block: int) -> Floats:
    """Rounded inputs times the dequantized weight, summed in float64."""
    match form:
        case "nbits8":
            x = activations.round_blocks(x, block)
        case "nbits16":
            x = activations.round_block_parts(x, block)
        case "half":
            x = activations.round_half(x)
        case "a8" | "a16":
            precision: Literal["int8", "int16"] = "int8" if form == "a8" else "int16"
            x = activations.unround(activations.round_rows(x, precision))
    product = x.astype(np.float64) @ linear.dequantized().astype(np.float64).T
    return (product + (0 if linear.bias is None else linear.bias)).astype(np.float32)


def simulated(form: str, linear: Linear, x: Floats, block: int) -> Floats:
    rows, columns = linear.shape
    module = nn.Linear(columns, rows, bias=linear.bias is not None)
    module.weight.data = torch.from_numpy(linear.dequantized().copy())
    if linear.bias is not None:
        module.bias.data = torch.from_numpy(linear.bias)
    roundings = {}
    if linear.activations != "float" and form != "float":
        roundings[""] = InputRounding(linear.activations, block if form.startswith("nbits") else None)
    with torch.no_grad(), rounded_inputs(module, roundings):
        return module(torch.from_numpy(x)).numpy()


@pytest.mark.parametrize("tokens", [1, 6])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("columns", "block"), [(256, 128), (300, 128), (100, 32), (40, 16)])
@pytest.mark.parametrize("form", FORMS)
def test_a_form_equals_its_simulation(
    form: str, columns: int, block: int, bias: bool, tokens: int, tmp_path: Path, open_graph: Any
) -> None:
    linear, x = linear_of(form, columns, block, bias), inputs_of(tokens, columns)
    assert form_of(linear) == ("nbits" if form == "half" else form)
    found = run_graph(linear, x, tmp_path, open_graph)
    contract, torch_way = by_contract(form, linear, x, block), simulated(form, linear, x, block)
    exact = by_contract("float", linear, x, block)
    scale = np.abs(exact).max(axis=-1, keepdims=True) + 1e-30  # [1, T, 1]
    assert (np.abs(found - contract) <= 2e-6 * scale).all()
    assert (np.abs(torch_way - contract) <= 2e-6 * scale).all()
    # The twin that verification runs, over the same weights, rounds nothing.
    twin = run_graph(linear, x, tmp_path, open_graph, exact=True)
    assert (np.abs(twin - exact) <= 2e-6 * scale).all()
    cost = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    assert cost <= COST[form]
    if COST[form] > 1e-6:
        assert cost >= COST[form] * 1e-3


@pytest.mark.parametrize("columns", [256, 300, 40])
@pytest.mark.parametrize("form", ["nbits8", "nbits16"])
def test_int8_channels_that_see_one_token(form: str, columns: int, tmp_path: Path, open_graph: Any) -> None:
    linear = linear_of("a8" if form == "nbits8" else "a16", columns, 0, bias=True)
    block, x = int8_channels.block_length(columns), inputs_of(1, columns)
    assert form_of(linear, one_token=True) == form
    found, exact = (run_graph(linear, x, tmp_path, open_graph, exact=exact, one_token=True) for exact in (False, True))
    scale = np.abs(exact).max()
    assert np.abs(found - by_contract(form, linear, x, block)).max() <= 2e-6 * scale
    assert np.abs(found - simulated(form, linear, x, block)).max() <= 2e-6 * scale
    assert np.abs(exact - by_contract("float", linear, x, block)).max() <= 2e-6 * scale
    assert COST[form] * 1e-3 <= np.linalg.norm(found - exact) / np.linalg.norm(exact) <= COST[form]


@pytest.mark.parametrize("columns", [256, 300])
def test_the_high_part_survives_the_operators_own_rounding(columns: int, tmp_path: Path, open_graph: Any) -> None:
    """nbits16 of an identity matrix gives its inputs back to about 16 bits: half a step of 254ths of a step.

    Were one high part rounded to another step, that element would be off by 254 times as much. (The operator adds up
    values + 8 and takes 8 times their sum off again, in float32: that is the 5e-5.)
    """
    scales = np.ones((columns, -(-columns // 128)), np.float32)
    identity = int4_blocks.quantize(np.eye(columns, dtype=np.float32), 128, scales=scales)
    np.testing.assert_array_equal(int4_blocks.dequantize(identity), np.eye(columns))
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((1, 500, columns)) * 10 ** rng.uniform(-6, 6, (1, 500, 1))).astype(np.float32)
    found = run_graph(Linear(identity, None, "int16"), x, tmp_path, open_graph)
    padded = np.pad(np.abs(x), ((0, 0), (0, 0), (0, -columns % 128)))
    largest = np.repeat(padded.reshape(1, 500, -1, 128).max(-1), 128, axis=-1)[..., :columns]
    assert (np.abs(found - x) <= largest / 127 / 508 + largest * 5e-5).all()


@pytest.mark.parametrize("form", FORMS)
def test_linears_of_one_input_share_its_rounding(form: str, tmp_path: Path, open_graph: Any) -> None:
    x = inputs_of(5, 128)
    linears = {f"part{rows}": linear_of(form, 128, 32, bias=True, rows=rows) for rows in (8, 24)}
    with GraphEmitter(tmp_path, "both.onnx", "/model") as emitter:
        emitter.input("x", FLOAT, [1, "tokens", 128])
        for name, linear in linears.items():
            emitter.output(name, FLOAT, [1, "tokens", linear.shape[0]])
        assert emit_linears(emitter, "x", linears, list(linears)) == list(linears)
        emitter.save()
    found = open_graph(tmp_path / "both.onnx")({"x": x})
    for name, linear in linears.items():
        np.testing.assert_array_equal(found[name], run_graph(linear, x, tmp_path, open_graph))
