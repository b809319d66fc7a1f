"""Calibrates a model and writes its static graphs with all that lies beside them."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.artifacts.errors import raise_all
from stages.artifacts.events import Progress
from stages.device.contract import names
from stages.device.contract.device_config import DevicePlan
from stages.device.contract.kv_scales import KvScales
from stages.device.contract.npu_config import NpuConfig
from stages.device.prompt.encoder import load_prompt_encoder
from stages.workshop.graph.checkpoint_settings import read_model_config
from stages.workshop.graph.checkpoint_weights import EMBEDDING
from stages.workshop.graph.embedding import emit_embedding
from stages.workshop.graph.emitter import GraphEmitter
from stages.workshop.graph.rotary import rotary_tables
from stages.workshop.npu import calibration, files, graphs
from stages.workshop.npu.calibration import OpenGraph, Prompt
from stages.workshop.npu.checker import refused
from stages.workshop.npu.graphs import Calibrated, NpuModel


@dataclass(frozen=True)
class CalibrationSource:
    """What calibrates: prompts and their number; the folder of the weights, and the scales it has for the cache; what
    opens a graph in onnxruntime.
    """

    checkpoint: Path
    prompts: Iterable[Prompt]
    count: int
    kv_scales: KvScales | None
    open_graph: OpenGraph


def write_model(
    model: NpuModel, device: DevicePlan, source: CalibrationSource, folder: Path
) -> Generator[Progress, None, NpuConfig]:
    """Writes the graphs, `npu.json`, tables, tokenizer and script into a folder.

    Raises:
        ModelError: the checker refuses a node.
        DataError: there is no prompt.
    """
    decoder, spec = model.shape.decoder, device.prompt
    text_config = read_model_config(source.checkpoint).text_config
    rotary = files.whole_rotary(rotary_tables(text_config, model.capacity))
    table = model.weights.linear(EMBEDDING, decoder.vocab, decoder.hidden, bias=False)
    calibrated = yield from _calibrated(model, source, folder, table.dequantized(), rotary, spec.image_token_id)
    written = yield from graphs.write_quantized(model, calibrated, folder)
    raise_all([bad for graph in written.values() if (bad := refused(folder / graph.file)) is not None])
    files.write_files(folder, source.checkpoint, rotary)
    with GraphEmitter(folder, names.EMBEDDING_FILE, "/model") as emitter:
        embedding = emit_embedding(emitter, table)
        emitter.save()
    prompts = load_prompt_encoder(folder, spec.image_token, {"bos_token": spec.bos_token or ""})
    config = NpuConfig(
        name=device.name,
        tiles=model.tiles,
        chunk=model.chunk,
        capacity=model.capacity,
        graphs=written,
        vision=device.vision,
        tiling=device.tiling,
        decoder=device.decoder,
        prompt=spec,
        embedding=embedding,
        ask=files.ask_spec(prompts),
    )
    config.write(folder)
    return config


def _calibrated(
    model: NpuModel,
    source: CalibrationSource,
    folder: Path,
    embeddings: Any,
    rotary: Any,
    image_token: int,
) -> Generator[Progress, None, Calibrated]:
    """Runs the prompts through the observing graphs, which are gone afterwards."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".calibrate-") as scratch:
        watched = yield from graphs.write_observers(model, Path(scratch))
        opened = calibration.open_observers(Path(scratch), source.open_graph)
        observer = calibration.Observer(model, watched, opened, embeddings, rotary, image_token)
        for done in observer.read(source.prompts):
            yield Progress("calibrate", done, source.count, "prompts")
    return observer.calibrated(_one_a_layer(source.kv_scales))


def _one_a_layer(scales: KvScales | None) -> KvScales | None:
    """The folder's scales of the cache where a layer has one; a static input has one scale, not one a channel."""
    if scales is None or any(isinstance(entry, tuple) for entry in (*scales.keys, *scales.values)):
        return None
    return scales
