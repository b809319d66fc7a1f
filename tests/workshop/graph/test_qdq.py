"""Quantized weights as NPU compilers read them: the graph in onnxruntime against the contract, and the bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto

from stages.device.contract import int4_blocks, int8_channels
from stages.device.contract.int4_blocks import Int4Blocks
from stages.device.contract.int8_channels import Int8Channels
from stages.workshop.graph.emitter import FLOAT, GraphEmitter
from stages.workshop.graph.qdq import emit_qdq_weight

ROWS, TOKENS = 25, 7


def weight_of(form: str, columns: int) -> Int4Blocks | Int8Channels:
    weight = np.random.default_rng(columns).standard_normal((ROWS, columns)).astype(np.float32)
    if form == "int8":
        return int8_channels.quantize(weight)
    return int4_blocks.quantize(weight, columns if form == "int4" else 32)


def write(weight: Int4Blocks | Int8Channels, folder: Path) -> Path:
    columns = weight.values.shape[1]
    with GraphEmitter(folder, "qdq.onnx", "/model") as emitter:
        emitter.input("x", FLOAT, [1, TOKENS, columns])
        emitter.output("y", FLOAT, [1, TOKENS, ROWS])
        product = ["x", emit_qdq_weight(emitter, weight, "layers.0/part")]
        emitter.node("MatMul", product, "layers.0/part", outputs=["y"])
        return emitter.save()


def run_as_written(path: Path, x: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    # Otherwise the weight becomes a MatMulNBits, which rounds its inputs again.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(["y"], {"x": x})[0]


@pytest.mark.parametrize("columns", [64, 96])
@pytest.mark.parametrize("form", ["int8", "int4", "int4 blocks"])
def test_the_graph_multiplies_with_the_contracts_weight(form: str, columns: int, tmp_path: Path) -> None:
    weight = weight_of(form, columns)
    x = np.random.default_rng(2).standard_normal((1, TOKENS, columns)).astype(np.float32)
    dequantize = int8_channels.dequantize if form == "int8" else int4_blocks.dequantize
    expected = x.astype(np.float64) @ dequantize(weight).astype(np.float64).T  # type: ignore[arg-type]
    np.testing.assert_allclose(run_as_written(write(weight, tmp_path), x), expected, rtol=1e-4, atol=1e-5)


def test_the_weight_is_stored_as_four_bits(tmp_path: Path) -> None:
    weight = weight_of("int4 blocks", 96)
    path = write(weight, tmp_path)
    tensor = next(one for one in onnx.load(path).graph.initializer if one.name.endswith("qweight"))
    assert tensor.data_type == TensorProto.INT4
    assert len(tensor.raw_data) == -(-96 * ROWS // 2)
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor).astype(np.int8), weight.values.T)


def test_int4_per_channel_has_zero_points(tmp_path: Path) -> None:
    """Qualcomm's compiler computes something else without them, silently."""
    graph = onnx.load(write(weight_of("int4", 64), tmp_path)).graph
    node = next(one for one in graph.node if one.op_type == "DequantizeLinear")
    zeros = next(one for one in graph.initializer if one.name == node.input[2])
    assert (zeros.data_type, list(zeros.dims)) == (TensorProto.INT4, [ROWS])
    assert not onnx.numpy_helper.to_array(zeros).astype(np.int8).any()
