"""Nodes and weights of an .onnx file, read without the onnx package, which measuring does without as the device does.

Only what accounts need: operators, names, whole-number attributes, and how many bytes each weight takes. Protocol
buffers are a sequence of (field number, wire type, value); the field numbers are those of onnx.proto.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.artifacts.errors import ModelError

# Wire types: how long a value is.
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5

_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER = 1, 5
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OP, _NODE_ATTRIBUTE = 1, 2, 3, 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_INT, _ATTRIBUTE_TYPE = 1, 3, 20
_ATTRIBUTE_IS_INT = 2
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME = 1, 2, 8

# Bits of onnx's element types, by number; other types hold no weights.
_BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 16: 16, 21: 4, 22: 4}


@dataclass(frozen=True)
class GraphNode:
    """One node: its operator, its name, the names of what it takes and gives, its whole-number attributes."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    integers: dict[str, int]


@dataclass(frozen=True)
class GraphWeight:
    """One initializer: its shape, and the bytes it takes wherever they lie."""

    shape: tuple[int, ...]
    nbytes: int


@dataclass(frozen=True)
class GraphFile:
    """The nodes in their order and the initializers by name."""

    nodes: tuple[GraphNode, ...]
    weights: dict[str, GraphWeight]


def read_graph_file(path: Path) -> GraphFile:
    """Reads the graph of an .onnx file; weights stay where they are.

    Raises:
        ModelError: it is missing, or no ONNX model.
    """
    try:
        content = path.read_bytes()
        graphs = [value for number, value in _fields(content) if number == _MODEL_GRAPH]
        nodes, weights = [], {}
        for graph in graphs:
            for number, value in _fields(graph):
                if number == _GRAPH_NODE:
                    nodes.append(_node(value))
                elif number == _GRAPH_INITIALIZER:
                    name, weight = _weight(value)
                    weights[name] = weight
        if not graphs:
            raise ValueError("it holds no graph")
        return GraphFile(tuple(nodes), weights)
    except (OSError, ValueError, IndexError, TypeError) as error:
        raise ModelError(
            f"{path} cannot be read: {error}.",
            "What it computes cannot be counted.",
            "Export the model again: bluelm export CHECKPOINT --out FOLDER --force",
        ) from error


def _node(content: bytes) -> GraphNode:
    inputs, outputs, name, op = [], [], "", ""
    integers: dict[str, int] = {}
    for number, value in _fields(content):
        if number == _NODE_INPUT:
            inputs.append(value.decode())
        elif number == _NODE_OUTPUT:
            outputs.append(value.decode())
        elif number == _NODE_NAME:
            name = value.decode()
        elif number == _NODE_OP:
            op = value.decode()
        elif number == _NODE_ATTRIBUTE:
            integers |= _integer(value)
    return GraphNode(op, name, tuple(inputs), tuple(outputs), integers)


def _integer(content: bytes) -> dict[str, int]:
    """The attribute as {name: value} where it is one whole number, else nothing."""
    fields = dict(_fields(content))
    if fields.get(_ATTRIBUTE_TYPE) != _ATTRIBUTE_IS_INT:
        return {}
    return {fields[_ATTRIBUTE_NAME].decode(): _signed(fields.get(_ATTRIBUTE_INT, 0))}


def _weight(content: bytes) -> tuple[str, GraphWeight]:
    name, element, dims = "", 0, []
    for number, value in _fields(content):
        if number == _TENSOR_DIMS:
            dims += [value] if isinstance(value, int) else list(_varints(value))
        elif number == _TENSOR_TYPE:
            element = value
        elif number == _TENSOR_NAME:
            name = value.decode()
    if element not in _BITS:
        raise ValueError(f"the weight {name} has elements of the type {element}")
    return name, GraphWeight(tuple(dims), -(-math.prod(dims) * _BITS[element] // 8))


def _fields(content: bytes) -> Iterator[tuple[int, Any]]:
    """Field numbers and values of a message: whole numbers, or bytes.

    Raises:
        ValueError, IndexError: the bytes are no message.
    """
    view, at = memoryview(content), 0
    while at < len(view):
        tag, at = _varint(view, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(view, at)
            yield number, value
            continue
        if wire == _LENGTH:
            length, at = _varint(view, at)
        elif wire in (_EIGHT_BYTES, _FOUR_BYTES):
            length = 8 if wire == _EIGHT_BYTES else 4
        else:
            raise ValueError("it is no ONNX model")
        if at + length > len(view):
            raise ValueError("it is cut short or no ONNX model")
        yield number, bytes(view[at : at + length])
        at += length


def _varints(content: bytes) -> Iterator[int]:
    view, at = memoryview(content), 0
    while at < len(view):
        value, at = _varint(view, at)
        yield value


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """Seven bits a byte, lowest first; the highest bit says that more follow."""
    value = shift = 0
    while True:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("it is no ONNX model")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
