"""The checker: each thing that an NPU compiler refuses is named, with its node and the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from stages.workshop.npu.checker import refusals, refused

UINT16, UINT8 = TensorProto.UINT16, TensorProto.UINT8


class Sketch:
    """A graph drawn quickly: values behind DequantizeLinear, results in front of QuantizeLinear."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.weights: list[Any] = [numpy_helper.from_array(np.float32(0.1), "scale")]
        for element, name in ((np.uint16, "zero16"), (np.uint8, "zero8")):
            self.weights.append(numpy_helper.from_array(element(0), name))

    def given(self, name: str, shape: list[Any], element: int = UINT16) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, element, shape))
        if element == TensorProto.FLOAT:
            return name
        zero = "zero16" if element == UINT16 else "zero8"
        self.nodes.append(helper.make_node("DequantizeLinear", [name, "scale", zero], [f"{name}.f"], f"dq.{name}"))
        return f"{name}.f"

    def op(self, op: str, inputs: list[str], **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [f"{op}.out"], f"the.{op}", **attributes))
        return f"{op}.out"

    def done(self, value: str, folder: Path) -> Path:
        self.nodes.append(helper.make_node("QuantizeLinear", [value, "scale", "zero16"], ["y"], "q.y"))
        self.outputs.append(helper.make_tensor_value_info("y", UINT16, None))
        graph = helper.make_graph(self.nodes, "sketch", self.inputs, self.outputs, self.weights)
        opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
        path = folder / "sketch.onnx"
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=11), path)
        return path


def found(path: Path) -> list[tuple[str, str]]:
    return [(one.node, one.why) for one in refusals(path)]


def test_a_plain_graph_passes(tmp_path: Path) -> None:
    sketch = Sketch()
    product = sketch.op("MatMul", [sketch.given("a", [1, 4, 8]), sketch.given("b", [1, 8, 4], UINT8)])
    path = sketch.done(product, tmp_path)
    assert refused(path) is None


@pytest.mark.parametrize(
    ("op", "domain", "shape", "says"),
    [
        ("Erf", "", [1, 4], "not among the operators"),
        ("QuickGelu", "com.microsoft", [1, 4], "an operator of com.microsoft"),
        ("Relu", "", ["tiles", 4], "is not fixed"),
        ("Relu", "", [1, 1, 1, 1, 1, 4], "rank 6; 5 is the largest"),
    ],
)
def test_operators_domains_and_shapes(op: str, domain: str, shape: list[Any], says: str, tmp_path: Path) -> None:
    sketch = Sketch()
    path = sketch.done(sketch.op(op, [sketch.given("a", shape)], domain=domain), tmp_path)
    assert any(node == f"the.{op}" and says in why for node, why in found(path))
    problem = refused(path)
    assert problem is not None
    assert f"the.{op}" in problem.what


def test_floats_between_operators_and_at_the_border(tmp_path: Path) -> None:
    sketch = Sketch()
    first = sketch.op("Relu", [sketch.given("a", [1, 4], TensorProto.FLOAT)])
    path = sketch.done(sketch.op("Sigmoid", [first]), tmp_path)
    said = found(path)
    assert ("a", "crosses the graph's border as float") in said
    assert ("the.Relu", "its output Relu.out is float, not in front of QuantizeLinear") in said
    assert ("the.Sigmoid", "its input Relu.out is float, not behind DequantizeLinear") in said


def test_products_of_two_16_bit_values(tmp_path: Path) -> None:
    sketch = Sketch()
    product = sketch.op("MatMul", [sketch.given("a", [1, 4, 8]), sketch.given("b", [1, 8, 4])])
    assert any("a product of uint16 and uint16" in why for _, why in found(sketch.done(product, tmp_path)))


@pytest.mark.parametrize(
    ("scales", "attributes", "says"),
    [
        (np.ones(4, np.float32), {"axis": 1}, "INT4 with a scale per channel and no zero points"),
        (np.ones((2, 4), np.float32), {"axis": 0, "block_size": 24}, "blocks of 24: powers of two"),
        (np.ones((6, 4), np.float32), {"axis": 0, "block_size": 8}, "blocks of 8: powers of two"),
    ],
)
def test_weights_that_are_compiled_to_something_else(
    scales: np.ndarray, attributes: dict[str, int], says: str, tmp_path: Path
) -> None:
    sketch = Sketch()
    weight = TensorProto(name="w", data_type=TensorProto.INT4, dims=[48, 4], raw_data=bytes(96))
    sketch.weights += [weight, numpy_helper.from_array(scales, "w.scales")]
    a = sketch.given("a", [1, 2, 48])
    product = sketch.op("MatMul", [a, sketch.op("DequantizeLinear", ["w", "w.scales"], **attributes)])
    assert any(node == "the.DequantizeLinear" and says in why for node, why in found(sketch.done(product, tmp_path)))
