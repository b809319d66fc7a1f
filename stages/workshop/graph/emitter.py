"""Builds one ONNX graph: nodes named as addresses, weights streamed to a file beside it.

A node's name is its place in the model (`/model/layers.0/attn/q_proj/MatMulNBits`) and its outputs are
`<name>/output_0`, …: the grammar of onnxruntime-genai's model builder, so that its readers feel at home.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from stages.device.contract.tensor_ref import TensorRef
from stages.workshop.graph.external_data import ExternalData, initializer
from stages.workshop.graph.operator_shapes import own_operators_shapes

# opset 23 brings RMSNormalization; IR 11 is the version that came with it. Fixed, so that the bytes are.
OPSET, IR_VERSION = 23, 11
MICROSOFT = "com.microsoft"
FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16
INT8, UINT8 = TensorProto.INT8, TensorProto.UINT8
INT32, INT64 = TensorProto.INT32, TensorProto.INT64
# Smaller weights stay inside the graph file.
INLINE_BYTES = 256

Dim = int | str


class GraphEmitter:
    """One graph being written to `folder/file`; use as a context manager, then call `save` inside it.

    Args:
        folder: where the graph and its `.data` file go.
        file: the graph's file name.
        root: the address all nodes of this graph begin with, such as `/model`.
        shared: weights of finished graphs in this folder; those that this one has too, byte for byte, are read there.
    """

    def __init__(self, folder: Path, file: str, root: str, shared: Sequence[TensorRef] = ()) -> None:
        self.path = folder / file
        self.root = root
        self._data = ExternalData(folder / f"{file}.data", shared)
        self._refs: dict[str, TensorRef] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._initializers: dict[str, TensorProto] = {}

    def __enter__(self) -> GraphEmitter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._data.__exit__(kind, error, trace)

    def input(self, name: str, element: int, shape: Sequence[Dim]) -> str:
        """Declares a graph input; a dimension given as a word is free."""
        self._inputs.append(helper.make_tensor_value_info(name, element, list(shape)))
        return name

    def output(self, name: str, element: int, shape: Sequence[Dim]) -> None:
        """Declares a value that some node writes under this very name as a graph output."""
        self._outputs.append(helper.make_tensor_value_info(name, element, list(shape)))

    @property
    def refs(self) -> dict[str, TensorRef]:
        """Where the weights lie that are not inside the graph file, by name."""
        return dict(self._refs)

    def weight(self, name: str, array: NDArray[Any]) -> str:
        """Adds a weight under its name; where that name is there already, the first one stays."""
        if name not in self._initializers:
            if array.nbytes < INLINE_BYTES:
                self._initializers[name] = numpy_helper.from_array(array, name)
            else:
                self.outside(name, array)
        return name

    def outside(self, name: str, array: NDArray[Any]) -> TensorRef:
        """Adds a weight that lies outside the graph file even where it is small, and tells where."""
        self._refs[name] = self._data.append(array)
        self._initializers[name] = initializer(name, self._refs[name])
        return self._refs[name]

    def packed_weight(self, name: str, payload: NDArray[np.uint8], element: int, shape: Sequence[int]) -> str:
        """Adds a weight of a type that numpy has not, such as INT4, from the bytes that ONNX stores."""
        if name not in self._initializers:
            self._refs[name] = self._data.append(payload)
            tensor = initializer(name, self._refs[name])
            tensor.data_type = element
            del tensor.dims[:]
            tensor.dims.extend(shape)
            self._initializers[name] = tensor
        return name

    def const(self, value: int | Sequence[int] | float, dtype: str = "int64") -> str:
        """A small constant, shared by all nodes that use it."""
        return self.weight(f"{self.root}/constants/{dtype}/{value}", np.asarray(value, dtype))

    def node(
        self,
        op: str,
        inputs: Sequence[str],
        address: str,
        *,
        domain: str = "",
        outputs: int | Sequence[str] = 1,
        **attributes: Any,
    ) -> str:
        """Adds a node and returns its first output.

        Args:
            op: the operator.
            inputs: names of values; "" for an absent optional one.
            address: its place in the model, without the operator's name, such as `layers.0/attn/qkv_proj`.
            domain: "" for ONNX, `MICROSOFT` for onnxruntime's own operators.
            outputs: how many, named by the address, or their names ("" for an unused one).
            attributes: the operator's.
        """
        name = "/".join(part for part in (self.root, address, op) if part)
        if isinstance(outputs, int):
            outputs = [f"{name}/output_{index}" for index in range(outputs)]
        self._nodes.append(helper.make_node(op, list(inputs), list(outputs), name=name, domain=domain, **attributes))
        return outputs[0]

    def microsoft(
        self, op: str, inputs: Sequence[str], address: str, *, outputs: int | Sequence[str] = 1, **attributes: Any
    ) -> str:
        """A node of onnxruntime's own operator set."""
        return self.node(op, inputs, address, domain=MICROSOFT, outputs=outputs, **attributes)

    def save(self) -> Path:
        """Checks the graph and writes it, with the shapes ONNX cannot infer; its weights are on disk already.

        Raises:
            onnx.checker.ValidationError: the graph is not valid (a bug).
        """
        graph = helper.make_graph(
            self._nodes,
            self.path.stem,
            self._inputs,
            self._outputs,
            list(self._initializers.values()),
            value_info=own_operators_shapes(self._nodes, self._inputs, self._initializers, OPSET),
        )
        model = helper.make_model(
            graph,
            ir_version=IR_VERSION,
            producer_name="bluelm",
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)],
        )
        self._data.flush()
        self.path.write_bytes(model.SerializeToString(deterministic=True))
        onnx.checker.check_model(str(self.path))
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
        return self.path
