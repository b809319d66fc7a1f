"""Shapes of what onnxruntime's own operators put out, which ONNX's shape inference knows nothing about.

Written into the graph as value_info, they let that inference, and its strict checks, go on behind those operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from onnx import NodeProto, TensorProto, TypeProto, ValueInfoProto, defs, helper, shape_inference

Types = Mapping[str, TypeProto]
# Integer inputs beyond this many numbers are weights, not shapes.
SHAPE_NUMBERS = 16


def own_operators_shapes(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    initializers: Mapping[str, TensorProto],
    opset: int,
) -> list[ValueInfoProto]:
    """The values that nodes outside ONNX's operator set give, as far as the shapes of their inputs are known.

    Args:
        nodes: in the order they run.
        inputs: the graph's.
        initializers: by name; small integer ones are read, as shapes.
        opset: ONNX's, for its own operators.
    """
    types = {value.name: value.type for value in inputs}
    for name, tensor in initializers.items():
        types[name] = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
    numbers = {
        name: tensor
        for name, tensor in initializers.items()
        if tensor.data_type == TensorProto.INT64 and sum(tensor.dims) <= SHAPE_NUMBERS and tensor.raw_data
    }
    found = []
    for node in nodes:
        if node.domain:
            given = _own(node, types, opset)
            found += [helper.make_value_info(name, kind) for name, kind in given.items()]
        else:
            given = _standard(node, types, numbers, opset)
        types.update(given)
    return found


def _standard(node: NodeProto, types: Types, numbers: Mapping[str, TensorProto], opset: int) -> dict[str, TypeProto]:
    known = {name: types[name] for name in node.input if name in types}
    data = {name: numbers[name] for name in node.input if name in numbers}
    if set(known) != {name for name in node.input if name}:
        return {}
    imports = [helper.make_opsetid("", opset)]
    schema = defs.get_schema(node.op_type, opset, "")
    given = shape_inference.infer_node_outputs(schema, node, known, data, opset_imports=imports)
    return {name: kind for name, kind in given.items() if name}


def _own(node: NodeProto, types: Types, opset: int) -> dict[str, TypeProto]:
    """Outputs of one of onnxruntime's operators; none where it is not among RULES or an input is unknown."""
    rule, first = RULES.get(node.op_type), types.get(node.input[0])
    if rule is None or first is None or not first.tensor_type.HasField("shape"):
        return {}
    return rule(node, types, opset)


def _like_input(node: NodeProto, types: Types, opset: int) -> dict[str, TypeProto]:
    """Every output that is there has the first input's shape."""
    return {name: types[node.input[0]] for name in node.output if name}


def _first_like_input(node: NodeProto, types: Types, opset: int) -> dict[str, TypeProto]:
    return {node.output[0]: types[node.input[0]]}


def _matmul(node: NodeProto, types: Types, opset: int) -> dict[str, TypeProto]:
    """That of ONNX's MatMul, float32."""
    floats = {}
    for name in node.input[:2]:
        if name not in types:
            return {}
        floats[name] = TypeProto()
        floats[name].CopyFrom(types[name])
        floats[name].tensor_type.elem_type = TensorProto.FLOAT
    return _standard(helper.make_node("MatMul", node.input[:2], node.output[:1]), floats, {}, opset)


def _nbits(node: NodeProto, types: Types, opset: int) -> dict[str, TypeProto]:
    """[.., K] → [.., N]"""
    return {node.output[0]: _with_columns(types[node.input[0]], _attribute(node, "N"))}


def _grouped_query(node: NodeProto, types: Types, opset: int) -> dict[str, TypeProto]:
    """The first output, [1, S, heads · D]; queries, keys and values may come as one input. The cache is an output."""
    query, heads = types[node.input[0]], _attribute(node, "num_heads")
    packed = not node.input[1]
    columns = query.tensor_type.shape.dim[-1].dim_value
    own = columns * heads // (heads + 2 * _attribute(node, "kv_num_heads")) if packed else columns
    return {node.output[0]: _with_columns(query, own)}


def _with_columns(kind: TypeProto, columns: int) -> TypeProto:
    changed = TypeProto()
    changed.CopyFrom(kind)
    changed.tensor_type.shape.dim[-1].Clear()
    changed.tensor_type.shape.dim[-1].dim_value = columns
    return changed


def _attribute(node: NodeProto, name: str) -> int:
    return int(next(attribute.i for attribute in node.attribute if attribute.name == name))


RULES: Mapping[str, Callable[[NodeProto, Types, int], dict[str, TypeProto]]] = {
    "GroupQueryAttention": _grouped_query,
    "MatMulIntegerToFloat": _matmul,
    "MatMulNBits": _nbits,
    "MultiHeadAttention": _first_like_input,
    "QuickGelu": _like_input,
    "RotaryEmbedding": _like_input,
    "SkipSimplifiedLayerNormalization": _like_input,
}
