"""The image encoder: tiles in batches, patch embedding of the next batch while the ViT blocks of this one run.

    patch thread   | embed 0 | embed 1 |         | embed 2 |
    main thread              | blocks 0         | blocks 1         | blocks 2 |          (Sec. 3.2, Fig. 5)

Cutting a picture into tiles happens in the patch thread too. Both modes run the same graphs over the same batches, so
pipelined and sequential results are identical.

Shapes: B tiles of a batch, S tile side, P patches, C vision width, t tokens per tile, H LLM width.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.errors import UsageError
from stages.device.contract.device_config import DeviceConfig
from stages.device.contract.feature_files import FeatureKey
from stages.device.contract.names import (
    IMAGE_FEATURES,
    PATCH_EMBED_FILE,
    PATCH_EMBEDS,
    PIXEL_VALUES,
    VISION_FILE,
    VIT_FEATURES,
)
from stages.device.runtime.batches import Batch, batches
from stages.device.runtime.memory import trim_heap
from stages.device.runtime.pixels import graph_pixels
from stages.device.runtime.session_cache import SessionCache
from stages.device.runtime.sessions import Graph, Port, check_finite
from stages.device.runtime.timeline import Timeline

# Fastest on a CPU, and least memory: what a tile needs stays in the cache (recipes/RESULTS.md). The paper's phone: 4.
DEFAULT_BATCH = 1
Tiles = NDArray[np.uint8]
Floats = NDArray[np.float32]
# onnxruntime's names of what the patch embedding may take.
_PIXELS = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}


@dataclass(frozen=True)
class EncodedTiles:
    """One picture's features, per tile, and the batches it was in.

    `values` is [tiles, t, H], or [tiles, P, C] before the connector.
    """

    values: Floats
    batches: tuple[int, ...]


@dataclass(frozen=True)
class _Graphs:
    patch_embed: Graph
    vision: Graph


class ImageEncoder:
    """The two vision graphs, loaded when needed and freed when told.

    Args:
        folder: the exported model.
        config: its `device.json`.
        threads: threads for the ViT blocks; None takes every core.
        batch: tiles per batch, unless the graphs were exported for a fixed number.
        pipeline: overlap patch embedding with the blocks.
        cache: where prepacked weights are kept; None for nowhere.
    """

    def __init__(
        self,
        folder: Path,
        config: DeviceConfig,
        threads: int | None = None,
        batch: int = DEFAULT_BATCH,
        pipeline: bool = True,
        cache: SessionCache | None = None,
    ) -> None:
        if batch < 1:
            raise UsageError(f"--batch is {batch}.", "A batch holds at least one tile.", "Give 1 or more.")
        self.folder, self.config, self.threads, self.pipeline = folder, config, threads, pipeline
        self.batch = config.vision.max_batch or batch
        self._cache = cache
        self.load_s = 0.0
        self._graphs: _Graphs | None = None
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    @property
    def loaded(self) -> bool:
        """Whether the vision graphs are in memory."""
        return self._graphs is not None

    def load(self) -> None:
        """Loads the vision graphs, if they are not there.

        Raises:
            ModelError: a graph is missing, damaged, or not the one `device.json` describes.
        """
        self._ready()

    def release(self) -> None:
        """Frees the vision graphs; the next use loads them again."""
        with self._lock:
            self._graphs = None
        trim_heap()

    def stop(self) -> None:
        """Ends what is being encoded after its batch, for good: the program is about to end."""
        self._stopped.set()

    def encode(
        self,
        pictures: Iterable[Tiles],
        output: FeatureKey = "image_features",
        timeline: Timeline | None = None,
        on_tiles: Callable[[int], None] | None = None,
    ) -> Iterator[EncodedTiles]:
        """Encodes pictures in their order.

        Args:
            pictures: tiles of one picture each, uint8 [tiles, 3, S, S]; drawn in the patch thread, as needed.
            output: after the connector (`image_features`) or before it (`vit_features`).
            timeline: where to record what ran when.
            on_tiles: called with the number of tiles of each batch that is done.

        Raises:
            ModelError: a graph fails or computes NaN; whatever `pictures` raises passes through.
            CancelledError: `stop` was called.
        """
        graphs = self._ready(output)
        timeline = timeline if timeline is not None else Timeline()
        rows: list[Floats] = []
        numbers: list[int] = []
        for batch, values in self._run(graphs, batches(pictures, self.batch), output, timeline):
            rows.append(values)
            numbers.append(batch.number)
            if on_tiles is not None:
                on_tiles(len(values))
            if batch.last:
                whole = np.concatenate(rows)
                check_finite(whole, graphs.vision.path)
                yield EncodedTiles(whole, tuple(numbers))
                rows, numbers = [], []

    def _run(
        self, graphs: _Graphs, upcoming: Iterator[Batch], output: FeatureKey, timeline: Timeline
    ) -> Iterator[tuple[Batch, Floats]]:
        spec = self.config.vision

        def prepare() -> tuple[Batch, Floats] | None:
            """Draws and embeds the next batch: [B, P, C]."""
            batch = next(upcoming, None)
            if batch is None:
                return None
            with timeline.span("patch", batch.number, len(batch.tiles)):
                pixels = graph_pixels(batch.tiles, spec, spec.max_batch)  # [B, 3, S, S]
                return batch, graphs.patch_embed.run({PIXEL_VALUES: pixels}, [PATCH_EMBEDS])[0]

        for batch, embeds in _ahead(prepare) if self.pipeline else iter(prepare, None):
            if self._stopped.is_set():
                raise CancelledError
            with timeline.span("blocks", batch.number, len(batch.tiles)):
                values = graphs.vision.run({PATCH_EMBEDS: embeds}, [output])[0]
            yield batch, values[: len(batch.tiles)]

    def _ready(self, output: FeatureKey = "image_features") -> _Graphs:
        with self._lock:
            if self._graphs is None:
                # The patch thread is one thread: the cores belong to the blocks.
                patch_embed = Graph(self.folder / PATCH_EMBED_FILE, threads=1, arena=True)
                vision = Graph(self.folder / VISION_FILE, self.threads, self._cache, arena=True)
                self._graphs = _checked(_Graphs(patch_embed, vision), self.config)
                self.load_s = patch_embed.load_s + vision.load_s
            graphs = self._graphs
        if output not in graphs.vision.outputs:
            raise UsageError(
                f"{graphs.vision.path} has no output {output}.",
                "It was exported without the features before the connector.",
                "Export the model again: bluelm export CHECKPOINT --out FOLDER --force",
            )
        return graphs


def _ahead(prepare: Callable[[], Any]) -> Iterator[Any]:
    """Calls `prepare` in a thread, always one call ahead of the consumer, until it gives None."""
    with ThreadPoolExecutor(1, thread_name_prefix="patch-embed") as executor:
        upcoming = executor.submit(prepare)
        while (item := upcoming.result()) is not None:
            upcoming = executor.submit(prepare)
            yield item


def _checked(graphs: _Graphs, config: DeviceConfig) -> _Graphs:
    """The graphs, held against `device.json`."""
    vision, side = config.vision, config.vision.tile_size
    batch = vision.max_batch
    patches = Port("tensor(float)", (batch, vision.patches_per_tile, vision.vision_width))
    graphs.patch_embed.check(
        {PIXEL_VALUES: Port(_PIXELS[vision.pixels], (batch, 3, side, side))},
        {PATCH_EMBEDS: patches},
    )
    features = Port("tensor(float)", (batch, vision.tokens_per_tile, config.decoder.hidden_size))
    outputs = {IMAGE_FEATURES: features}
    if VIT_FEATURES in graphs.vision.outputs:
        outputs[VIT_FEATURES] = patches
    graphs.vision.check({PATCH_EMBEDS: patches}, outputs)
    return graphs
