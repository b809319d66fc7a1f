"""Which products a graph computes, in which form, and over which weight: read from the graph itself.

A product is one Linear. Its form is that of `matmul_forms`: float, nbits (with float activations), nbits8 and nbits16
(MatMulNBits with INT8 and INT16 ones), a8 and a16 (INT8 weights per channel), with the weight's bits and block where it
has some; or qdq (a weight behind DequantizeLinear). Axes: N outputs, K inputs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stages.device.contract.names import LOGITS
from stages.measure.graph_file import GraphFile, GraphNode

# Where a product's weight stands among its inputs.
WEIGHT_INPUT = {"MatMulNBits": 1, "MatMul": 1, "MatMulIntegerToFloat": 1, "MatMulInteger": 1, "Gemm": 1, "Conv": 1}
_TURNS = ("DequantizeLinear", "Cast")
# MatMulNBits rounds its inputs to INT8 inside from this accuracy level on.
_INT8_INSIDE = 4
# What rounding the inputs of products in two parts is named, see `block_parts`.
_PARTS = "/parts/"


@dataclass(frozen=True)
class Product:
    """One Linear.

    Attributes:
        name: of its node, the first where it is computed in two parts.
        form: as above, such as `a16` or `nbits8 int4/128`.
        weight: name of what it multiplies with, an initializer or (in a prefill layer) an input of the graph.
        macs: multiplications per row, N·K; None where the weight is an input, whose shape the graph doesn't tell.
        once: whether only the last position of a call goes through it.
    """

    name: str
    form: str
    weight: str
    macs: int | None
    once: bool


def products_of(graph: GraphFile) -> list[Product]:
    """The Linears of a graph in order. Products of two activations, as in attention, are none."""
    once = _last_position_only(graph)
    inner = {value for node in graph.nodes for value in node.outputs}
    # What a weight turns into before its product, by the name of the outcome.
    turned = {node.outputs[0]: node for node in graph.nodes if node.op in _TURNS and node.inputs[0] in graph.weights}
    by_weight: dict[str, list[GraphNode]] = {}
    for node in graph.nodes:
        place = WEIGHT_INPUT.get(node.op)
        if place is None:
            continue
        weight = node.inputs[place]
        if weight in turned:
            weight = turned[weight].inputs[0]
        if weight not in inner:
            by_weight.setdefault(weight, []).append(node)
    found = []
    for weight, nodes in by_weight.items():
        first = nodes[0]
        behind = turned.get(first.inputs[WEIGHT_INPUT[first.op]])
        form = "qdq" if behind is not None and behind.op == "DequantizeLinear" else _form(nodes)
        found.append(Product(first.name, form, weight, _macs(graph, first, weight), any(id(n) in once for n in nodes)))
    return found


def describe_forms(graphs: Sequence[GraphFile]) -> str:
    """How many products of each form, most first: `56 nbits8 int4/128, 1 float`."""
    counts = Counter(product.form for graph in graphs for product in products_of(graph))
    return ", ".join(f"{count} {form}" for form, count in counts.most_common())


def _form(nodes: Sequence[GraphNode]) -> str:
    """The form of the products over one weight."""
    first = nodes[0]
    if first.op in ("MatMulIntegerToFloat", "MatMulInteger"):
        # The high part and the remainder are two products over one weight.
        return "a16" if len(nodes) > 1 else "a8"
    if first.op != "MatMulNBits":
        return "conv" if first.op == "Conv" else "float"
    bits, block = first.integers.get("bits", 4), first.integers.get("block_size", 0)
    if first.integers.get("accuracy_level", 0) < _INT8_INSIDE:
        name = "nbits"
    else:
        name = "nbits16" if _PARTS in first.inputs[0] else "nbits8"
    return f"{name} int{bits}/{block}"


def _macs(graph: GraphFile, node: GraphNode, weight: str) -> int | None:
    if node.op == "MatMulNBits":
        return node.integers["N"] * node.integers["K"]
    stored = graph.weights.get(weight)
    if stored is None:
        return None
    size = 1
    for dimension in stored.shape:
        size *= dimension
    return size


def _last_position_only(graph: GraphFile) -> set[int]:
    """Nodes (by id) that see only the last position: behind the Gather that takes it, or the head of the decoder."""
    single: set[str] = set()
    nodes: set[int] = set()
    for node in graph.nodes:
        picks = node.op == "Gather" and "last_position" in node.name
        if picks or LOGITS in node.outputs or single.intersection(node.inputs):
            single.update(filter(None, node.outputs))
            nodes.add(id(node))
    return nodes


def fully_read(graph: GraphFile) -> Iterator[str]:
    """Names of initializers that a run reads whole; of tables, such as embeddings and rotary ones, it picks rows."""
    tables = {
        name
        for node in graph.nodes
        if node.op in ("Gather", "GatherBlockQuantized", "GroupQueryAttention", "RotaryEmbedding")
        for name in node.inputs
    }
    used = {name for node in graph.nodes for name in node.inputs}
    yield from (name for name in graph.weights if name in used and name not in tables)
