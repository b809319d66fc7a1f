"""The exact twin of an exported graph: float32 arithmetic over the very weights that lie in its data file.

It is emitted again from the same weights, so it shares the code that is to be checked; its initializers are those of
the exported graph, so it shares the bytes too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from stages.device.contract import names
from stages.workshop.graph.decoder import DecoderEmitter, DecoderOptions
from stages.workshop.graph.emitter import GraphEmitter
from stages.workshop.graph.graphs import GraphOptions, model_shape
from stages.workshop.graph.rotary import rotary_tables
from stages.workshop.graph.vision import VisionEmitter
from stages.workshop.graph.weight_source import WeightSource, with_activations

if TYPE_CHECKING:
    from stages.workshop.model.configuration import BlueLMVConfig

PREFIX = "exact."


@dataclass(frozen=True)
class ExactTwins:
    """Writes exact twins beside the graphs of a folder, for as long as they are needed.

    Attributes:
        weights: what the graphs were written from.
        config: the model's configuration.
        options: what they were written with.
    """

    weights: WeightSource
    config: BlueLMVConfig
    options: GraphOptions

    @contextmanager
    def beside(self, path: Path) -> Iterator[Path | None]:
        """The twin of a graph, removed afterwards; None where the graph's arithmetic is exact as it is."""
        if path.name not in (names.VISION_FILE, names.DECODER_FILE):
            yield None
            return
        original = onnx.load(path, load_external_data=False)
        twin = path.with_name(PREFIX + path.name)
        try:
            self._write(path, original)
            exact = onnx.load(twin, load_external_data=False)
            yield None if list(exact.graph.node) == list(original.graph.node) else twin
        finally:
            twin.unlink(missing_ok=True)
            twin.with_name(f"{twin.name}.data").unlink(missing_ok=True)

    def _write(self, path: Path, original: ModelProto) -> None:
        shape = model_shape(self.config, self.options.max_context)
        weights = with_activations(self.weights, self.options.activations)
        if path.name == names.VISION_FILE:
            with _TwinEmitter(path, original, "/vision") as emitter:
                for _ in VisionEmitter(emitter, weights, shape.vision, exact=True).emit(self.options.batch or "tiles"):
                    pass
                emitter.save()
            return
        rotary = rotary_tables(self.config.text_config, self.options.max_context)
        options = DecoderOptions(rotary, self.options.kv_scales, exact=True)
        with _TwinEmitter(path, original, "/model") as emitter:
            for _ in DecoderEmitter(emitter, weights, shape.decoder, options).emit():
                pass
            emitter.save()


class _TwinEmitter(GraphEmitter):
    """Points to the weights of another graph in the same folder, by name."""

    def __init__(self, path: Path, original: ModelProto, root: str) -> None:
        super().__init__(path.parent, PREFIX + path.name, root)
        self._originals = {tensor.name: tensor for tensor in original.graph.initializer}

    def weight(self, name: str, array: NDArray[Any]) -> str:
        if name in self._originals:
            self._initializers[name] = self._originals[name]
            return name
        return super().weight(name, array)
