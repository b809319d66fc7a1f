"""Runs the static graphs of an export for an NPU: on the CPU, or wherever `run` takes them.

    tiles ─ patch_embed ─ vision ─┐
    ids ─ embedding rows ─────────┴─ prefill, chunk by chunk ─ decode, token by token ─ head ─ ids

Shapes: T tiles of a call, S tokens of a call, C capacity, L tokens of a prompt, H width, D head size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.errors import UsageError
from stages.device.contract import names
from stages.device.contract.npu_config import ROTARY_FILE, GraphName, NpuConfig, read_npu_config
from stages.device.contract.static_activations import round_static, unround_static
from stages.device.runtime.embedder import Embedder
from stages.device.runtime.pixels import graph_pixels

Arrays = dict[str, NDArray[Any]]
Floats = NDArray[np.float32]
# A graph by name, and its inputs by name → its outputs by name.
RunGraph = Callable[[GraphName, Mapping[str, NDArray[Any]]], Arrays]
VISIBLE = 65535


class StaticModel:
    """A model as static graphs.

    Args:
        folder: the export.
        run: runs one of its graphs; `cpu_graphs` makes one.
    """

    def __init__(self, folder: Path, run: RunGraph) -> None:
        self.config: NpuConfig = read_npu_config(folder)
        self._run = run
        self._embed = Embedder(folder, self.config.embedding, self.config.decoder.hidden_size)
        self._rotary = np.load(folder / ROTARY_FILE, mmap_mode="r")  # [2, positions, D]
        self._past: Arrays = {}
        self.length = 0

    def encode(self, tiles: NDArray[np.uint8]) -> Floats:
        """Image tokens of tiles [n, 3, S, S]: [n · tokens, H]."""
        config, rows = self.config, []
        spec = config.vision
        for start in range(0, len(tiles), config.tiles):
            part = tiles[start : start + config.tiles]
            feeds: Mapping[str, NDArray[Any]] = {names.PIXEL_VALUES: graph_pixels(part, spec, config.tiles)}
            if spec.pixels == "float32":
                feeds = self._stored("patch_embed", feeds)
            patches = self._run("patch_embed", feeds)
            features = self._run("vision", {names.PATCH_EMBEDS: patches[names.PATCH_EMBEDS]})[names.IMAGE_FEATURES]
            rows.append(
                unround_static(features, config.graphs["vision"].outputs[names.IMAGE_FEATURES].encoding)[: len(part)]
            )
        return np.concatenate(rows).reshape(-1, config.decoder.hidden_size)

    def answer(self, ids: Sequence[int], features: Floats | None, max_tokens: int) -> Iterator[int]:
        """Reads a prompt and answers greedily.

        Args:
            ids: L token ids, image slots expanded.
            features: rows of the image slots, in order.
            max_tokens: longest answer.

        Yields:
            Token ids; the one that ends the answer is not among them.

        Raises:
            UsageError: prompt and answer do not fit the cache.
        """
        capacity = self.config.capacity
        if len(ids) + max_tokens > capacity:
            raise UsageError(
                f"{len(ids)} tokens of prompt and {max_tokens} of answer do not fit {capacity} positions.",
                "The cache of a static graph cannot grow.",
                "Ask for a shorter answer, or export again with a larger --max-context.",
            )
        self._reset()
        embeds, chunk = self._embedded(ids, features), self.config.chunk
        hidden: NDArray[Any] | None = None
        for start in range(0, len(ids), chunk):
            part = embeds[start : start + chunk]
            # The last position alone needs the head.
            hidden = self._step("prefill", part)[:, len(part) - 1 : len(part)]
        assert hidden is not None
        prompt = self.config.prompt
        for _ in range(max_tokens):
            logits = self._run("head", {"hidden": np.ascontiguousarray(hidden)})[names.LOGITS][0, 0].astype(np.int64)
            logits[prompt.image_token_id] = -1
            token = int(logits.argmax())
            if token in prompt.eos_token_ids:
                return
            yield token
            hidden = self._step("decode", self._embed([token]))

    def _embedded(self, ids: Sequence[int], features: Floats | None) -> Floats:
        embeds = self._embed(list(ids))
        slots = np.flatnonzero(np.asarray(ids) == self.config.prompt.image_token_id)
        if len(slots):
            assert features is not None
            embeds[slots] = features
        return embeds

    def _step(self, graph: GraphName, embeds: Floats) -> NDArray[Any]:
        """Reads n ≤ S tokens into the cache; the hidden states [1, S, H]."""
        spec, count, start = self.config.graphs[graph], len(embeds), self.length
        size = spec.inputs[names.INPUTS_EMBEDS].shape[1]
        padded = np.zeros((1, size, embeds.shape[1]), np.float32)
        padded[0, :count] = embeds
        feeds = self._stored(graph, {names.INPUTS_EMBEDS: padded})
        feeds["mask"] = self._mask(size)
        places = np.minimum(np.arange(start, start + size), self._rotary.shape[1] - 1)
        feeds["cos"], feeds["sin"] = (np.ascontiguousarray(table[None, None, places]) for table in self._rotary)
        found = self._run(graph, {**feeds, **self._past})
        for layer in range(self.config.decoder.num_layers):
            for past, present in (
                (names.past_key(layer), names.present_key(layer)),
                (names.past_value(layer), names.present_value(layer)),
            ):
                self._past[past][:, :, start : start + count] = found[present][:, :, :count]
        self.length += count
        return found["hidden"]

    def _mask(self, size: int) -> NDArray[np.uint16]:
        """[1, 1, S, C+S]: what was read before, and of this call what is not later."""
        capacity = self.config.capacity
        mask = np.zeros((1, 1, size, capacity + size), np.uint16)
        mask[..., : self.length] = VISIBLE
        mask[0, 0, :, capacity:] = np.tri(size, dtype=np.uint16) * VISIBLE
        return mask

    def _stored(self, graph: GraphName, values: Mapping[str, Floats]) -> Arrays:
        ports = self.config.graphs[graph].inputs
        return {name: round_static(value, ports[name].encoding) for name, value in values.items()}

    def _reset(self) -> None:
        self.length = 0
        ports = self.config.graphs["decode"].inputs
        self._past = {
            name: np.full(port.shape, port.zero, port.dtype) for name, port in ports.items() if name.startswith("past_")
        }


def cpu_graphs(folder: Path, threads: int | None = None) -> RunGraph:
    """The graphs as they are written, on onnxruntime's CPU provider, each opened when first asked for.

    Without optimizations: those would turn weights into MatMulNBits, which rounds its inputs once more.
    """
    import onnxruntime as ort

    config = read_npu_config(folder)
    sessions: dict[str, Any] = {}

    def run(graph: GraphName, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        if graph not in sessions:
            options = ort.SessionOptions()
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.intra_op_num_threads = threads or 0
            path = str(folder / config.graphs[graph].file)
            sessions[graph] = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        outputs = list(config.graphs[graph].outputs)
        return dict(zip(outputs, sessions[graph].run(outputs, dict(feeds)), strict=True))

    return run
