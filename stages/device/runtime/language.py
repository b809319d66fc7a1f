"""The language side of an exported model: embedding rows and decoder, loaded together."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from stages.device.contract.device_config import DeviceConfig
from stages.device.contract.names import DECODER_FILE
from stages.device.runtime.cache import KVCache
from stages.device.runtime.context import Context
from stages.device.runtime.contexts import Contexts
from stages.device.runtime.decoder import DEFAULT_CHUNK, Decoder
from stages.device.runtime.embedder import Embedder
from stages.device.runtime.prefill import load_prefill
from stages.device.runtime.session_cache import SessionCache
from stages.device.runtime.sessions import Graph

# The paper's KV capacity (Table 5); the cache grows beyond it when a conversation does.
DEFAULT_CAPACITY = 2048


@dataclass(frozen=True)
class LanguageModel:
    """A ready decoder and how long loading took."""

    contexts: Contexts
    load_s: float

    @property
    def context(self) -> Context:
        """The context that was used last; the only one, unless more are allowed."""
        return self.contexts.latest


def load_language(
    folder: Path,
    config: DeviceConfig,
    *,
    threads: int | None = None,
    capacity: int = DEFAULT_CAPACITY,
    chunk: int = DEFAULT_CHUNK,
    cache: SessionCache | None = None,
) -> LanguageModel:
    """Opens the embedding table and loads the decoder.

    Args:
        folder: the exported model.
        config: its `device.json`.
        threads: None takes every core.
        capacity: positions of KV cache to allocate at first.
        chunk: positions per prefill run.
        cache: where prepacked weights are kept; None for nowhere.

    Raises:
        ModelError: a file is missing, damaged, or not the one `device.json` describes.
    """
    started = time.perf_counter()
    spec = config.decoder
    embedder = Embedder(folder, config.embedding, spec.hidden_size)
    compact = load_prefill(folder, spec, threads)
    # Single steps and short prompts: rows of scores are small, and faster than tiles.
    graph = Graph(folder / DECODER_FILE, threads, cache, flash=compact is None)
    decoder = Decoder(graph, spec, KVCache(spec, capacity), compact)
    graph.drop_pages()
    return LanguageModel(Contexts(Context(decoder, embedder, chunk)), time.perf_counter() - started)
