"""The reader of .onnx files against the onnx package, on graphs that were exported and on hand-made ones."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from stages.artifacts.errors import ModelError
from stages.device.contract.names import GRAPH_FILES
from stages.measure.graph_file import read_graph_file


def element_bytes(tensor: TensorProto) -> int:
    if tensor.data_type in (TensorProto.INT4, TensorProto.UINT4):
        return -(-math.prod(tensor.dims) // 2)
    return math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


@pytest.mark.parametrize("file", GRAPH_FILES)
def test_it_reads_what_onnx_reads(tiny_onnx: Path, file: str) -> None:
    graph = read_graph_file(tiny_onnx / file)
    model = onnx.load(tiny_onnx / file, load_external_data=False).graph
    assert [(n.op, n.name, n.inputs, n.outputs) for n in graph.nodes] == [
        (n.op_type, n.name, tuple(n.input), tuple(n.output)) for n in model.node
    ]
    whole = [{a.name: a.i for a in node.attribute if a.type == onnx.AttributeProto.INT} for node in model.node]
    assert [node.integers for node in graph.nodes] == whole
    assert {name: (weight.shape, weight.nbytes) for name, weight in graph.weights.items()} == {
        tensor.name: (tuple(tensor.dims), element_bytes(tensor)) for tensor in model.initializer
    }


def test_unusual_numbers(tmp_path: Path) -> None:
    """Negative and large attributes, INT4 tensors of odd size, scalars, floats beside whole numbers."""
    node = helper.make_node("X", ["a"], ["b"], axis=-1, large=2**62, alpha=0.5, perm=[1, 0], mode="x", zero=0)
    tensors = [
        helper.make_tensor("odd", TensorProto.INT4, [3], [1, 2, 3]),
        onnx.numpy_helper.from_array(np.float32(1), "scalar"),
        onnx.numpy_helper.from_array(np.zeros((0, 4), np.float16), "empty"),
    ]
    graph = helper.make_graph([node], "g", [], [], tensors)
    path = tmp_path / "x.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    read = read_graph_file(path)
    assert read.nodes[0].integers == {"axis": -1, "large": 2**62, "zero": 0}
    assert {name: (w.shape, w.nbytes) for name, w in read.weights.items()} == {
        "odd": ((3,), 2),
        "scalar": ((), 4),
        "empty": ((0, 4), 0),
    }


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"no model at all", b"\x3a\xff\xff\xff\xff\x0f", b"\xff" * 16])
def test_what_is_no_model_is_said(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        read_graph_file(path)
    assert str(path) in caught.value.what and "cannot be counted" in caught.value.why


def test_a_graph_cut_short_is_said(tiny_onnx: Path, tmp_path: Path) -> None:
    path = tmp_path / "decoder.onnx"
    content = (tiny_onnx / "decoder.onnx").read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="cut short"):
        read_graph_file(path)
    with pytest.raises(ModelError, match="No such file"):
        read_graph_file(tmp_path / "none.onnx")
