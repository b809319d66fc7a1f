"""The decoder: chunked prefill and token-by-token decoding over one KV cache (Sec. 3.4, Fig. 8: t128/t1).

A long prompt is read layer by layer where the export allows it (see `prefill`); short ones, and the last position of
every prompt, go through decoder.onnx, so that an answer's first token is computed as all others are.

Shapes: T new positions, P positions already in the cache, H model width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.device.contract.device_config import DecoderSpec
from stages.device.contract.names import (
    ATTENTION_MASK,
    INPUTS_EMBEDS,
    LOGITS,
    past_key,
    past_value,
    present_key,
    present_value,
)
from stages.device.runtime.cache import KVCache, overflow
from stages.device.runtime.memory import trim_heap
from stages.device.runtime.prefill import CompactPrefill
from stages.device.runtime.sessions import BINDING, Graph, Port, buffer_of, check_finite

# The paper's is 128. On a CPU 256 reads INT16 prompts 5 % faster and INT8 ones alike (recipes/RESULTS.md).
DEFAULT_CHUNK = 256
_KV_TYPES = {"float32": "tensor(float)", "int8": "tensor(int8)"}


class Decoder:
    """`decoder.onnx` with its cache.

    Args:
        graph: the decoder graph.
        spec: its shape.
        cache: where keys and values are kept.
        compact: reads long prompts; None where decoder.onnx reads everything.

    Raises:
        ModelError: the graph is not the one `spec` describes.
    """

    def __init__(self, graph: Graph, spec: DecoderSpec, cache: KVCache, compact: CompactPrefill | None = None) -> None:
        graph.check(*_ports(spec))
        self.graph, self.spec, self.cache, self.compact = graph, spec, cache, compact
        self.length = 0
        self._logits = np.zeros((1, 1, spec.vocab_size), np.float32)
        self._ones = np.ones((1, 0), np.int64)
        self._binding: Any = None

    def prefill(self, embeds: NDArray[np.float32], chunk: int = DEFAULT_CHUNK) -> NDArray[np.float32]:
        """Reads T positions in chunks and gives the logits [V] after the last one.

        Args:
            embeds: [T, H], at least one position.
            chunk: positions per run of a graph.

        Raises:
            UsageError: the positions do not fit the model's context.
            ModelError: the logits are not finite.
        """
        if not len(embeds) or chunk < 1:
            raise ValueError(f"prefill needs positions and a chunk of at least 1, got {len(embeds)} and {chunk}")
        self.reserve(self.length + len(embeds))
        self.cache.expect(self.length + len(embeds))
        if self.compact is not None and len(embeds) > self.compact.shortest:
            self.compact.read(embeds[:-1], self.cache, self.length, chunk)
            self.length += len(embeds) - 1
            embeds = embeds[-1:]
            trim_heap()  # before the decoder's own weights come into memory
        for start in range(0, len(embeds), chunk):
            self._run(embeds[start : start + chunk])
        logits = self._logits[0, 0]  # [V]
        check_finite(logits, self.graph.path)
        return logits.copy()

    def step(self, embed: NDArray[np.float32]) -> NDArray[np.float32]:
        """Reads one position [1, H] and gives the logits [V] after it; raises as `prefill` does."""
        return self.prefill(embed, chunk=1)

    def truncate(self, length: int) -> None:
        """Forgets all positions from `length` on; what comes before stays as it is."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot keep {length} of {self.length} positions")
        self.length = length

    def reserve(self, length: int) -> None:
        """Makes room for `length` positions in all.

        Raises:
            UsageError: the model's context is smaller.
        """
        if length > self.spec.max_context:
            raise overflow(length, self.spec.max_context)
        if length > self.cache.capacity:
            self._binding = None  # first: an interrupt must not leave it with the memory of a buffer that is gone
            self.cache.reserve(length, keep=self.length)

    def _run(self, embeds: NDArray[np.float32]) -> None:
        """One run over [T, H]; the length moves only after it, so an interrupt between leaves the cache valid."""
        total = self.length + len(embeds)
        if self._binding is None:
            self._bind()
        values = np.ascontiguousarray(embeds[None], dtype=np.float32)  # [1, T, H]
        with self.graph.explained(BINDING):
            self._binding.bind_input(INPUTS_EMBEDS, *buffer_of(values))
            self._binding.bind_input(ATTENTION_MASK, *buffer_of(self._ones[:, :total]))  # [1, P + T]
        self.graph.run_bound(self._binding)
        self.length = total

    def _bind(self) -> None:
        """Binds what stays the same from run to run: the cache, made here where there is none yet, and the logits."""
        self._ones = np.ones((1, self.cache.capacity), np.int64)
        with self.graph.explained(BINDING):
            binding = self.graph.session.io_binding()
            self.cache.bind(binding)
            binding.bind_output(LOGITS, *buffer_of(self._logits))
        self._binding = binding


def _ports(spec: DecoderSpec) -> tuple[dict[str, Port], dict[str, Port]]:
    """Inputs and outputs that the decoder graph must have."""
    cache = Port(_KV_TYPES[spec.kv_dtype], (1, spec.num_key_value_heads, None, spec.head_dim))
    inputs = {
        INPUTS_EMBEDS: Port("tensor(float)", (1, None, spec.hidden_size)),
        ATTENTION_MASK: Port("tensor(int64)", (1, None)),
    }
    outputs = {LOGITS: Port("tensor(float)", (1, 1, spec.vocab_size))}
    for layer in range(spec.num_layers):
        inputs |= {past_key(layer): cache, past_value(layer): cache}
        outputs |= {present_key(layer): cache, present_value(layer): cache}
    return inputs, outputs
