"""Every value of every graph has a shape that ONNX's strict inference agrees with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from stages.workshop.graph.operator_shapes import own_operators_shapes
from stages.workshop.graph.random_model import write_random_model
from stages.workshop.graph.random_weights import PAPER_RULES

GRAPHS = {"float": (), "paper": PAPER_RULES, "int8": PAPER_RULES}


def without_shape(model: onnx.ModelProto) -> list[str]:
    """Values of a graph that have no shape even after ONNX's strict inference, by name."""
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True).graph
    values = [*inferred.value_info, *inferred.output]
    known = {value.name for value in values if value.type.tensor_type.HasField("shape")}
    return [name for node in inferred.node for name in node.output if name and name not in known]


@pytest.mark.parametrize("policy", GRAPHS)
def test_no_value_is_without_a_shape(policy: Any, tmp_path: Path) -> None:
    list(write_random_model("tiny", tmp_path, layers=2, vision_layers=2, rules=GRAPHS[policy], policy=policy))
    graphs = sorted(tmp_path.glob("*.onnx"))
    assert len(graphs) >= 4
    for path in graphs:
        onnx.checker.check_model(str(path), full_check=True)
        assert without_shape(onnx.load(path, load_external_data=False)) == [], path.name


def test_the_shapes_are_those_that_onnxruntime_computes(tmp_path: Path) -> None:
    list(write_random_model("tiny", tmp_path, layers=1, vision_layers=1, policy="int8"))
    model = onnx.load(tmp_path / "vision.onnx")
    declared = {value.name: value for value in model.graph.value_info}
    assert declared
    model.graph.output.extend(declared.values())
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (port,) = session.get_inputs()
    patches = np.zeros((3, *port.shape[1:]), np.float32)
    for name, found in zip(declared, session.run(list(declared), {port.name: patches}), strict=True):
        dims = [
            dim.dim_value if dim.HasField("dim_value") else None for dim in declared[name].type.tensor_type.shape.dim
        ]
        assert len(dims) == found.ndim
        assert all(want in (None, have) for want, have in zip(dims, found.shape, strict=True))
        assert dims[0] is None


def test_an_operator_without_a_rule_has_no_shape() -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 3])
    node = onnx.helper.make_node("FastGelu", ["x"], ["y"], domain="com.microsoft")
    assert own_operators_shapes([node], [value], {}, 23) == []
