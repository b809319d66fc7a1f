"""Ranges of every value, from real prompts through the observing graphs.

Axes: n tiles of a prompt, T tiles of a call, L tokens of a prompt, S of a chunk, C capacity, H width, D head size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.errors import DataError
from stages.device.contract import int8_kv, names
from stages.device.contract.kv_scales import KvScales
from stages.device.contract.npu_config import GraphName
from stages.device.contract.static_activations import Encoding, StoredType, encoding_of, symmetric, unround_static
from stages.workshop.graph.linear import Floats
from stages.workshop.npu.decoder import COS, HIDDEN, MASK, SIN
from stages.workshop.npu.graphs import Calibrated, NpuModel, file_of
from stages.workshop.npu.values import HIGHS, LOWS
from stages.workshop.npu.vision import BYTES

Arrays = dict[str, NDArray[Any]]
OpenGraph = Callable[[Path], Callable[[Mapping[str, Any]], Arrays]]
# 16 bits have room: what is somewhat larger than anything seen is not clipped.
MARGIN = 1.2
# Scores that must not be looked at, before their range is known.
HIDDEN_SCORE = -1e4
# Positions at the end of each prompt that are run through the head.
HEAD_POSITIONS = 16


@dataclass(frozen=True)
class Prompt:
    """What a model reads: ids [L] with slots expanded, and its tiles uint8 [n, 3, S, S], or None."""

    ids: list[int]
    tiles: NDArray[np.uint8] | None


@dataclass
class Observer:
    """Runs prompts through the observing graphs in a folder and remembers the extremes of every value.

    Attributes:
        model: what the graphs were written from.
        watched: what each watches, from `write_observers`.
        run: the graphs by name.
        embeddings: the table [V, H].
        rotary: cos and sin [2, positions, D], as the graphs take them.
        image_token: id of an image slot.
    """

    model: NpuModel
    watched: Mapping[GraphName, Mapping[str, StoredType]]
    run: Mapping[GraphName, Callable[[Mapping[str, Any]], Arrays]]
    embeddings: Floats
    rotary: Floats
    image_token: int
    _lows: dict[tuple[GraphName, str], float] = field(default_factory=dict)
    _highs: dict[tuple[GraphName, str], float] = field(default_factory=dict)

    def read(self, prompts: Iterable[Prompt]) -> Iterator[int]:
        """Reads prompts, yielding how many were read.

        Raises:
            DataError: there is none.
        """
        count = 0
        for count, prompt in enumerate(prompts, start=1):
            embeds = self.embeddings[prompt.ids]
            if prompt.tiles is not None:
                embeds[np.asarray(prompt.ids) == self.image_token] = self._features(prompt.tiles)
            self._decode(embeds)
            yield count
        if not count:
            raise DataError(
                "There is no prompt to calibrate with.",
                "The ranges of an NPU's integers come from what real prompts put into them.",
                "Give a corpus with training rows: --data CORPUS",
            )

    def calibrated(self, kv_scales: KvScales | None) -> Calibrated:
        """Encodings of what was seen; the cache's scales are those given, or else from what was seen too."""
        encodings: dict[GraphName, dict[str, Encoding]] = {
            graph: {
                key: _encoding(self._lows[graph, key], self._highs[graph, key], dtype) for key, dtype in keys.items()
            }
            for graph, keys in self.watched.items()
        }
        return Calibrated(encodings, kv_scales or self._kv_scales())

    def _kv_scales(self) -> KvScales:
        layers = range(self.model.shape.decoder.layers)

        def scales(part: str) -> tuple[float, ...]:
            keys = [("prefill", f"layers.{layer}/attn/{part}/new") for layer in layers]
            return tuple(int8_kv.scale_for(max(-self._lows[key], self._highs[key])) for key in keys)  # type: ignore[index]

        return KvScales.of(scales("key"), scales("value"))

    def _features(self, tiles: NDArray[np.uint8]) -> Floats:
        """[n, 3, S, S] → [n · tokens, H]."""
        rows, count = [], self.model.tiles
        for start in range(0, len(tiles), count):
            part = tiles[start : start + count]
            # The last tile again, not zeros: a blank tile would widen ranges for nothing.
            pixels = unround_static(part[np.minimum(np.arange(count), len(part) - 1)], BYTES)
            patches = self._seen("patch_embed", {names.PIXEL_VALUES: pixels})[names.PATCH_EMBEDS]
            features = self._seen("vision", {names.PATCH_EMBEDS: patches})[names.IMAGE_FEATURES]
            rows.append(features[: len(tiles) - start])
        return np.concatenate(rows).reshape(-1, self.model.shape.decoder.hidden)

    def _decode(self, embeds: Floats) -> None:
        """Reads [L, H] in chunks, with a float cache."""
        decoder, size, capacity = self.model.shape.decoder, self.model.chunk, self.model.capacity
        past: Arrays = {
            name(layer): np.zeros((1, decoder.kv_heads, capacity, decoder.head_dim), np.float32)
            for layer in range(decoder.layers)
            for name in (names.past_key, names.past_value)
        }
        for start in range(0, min(len(embeds), capacity), size):
            part = embeds[start : min(start + size, capacity)]
            padded = np.zeros((1, size, decoder.hidden), np.float32)
            padded[0, : len(part)] = part
            mask = np.zeros((1, 1, size, capacity + size), np.float32)
            mask[..., start:capacity] = HIDDEN_SCORE
            mask[0, 0, :, capacity:] = np.triu(np.full((size, size), HIDDEN_SCORE, np.float32), 1)
            places = np.minimum(np.arange(start, start + size), self.rotary.shape[1] - 1)
            cos, sin = self.rotary[:, None, None, places]
            feeds = {names.INPUTS_EMBEDS: padded, MASK: mask, COS: cos, SIN: sin, **past}
            found = self._seen("prefill", feeds)
            for layer in range(decoder.layers):
                for name, new in (
                    (names.past_key(layer), names.present_key(layer)),
                    (names.past_value(layer), names.present_value(layer)),
                ):
                    past[name][:, :, start : start + len(part)] = found[new][:, :, : len(part)]
            if start + size >= len(embeds):
                for position in range(max(0, len(part) - HEAD_POSITIONS), len(part)):
                    self._seen("head", {HIDDEN: found[HIDDEN][:, position : position + 1]})

    def _seen(self, graph: GraphName, feeds: Mapping[str, Any]) -> Arrays:
        found = self.run[graph](feeds)
        for key, low, high in zip(self.watched[graph], found[LOWS].tolist(), found[HIGHS].tolist(), strict=True):
            place = graph, key
            self._lows[place] = min(low, self._lows.get(place, low))
            self._highs[place] = max(high, self._highs.get(place, high))
        return found


def open_observers(folder: Path, open_graph: OpenGraph) -> dict[GraphName, Callable[[Mapping[str, Any]], Arrays]]:
    """The observing graphs of a folder, opened."""
    from stages.workshop.npu.graphs import OBSERVED

    return {graph: open_graph(folder / file_of(graph)) for graph in OBSERVED}


def _encoding(low: float, high: float, dtype: StoredType) -> Encoding:
    if dtype == "uint8":
        # No margin: 8 bits have none to give.
        return symmetric(max(-low, high), "uint8")
    return encoding_of(low * MARGIN, high * MARGIN)
