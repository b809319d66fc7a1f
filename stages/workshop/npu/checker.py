"""Names each node of a graph that an NPU compiler would refuse, or compile to something else, and why.

The rules are data: `rules.json`. They are those of Qualcomm's compiler; a graph that passes is plain QDQ ONNX.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import onnx
from onnx import NodeProto, TensorProto, helper, shape_inference
from pydantic import BaseModel, ConfigDict

from stages.artifacts.errors import BluelmError, ModelError

TO_INTEGERS, TO_FLOATS = "QuantizeLinear", "DequantizeLinear"


class Rules(BaseModel):
    """What the compiler takes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    largest_rank: int
    operators: frozenset[str]
    stored: tuple[str, ...]
    weights: tuple[str, ...]
    products: tuple[tuple[str, str], ...]
    smallest_block: int


@dataclass(frozen=True)
class Refusal:
    """A node, its operator, and why it would be refused; `node` is the value's name where a graph's border is meant."""

    node: str
    op: str
    why: str

    def as_dict(self) -> dict[str, str]:
        """For --json."""
        return {"node": self.node, "op": self.op, "why": self.why}


@cache
def rules() -> Rules:
    """The rules that come with bluelm."""
    return Rules.model_validate_json(Path(__file__).with_name("rules.json").read_bytes())


def refusals(path: Path) -> tuple[Refusal, ...]:
    """Everything about a graph that a compiler would refuse, in the order of its nodes."""
    return tuple(_Checked(onnx.load(path, load_external_data=False)).refusals())


def refused(path: Path, most: int = 5) -> BluelmError | None:
    """The refusals as one error, or None where there are none."""
    found = refusals(path)
    if not found:
        return None
    named = "; ".join(f"{one.node} ({one.op}): {one.why}" for one in found[:most])
    more = f"; and {len(found) - most} more" if len(found) > most else ""
    return ModelError(
        f"{path.name}: an NPU compiler refuses {len(found)} nodes: {named}{more}.",
        "They would run on the CPU, or not at all.",
        "Export a model whose parts are in stages/workshop/npu/rules.json; this one is not supported.",
    )


class _Checked:
    """A graph with the shapes and types of its values."""

    def __init__(self, model: onnx.ModelProto) -> None:
        inferred = shape_inference.infer_shapes(model)
        graph = self.graph = inferred.graph
        self.types: dict[str, int] = {}
        self.shapes: dict[str, list[Any]] = {}
        for value in (*graph.input, *graph.output, *graph.value_info):
            tensor = value.type.tensor_type
            self.types[value.name] = tensor.elem_type
            self.shapes[value.name] = [one.dim_value or one.dim_param or "?" for one in tensor.shape.dim]
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        for name, tensor in self.weights.items():
            self.types[name], self.shapes[name] = tensor.data_type, list(tensor.dims)
        self.makers = {name: node for node in graph.node for name in node.output}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def refusals(self) -> Iterator[Refusal]:
        for value in (*self.graph.input, *self.graph.output):
            if self._type(value.name) not in rules().stored:
                yield Refusal(value.name, "graph", f"crosses the graph's border as {self._type(value.name)}")
        for node in self.graph.node:
            yield from (Refusal(node.name, node.op_type, why) for why in self._reasons(node))

    def _reasons(self, node: NodeProto) -> Iterator[str]:
        if node.domain not in ("", "ai.onnx"):
            yield f"an operator of {node.domain}, not of ONNX"
            return
        if node.op_type not in rules().operators:
            yield "not among the operators it has"
        for name in node.output:
            shape = self.shapes.get(name, ["?"])
            if any(not isinstance(size, int) for size in shape):
                yield f"its shape {shape} is not fixed"
            if len(shape) > rules().largest_rank:
                yield f"rank {len(shape)}; {rules().largest_rank} is the largest"
        if node.op_type == TO_FLOATS:
            yield from self._weight(node)
        elif node.op_type != TO_INTEGERS:
            yield from self._rounded(node)
        if node.op_type == "MatMul":
            yield from self._product(node)

    def _rounded(self, node: NodeProto) -> Iterator[str]:
        """Every float in and out of an operator has to pass through integers."""
        for name in node.input:
            if self.types.get(name) == TensorProto.FLOAT and self._maker(name) != TO_FLOATS:
                yield f"its input {name} is float, not behind {TO_FLOATS}"
        for name in node.output:
            readers = self.readers.get(name, [])
            if not readers or any(reader.op_type != TO_INTEGERS for reader in readers):
                yield f"its output {name} is float, not in front of {TO_INTEGERS}"

    def _weight(self, node: NodeProto) -> Iterator[str]:
        stored = self._type(node.input[0])
        if node.input[0] not in self.weights:
            return
        attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        block, scales = attributes.get("block_size", 0), self.shapes[node.input[1]]
        if stored not in (*rules().stored, *rules().weights, "int32"):
            yield f"a weight stored as {stored}"
        if block and (block < rules().smallest_block or block & (block - 1)):
            yield f"blocks of {block}: powers of two from {rules().smallest_block} on are compiled"
        if block and self.shapes[node.input[0]][0] % block:
            yield f"blocks of {block} do not divide {self.shapes[node.input[0]][0]} rows"
        if stored == "int4" and not block and scales not in ([], [1]) and len(node.input) < 3:
            yield "INT4 with a scale per channel and no zero points is compiled to something else, silently"

    def _product(self, node: NodeProto) -> Iterator[str]:
        kinds = tuple(self._stored(name) for name in node.input)
        if kinds not in rules().products:
            yield f"a product of {' and '.join(kinds)}; " + ", ".join("×".join(pair) for pair in rules().products)

    def _stored(self, name: str) -> str:
        """What a float value was as an integer."""
        maker = self.makers.get(name)
        return self._type(maker.input[0]) if maker is not None and maker.op_type == TO_FLOATS else self._type(name)

    def _maker(self, name: str) -> str:
        return self.makers[name].op_type if name in self.makers else ""

    def _type(self, name: str) -> str:
        return TensorProto.DataType.Name(self.types.get(name, 0)).lower()
