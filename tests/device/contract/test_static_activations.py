"""Static encodings: the contract against ONNX's own QuantizeLinear, and what a range becomes."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from stages.device.contract import int8_kv
from stages.device.contract.static_activations import (
    MOST,
    Encoding,
    encoding_of,
    round_static,
    symmetric,
    unround_static,
)

ENCODINGS = [Encoding(0.01, 128, "uint8"), Encoding(3e-4, 20000), Encoding(1 / 65535, 0), Encoding(7e-4, 65535)]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_rounds_as_quantize_linear_does(encoding: Encoding) -> None:
    element = {"uint8": TensorProto.UINT8, "uint16": TensorProto.UINT16}[encoding.dtype]
    parts = [
        helper.make_tensor("scale", TensorProto.FLOAT, [], [encoding.scale]),
        helper.make_tensor("zero", element, [], [encoding.zero]),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["stored"]),
        helper.make_node("DequantizeLinear", ["stored", "scale", "zero"], ["back"]),
    ]
    given_, kept = helper.make_tensor_value_info("x", 1, ["n"]), helper.make_tensor_value_info("stored", element, ["n"])
    back = helper.make_tensor_value_info("back", 1, ["n"])
    graph = helper.make_graph(nodes, "round", [given_], [kept, back], parts)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    # Halves of a step, beyond both ends, and numbers at random.
    steps = np.concatenate([np.arange(-5, 5) + 0.5, [1e6, -1e6, 0], np.random.default_rng(0).normal(0, 3e4, 500)])
    x = (steps * encoding.scale).astype(np.float32)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    stored, numbers = session.run(None, {"x": x})
    np.testing.assert_array_equal(round_static(x, encoding), stored)
    np.testing.assert_array_equal(unround_static(stored, encoding), numbers)


@given(st.floats(-1e6, 1e6, width=32), st.floats(-1e6, 1e6, width=32), st.sampled_from(["uint8", "uint16"]))
def test_an_encoding_holds_its_range_and_zero(one: float, other: float, dtype: str) -> None:
    low, high = sorted((one, other))
    encoding = encoding_of(low, high, dtype)  # type: ignore[arg-type]
    edges = np.array([low, high, 0.0], np.float32)
    back = unround_static(round_static(edges, encoding), encoding)
    assert back[2] == 0
    # Half a step for the number, half for the zero point.
    assert np.abs(back - edges).max() <= encoding.scale * 1.01
    assert 0 <= encoding.zero <= MOST[dtype]


def test_the_caches_bytes_are_the_int8_contracts_with_128_added() -> None:
    scale = int8_kv.scale_for(2.0)
    x = np.random.default_rng(1).normal(0, 1, 1000).astype(np.float32)
    stored = round_static(x, Encoding(scale, 128, "uint8"))
    np.testing.assert_array_equal(stored.astype(np.int16) - 128, int8_kv.quantize(x, scale))
    assert symmetric(2.0, "uint8") == Encoding(scale, 128, "uint8")
