"""The graphs of a model, written one after the other from any source of weights.

An example folder to run against, from nothing (random weights, no checkpoint):

    from stages.workshop.graph.random_model import write_random_model
    for _ in write_random_model("tiny", folder, layers=2):
        pass
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stages.artifacts.errors import BluelmError, UsageError, raise_all
from stages.artifacts.events import Progress
from stages.device.contract import names
from stages.device.contract.device_config import EmbeddingSpec
from stages.device.contract.kv_scales import KvScales
from stages.workshop.graph.decoder import DecoderEmitter, DecoderOptions
from stages.workshop.graph.decoder_shape import DecoderShape, decoder_shape
from stages.workshop.graph.embedding import emit_embedding
from stages.workshop.graph.emitter import Dim, GraphEmitter
from stages.workshop.graph.patch_embed import Normalization, emit_patch_embed
from stages.workshop.graph.prefill import write_prefill
from stages.workshop.graph.rotary import rotary_tables
from stages.workshop.graph.text_graph import write_text_graph
from stages.workshop.graph.vision import VisionEmitter
from stages.workshop.graph.vision_shape import VisionShape, vision_shape
from stages.workshop.graph.weight_source import WeightSource, with_activations
from stages.workshop.quant.activation_policy import ActivationChoice

if TYPE_CHECKING:
    from stages.workshop.model.configuration import BlueLMVConfig

EMBEDDING = "language_model.model.embed_tokens"


@dataclass(frozen=True)
class GraphOptions:
    """How the graphs are written.

    Attributes:
        max_context: positions of the rotary tables, so the largest KV capacity.
        kv_scales: static scales of an INT8 KV cache; None for a float32 cache.
        activations: what the inputs of quantized weights are rounded to: as the weights' source says, or one precision
            for all.
        batch: tiles per call of the vision graphs; None for any number.
        half_embedding: a float embedding table is stored in float16.
    """

    max_context: int = 4096
    kv_scales: KvScales | None = None
    activations: ActivationChoice = "policy"
    batch: int | None = None
    half_embedding: bool = False


@dataclass(frozen=True)
class ModelShape:
    """Everything the graphs need to know about a model."""

    vision: VisionShape
    decoder: DecoderShape

    @property
    def parameters(self) -> int:
        """Weights that the graphs compute with; a tied head counts once."""
        return self.vision.parameters + self.decoder.parameters


def model_shape(config: BlueLMVConfig, max_context: int) -> ModelShape:
    """Reads the configuration.

    Raises:
        BluelmError: whatever the graphs cannot express, all of it together.
    """
    problems: list[BluelmError] = []
    shapes: list[VisionShape | DecoderShape] = []
    for read in (lambda: vision_shape(config), lambda: decoder_shape(config.text_config)):
        try:
            shapes.append(read())
        except BluelmError as error:
            problems.extend(error.problems)
    positions = int(config.text_config.max_position_embeddings)
    if not 1 <= max_context <= positions:
        problems.append(
            UsageError(
                f"The longest context is to be {max_context}; the language model was made for {positions} positions.",
                "Beyond them it answers nonsense." if max_context > 0 else "Not even one token would fit.",
                f"Choose --max-context between 1 and {positions}.",
            )
        )
    raise_all(problems)
    vision, decoder = shapes
    assert isinstance(vision, VisionShape)
    assert isinstance(decoder, DecoderShape)
    return ModelShape(vision, decoder)


def write_graphs(
    weights: WeightSource, config: BlueLMVConfig, out: Path, options: GraphOptions, pictures: Normalization
) -> Generator[Progress, None, EmbeddingSpec]:
    """Writes patch_embed, vision, embedding and decoder.onnx with their weights, what compact prefill needs, text.onnx.

    Memory stays near the largest weight. The same weights and options give the same bytes.

    Args:
        weights: where they come from.
        config: the model's configuration.
        out: the folder, which must exist.
        options: context, cache, batch, forms.
        pictures: how the tower's pictures are normalized.

    Yields:
        Progress, one unit per layer or small graph.

    Returns:
        Where the rows of the embedding table lie.

    Raises:
        ModelError: the model has a part that the graphs cannot express, or a weight is missing.
    """
    shape = model_shape(config, options.max_context)
    weights = with_activations(weights, options.activations)
    tiles: Dim = options.batch or "tiles"
    total = shape.vision.layers + shape.decoder.layers + 2
    with GraphEmitter(out, names.PATCH_EMBED_FILE, "/vision/embeddings") as emitter:
        emit_patch_embed(emitter, weights, shape.vision, tiles, pictures)
        emitter.save()
    yield Progress("writing graphs", 1, total, "part")
    with GraphEmitter(out, names.VISION_FILE, "/vision") as emitter:
        for layer in VisionEmitter(emitter, weights, shape.vision).emit(tiles):
            yield Progress("writing graphs", 1 + layer, total, "part")
        emitter.save()
    rotary = rotary_tables(config.text_config, options.max_context)
    decoder = DecoderOptions(rotary, options.kv_scales)
    with GraphEmitter(out, names.DECODER_FILE, "/model") as emitter:
        nodes = DecoderEmitter(emitter, weights, shape.decoder, decoder)
        for layer in nodes.emit():
            yield Progress("writing graphs", 1 + shape.vision.layers + layer, total, "part")
        emitter.save()
    write_prefill(out, shape.decoder, rotary, nodes.activations)
    shared = list(emitter.refs.values())
    with GraphEmitter(out, names.EMBEDDING_FILE, "/model", shared) as emitter:
        table = weights.linear(EMBEDDING, shape.decoder.vocab, shape.decoder.hidden, bias=False)
        embedding = emit_embedding(emitter, table, half=options.half_embedding)
        emitter.save()
    write_text_graph(out)
    yield Progress("writing graphs", total, total, "part")
    return embedding
