"""onnxruntime's operator profiles: read, cut into runs of the graph, and summed by operator and role.

A profile is a JSON list of events. Those of a node name it and its operator and say when it began and how long it took;
`model_run` events span the runs of the graph. Events that lack any of this, and lines that a killed process left
half-written, are passed over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stages.artifacts.errors import ModelError

Role = Literal["products", "attention", "rounding", "norms", "activations", "copies", "elementwise", "other"]

_NODE_SUFFIX = "_kernel_time"
_MICROSECONDS = 1e6
# Products of two activations, see `int8_attention`.
_SCORES = re.compile(r"/attn/(logits|values)/")
_TIME = r"_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(?:[_.]\d+)*$"

_PRODUCTS = {"MatMul", "FusedMatMul", "MatMulNBits", "MatMulInteger", "MatMulIntegerToFloat", "Gemm", "FusedGemm"}
_PRODUCTS |= {"DynamicQuantizeMatMul", "QLinearMatMul", "Conv", "FusedConv", "NhwcFusedConv", "MatMulScale"}
_ATTENTION = {"GroupQueryAttention", "MultiHeadAttention", "Attention", "RotaryEmbedding", "Softmax", "QAttention"}
# Magnitudes are only ever taken to scale what is rounded: norms and attention are operators of their own.
_ROUNDING = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Abs", "ReduceMax", "Max", "Div"}
_NORMS = {"RMSNormalization"}
_ACTIVATIONS = {"Gelu", "QuickGelu", "FastGelu", "BiasGelu", "Sigmoid", "Relu", "Tanh", "Erf", "Swish", "HardSwish"}
_COPIES = {"Transpose", "Reshape", "Split", "Concat", "Gather", "GatherBlockQuantized", "Slice", "Cast", "Pad", "Shape"}
_COPIES |= {"Expand", "Identity", "Squeeze", "Unsqueeze", "Tile", "Flatten", "ReorderInput", "ReorderOutput"}
_ELEMENTWISE = {"Add", "Sub", "Mul", "Min", "ReduceSum", "Neg", "Sqrt", "Pow", "Sum"}
# Where the addresses of rounding lie, see `dynamic_int8` and `block_parts`: before a product, in and behind its parts.
_ROUNDING_PLACE = re.compile(r"/(input|high|low|parts)/")


@dataclass(frozen=True)
class NodeRun:
    """One run of one node: seconds from the session's start, and how long it took."""

    name: str
    op: str
    start: float
    seconds: float


@dataclass(frozen=True)
class Profile:
    """What one session ran: its runs in order, each with the nodes it ran."""

    runs: tuple[tuple[NodeRun, ...], ...]


@dataclass(frozen=True)
class OperatorTime:
    """All runs of one operator in one role."""

    role: Role
    op: str
    calls: int
    seconds: float


def read_profiles(folder: Path) -> dict[str, Profile]:
    """The profiles that sessions left in a folder, by the name of the graph.

    Raises:
        ModelError: there are none.
    """
    found = {re.sub(_TIME, "", path.stem): read_profile(path) for path in sorted(folder.glob("*.json"))}
    if not found:
        raise ModelError(
            "onnxruntime wrote no profile.",
            "Without it nothing is known about single operators.",
            "Check with bluelm doctor that the onnxruntime installed here is the one bluelm asks for.",
        )
    return found


def read_profile(path: Path) -> Profile:
    """Reads one file; half-written lines and unknown events are passed over."""
    return profile_of(_events(path.read_text(encoding="utf-8", errors="replace")))


def profile_of(events: Iterable[Any]) -> Profile:
    """Cuts events into runs; nodes outside of every run (constants folded while loading) are left out."""
    nodes: list[NodeRun] = []
    spans: list[tuple[float, float]] = []
    for event in events:
        found = _span(event)
        if found is None:
            continue
        start, seconds = found
        name, arguments = str(event.get("name", "")), event.get("args")
        if name == "model_run":
            spans.append((start, start + seconds))
        elif name.endswith(_NODE_SUFFIX) and isinstance(arguments, dict) and arguments.get("op_name"):
            nodes.append(NodeRun(name.removesuffix(_NODE_SUFFIX), str(arguments["op_name"]), start, seconds))
    nodes.sort(key=lambda node: node.start)
    return Profile(tuple(tuple(n for n in nodes if begin <= n.start <= end) for begin, end in sorted(spans)))


def sum_operators(runs: Iterable[Sequence[NodeRun]]) -> list[OperatorTime]:
    """Time by role and operator, longest first."""
    runs = list(runs)
    places = {_place(node.name) for nodes in runs for node in nodes if role_of(node) == "products"}
    calls: dict[tuple[Role, str], int] = {}
    seconds: dict[tuple[Role, str], float] = {}
    for nodes in runs:
        for node in nodes:
            key = role_of(node, places), node.op
            calls[key] = calls.get(key, 0) + 1
            seconds[key] = seconds.get(key, 0.0) + node.seconds
    times = [OperatorTime(*key, calls[key], seconds[key]) for key in calls]
    return sorted(times, key=lambda time: (-time.seconds, time.role, time.op))


def role_of(node: NodeRun, product_places: Iterable[str] = ()) -> Role:
    """What a node is for.

    Args:
        node: one run of it.
        product_places: addresses of products; what lies there beside the product scales it, which belongs to rounding.
    """
    if node.op in _PRODUCTS and not _SCORES.search(node.name):
        return "products"
    if node.op in _ATTENTION or node.op in _PRODUCTS:
        return "attention"
    if node.op in _ROUNDING or _ROUNDING_PLACE.search(node.name):
        return "rounding"
    if node.op in _NORMS or node.op.endswith("LayerNormalization"):
        return "norms"
    if node.op in _ACTIVATIONS:
        return "activations"
    if node.op in _COPIES or node.op.startswith("Memcpy"):
        return "copies"
    if node.op in _ELEMENTWISE:
        return "rounding" if _place(node.name) in set(product_places) else "elementwise"
    return "other"


def _place(name: str) -> str:
    """The address of a product's or its neighbour's node: without the operator, and without the part it computes."""
    parts = name.split("/")[:-1]
    while parts and parts[-1] in ("high", "low", "parts"):
        parts.pop()
    return "/".join(parts)


def _span(event: Any) -> tuple[float, float] | None:
    """Start and duration in seconds; None where the event has none."""
    if not isinstance(event, dict):
        return None
    start, duration = event.get("ts"), event.get("dur")
    if not isinstance(start, int | float) or not isinstance(duration, int | float) or duration < 0:
        return None
    return start / _MICROSECONDS, duration / _MICROSECONDS


def _events(text: str) -> Iterator[Any]:
    try:
        events = json.loads(text)
        yield from events if isinstance(events, list) else ()
        return
    except ValueError:
        pass
    for line in text.splitlines():
        try:
            yield json.loads(line.strip().rstrip(",").lstrip("["))
        except ValueError:
            continue
