"""The QDQ form, three ways: the graph in onnxruntime (as it is written), the contract in numpy, torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from stages.device.contract import int4_blocks, int8_channels, static_activations
from stages.workshop.graph.emitter import FLOAT, GraphEmitter
from stages.workshop.graph.linear import Linear
from stages.workshop.graph.qdq import emit_qdq_linear
from stages.workshop.quant.input_rounding import round_static

ROWS, TOKENS = 25, 7


def linear_of(form: str, columns: int, bias: bool) -> Linear:
    rng = np.random.default_rng(columns)
    weight = rng.standard_normal((ROWS, columns)).astype(np.float32)
    offset = rng.standard_normal(ROWS).astype(np.float32) if bias else None
    if form == "int8":
        return Linear(int8_channels.quantize(weight), offset)
    return Linear(int4_blocks.quantize(weight, columns if form == "int4" else 32), offset)


def write(linear: Linear, scale: np.float32, folder: Path) -> Path:
    rows, columns = linear.shape
    with GraphEmitter(folder, "qdq.onnx", "/model") as emitter:
        emitter.input("x", FLOAT, [1, "tokens", columns])
        emitter.output("y", FLOAT, [1, "tokens", rows])
        assert emit_qdq_linear(emitter, "x", linear, scale, "layers.0/part", "y") == "y"
        return emitter.save()


def run_as_written(path: Path, x: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    # Otherwise the weight becomes a MatMulNBits, which rounds its inputs again.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(["y"], {"x": x})[0]


def inputs_of(columns: int) -> np.ndarray:
    """Random tokens with an outlier channel, one token of zeros, and one beyond what calibration saw."""
    x = np.random.default_rng(2).standard_normal((1, TOKENS, columns)).astype(np.float32)
    x[..., 3] *= 60
    x[0, 1] = 0
    x[0, 2, 5] = 1e6
    return x


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("columns", [64, 96, 75])
@pytest.mark.parametrize("form", ["int8", "int4", "int4 blocks"])
def test_graph_equals_contract_equals_torch(form: str, columns: int, bias: bool, tmp_path: Path) -> None:
    linear, x = linear_of(form, columns, bias), inputs_of(columns)
    scale = static_activations.static_scale(200.0)
    rounded = static_activations.unround_static(static_activations.round_static(x, scale), scale)
    np.testing.assert_array_equal(round_static(torch.from_numpy(x), float(scale)).numpy(), rounded)
    exact = rounded.astype(np.float64) @ linear.dequantized().astype(np.float64).T
    expected = exact + (0 if linear.bias is None else linear.bias)
    found = run_as_written(write(linear, scale, tmp_path), x)
    bound = np.abs(expected).max(axis=-1, keepdims=True) + 1
    assert (np.abs(found - expected) <= 1e-6 * bound).all()
    # 16 bits are enough for what calibration saw, outliers included; what it did not see is clipped to that.
    seen = [0, 1, 3, 4, 5, 6]
    assert np.abs(rounded - x)[:, seen].max() <= scale / 2 * 1.001
    assert rounded.max() == static_activations.STEPS * scale


def test_the_weight_is_stored_as_four_bits(tmp_path: Path) -> None:
    linear = linear_of("int4 blocks", 75, bias=False)
    path = write(linear, np.float32(1), tmp_path)
    tensor = next(one for one in onnx.load(path).graph.initializer if one.name.endswith("qweight"))
    assert tensor.data_type == onnx.TensorProto.INT4
    assert len(tensor.raw_data) == -(-75 * ROWS // 2)
    weight = linear.weight
    assert isinstance(weight, int4_blocks.Int4Blocks)
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor).astype(np.int8), weight.values.T)


def test_scales_reach_what_was_seen() -> None:
    scale = static_activations.static_scale(3.5)
    assert static_activations.round_static(np.array([3.5, -3.5, 0]), scale).tolist() == [65535, 1, 32768]
    assert static_activations.static_scale(0.0) == 1
