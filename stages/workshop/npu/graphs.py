"""The static graphs of a model, written twice: observing, for calibration, and quantized with what that saw."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stages.artifacts.events import Progress
from stages.device.contract import names
from stages.device.contract.kv_scales import KvScales
from stages.device.contract.npu_config import GraphName, GraphSpec
from stages.device.contract.static_activations import Encoding, StoredType
from stages.workshop.graph.emitter import GraphEmitter
from stages.workshop.graph.graphs import ModelShape
from stages.workshop.graph.patch_embed import Normalization
from stages.workshop.graph.weight_source import WeightSource
from stages.workshop.npu.decoder import HIDDEN, StaticDecoder, StaticSizes, emit_head, mask_encoding
from stages.workshop.npu.values import Encodings, NpuGraph
from stages.workshop.npu.vision import StaticVision, emit_patch_embed

if TYPE_CHECKING:
    from stages.device.contract.tensor_ref import TensorRef

ROOTS: dict[GraphName, str] = {
    "patch_embed": "/vision/embeddings",
    "vision": "/vision",
    "prefill": "/model",
    "decode": "/model",
    "head": "/model",
}
# The decoder is observed in chunks; both of its graphs get the ranges that were seen there.
OBSERVED: tuple[GraphName, ...] = ("patch_embed", "vision", "prefill", "head")


@dataclass(frozen=True)
class NpuModel:
    """What is exported: weights, shape, how pictures are normalized, tiles of a vision call, tokens of a chunk,
    positions of the cache.
    """

    weights: WeightSource
    shape: ModelShape
    pictures: Normalization
    tiles: int
    chunk: int
    capacity: int


@dataclass(frozen=True)
class Calibrated:
    """What calibration settled: the encoding of every value of every graph, and the scales of the cache."""

    encodings: Mapping[GraphName, Encodings]
    kv_scales: KvScales

    @property
    def mask(self) -> Encoding:
        """Wide enough to hide any score of any layer."""
        scores = [seen for key, seen in self.encodings["prefill"].items() if key.endswith("/scores/Mul")]
        return mask_encoding(max(seen.highest - seen.lowest for seen in scores))


def file_of(graph: GraphName) -> str:
    """The QDQ file of a graph."""
    return f"{graph}.onnx"


def write_observers(model: NpuModel, folder: Path) -> Generator[Progress, None, dict[GraphName, dict[str, StoredType]]]:
    """Writes the observing forms; returns what each of them watches."""
    watched = {}
    for done, graph in enumerate(OBSERVED, start=1):
        with GraphEmitter(folder, file_of(graph), ROOTS[graph]) as emitter:
            nodes = NpuGraph(emitter, None)
            _emit(graph, nodes, model, None, None)
            nodes.save()
        watched[graph] = nodes.watched
        yield Progress("writing graphs to calibrate", done, len(OBSERVED), "graphs")
    return watched


def write_quantized(
    model: NpuModel, calibrated: Calibrated, folder: Path
) -> Generator[Progress, None, dict[GraphName, GraphSpec]]:
    """Writes the QDQ graphs; prefill and decode read the same weights. Returns what `npu.json` says of them."""
    written: dict[GraphName, GraphSpec] = {}
    shared: list[TensorRef] = []
    for done, graph in enumerate(ROOTS, start=1):
        encodings = calibrated.encodings["prefill" if graph == "decode" else graph]
        handed = {"vision": ("patch_embed", names.PATCH_EMBEDS), "head": ("prefill", HIDDEN)}.get(graph)
        given = written[handed[0]].outputs[handed[1]].encoding if handed else None  # type: ignore[index]
        with GraphEmitter(folder, file_of(graph), ROOTS[graph], shared if graph == "decode" else ()) as emitter:
            nodes = NpuGraph(emitter, encodings)
            _emit(graph, nodes, model, calibrated, given)
            nodes.save()
        if graph == "prefill":
            shared = list(emitter.refs.values())
        written[graph] = GraphSpec(file=file_of(graph), inputs=nodes.inputs, outputs=nodes.outputs)
        yield Progress("writing graphs", done, len(ROOTS), "graphs")
    return written


def _emit(
    graph: GraphName, nodes: NpuGraph, model: NpuModel, calibrated: Calibrated | None, given: Encoding | None
) -> None:
    """One graph; `given` is the encoding of an input that another graph gives."""
    shape = model.shape
    match graph:
        case "patch_embed":
            emit_patch_embed(nodes, model.weights, shape.vision, model.tiles, model.pictures)
        case "vision":
            for _ in StaticVision(nodes, model.weights, shape.vision, model.tiles, given).emit():
                pass
        case "head":
            emit_head(nodes, model.weights, shape.decoder, given)
        case _:
            sizes = StaticSizes(model.chunk if graph == "prefill" else 1, model.capacity)
            mask = mask_encoding(0) if calibrated is None else calibrated.mask
            scales = None if calibrated is None else calibrated.kv_scales
            for _ in StaticDecoder(nodes, model.weights, shape.decoder, sizes, mask, scales).emit():
                pass
