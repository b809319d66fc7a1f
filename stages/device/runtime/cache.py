"""The KV cache: one buffer for the keys and values of all layers, which the decoder reads and extends in place.

Shapes: L layers, K kv heads, N capacity in positions, D head size. The buffer is [L, 2, 1, K, N, D], float32 or int8.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.errors import UsageError
from stages.device.contract.device_config import DecoderSpec
from stages.device.contract.names import past_key, past_value, present_key, present_value
from stages.device.runtime.sessions import buffer_of

# Capacity grows in steps of this many positions.
_STEP = 256
_DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype(np.float32), "int8": np.dtype(np.int8)}
_KEYS, _VALUES = 0, 1
# From this share of the capacity on, large pages commit little that is not written anyway.
_MOSTLY = 0.75


class KVCache:
    """Keys and values in memory of ours, bound by pointer: past and present are the same bytes, nothing is copied.

    The buffer is made on first use (until then the memory belongs to the vision graphs) and committed page by page as
    positions are written. A cache that becomes too small grows (one copy), at most to the model's `max_context`.

    Args:
        spec: shape and type of the cache.
        capacity: positions to allocate at first.
    """

    def __init__(self, spec: DecoderSpec, capacity: int = 2048) -> None:
        self.spec = spec
        self._capacity = min(max(capacity, 1), spec.max_context)
        self._buffer: NDArray[Any] | None = None
        self._memory: mmap.mmap | None = None
        self._large_pages = False

    @property
    def capacity(self) -> int:
        """Positions that fit without growing."""
        return self._capacity

    @property
    def nbytes(self) -> int:
        """Bytes of the buffer, now or once it is made."""
        return math.prod(self._shape) * _DTYPES[self.spec.kv_dtype].itemsize

    def reserve(self, length: int, keep: int) -> None:
        """Makes room for `length` positions, keeping the first `keep`; the buffer may move.

        Raises:
            UsageError: more positions than the model can hold.
        """
        if length > self.spec.max_context:
            raise overflow(length, self.spec.max_context)
        if length <= self._capacity:
            return
        old, before = self._buffer, self._capacity
        rounded = -(-max(length, 2 * self._capacity) // _STEP) * _STEP
        self._capacity = min(rounded, self.spec.max_context)
        if old is None:
            return
        try:
            new, memory = self._made()
            new[..., :keep, :] = old[..., :keep, :]
        except BaseException:  # also an interrupt: the old buffer is still the cache
            self._capacity = before
            raise
        self._buffer, self._memory, self._large_pages = new, memory, False

    def expect(self, length: int) -> None:
        """Says that `length` positions are about to be held: a buffer they mostly fill is asked for in large pages.

        Reading it is then a few percent faster. Where only little is held, a large page would commit memory for
        positions that may never come: positions of one head lie together, behind each other.
        """
        if self._large_pages or length < _MOSTLY * self._capacity or not hasattr(mmap, "MADV_HUGEPAGE"):
            return
        self._large_pages = True
        self._layer(0, _KEYS)
        if self._memory is not None:
            with contextlib.suppress(OSError):  # a kernel without large pages
                self._memory.madvise(mmap.MADV_HUGEPAGE)

    def bind(self, binding: Any) -> None:
        """Binds every layer to an IO binding: as past (input) and as present (output)."""
        for layer in range(self.spec.num_layers):
            for past, present, view in (
                (past_key, present_key, self.keys(layer)),
                (past_value, present_value, self.values(layer)),
            ):
                binding.bind_input(past(layer), *buffer_of(view))
                binding.bind_output(present(layer), *buffer_of(view))

    def keys(self, layer: int) -> NDArray[Any]:
        """Keys of one layer, [1, K, N, D], as stored: a view to read and write, until the cache grows."""
        return self._layer(layer, _KEYS)

    def values(self, layer: int) -> NDArray[Any]:
        """Values of one layer, [1, K, N, D], as stored: a view to read and write, until the cache grows."""
        return self._layer(layer, _VALUES)

    @property
    def _shape(self) -> tuple[int, ...]:
        spec = self.spec
        return spec.num_layers, 2, 1, spec.num_key_value_heads, self._capacity, spec.head_dim

    def _layer(self, layer: int, part: int) -> NDArray[Any]:
        if self._buffer is None:
            self._buffer, self._memory = self._made()
        view: NDArray[Any] = self._buffer[layer, part]
        return view

    def _made(self) -> tuple[NDArray[Any], mmap.mmap]:
        # Not np.zeros: it asks for huge pages, and then the first position of every head commits the whole buffer.
        private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
        memory = mmap.mmap(-1, self.nbytes, **private)
        return np.frombuffer(memory, _DTYPES[self.spec.kv_dtype]).reshape(self._shape), memory


class ContextLengthError(UsageError):
    """A conversation that no longer fits the model."""


def overflow(length: int, limit: int) -> ContextLengthError:
    """The error of a conversation that no longer fits the model."""
    return ContextLengthError(
        f"The conversation takes {length} tokens; this model holds {limit}.",
        "What does not fit cannot be read, and cutting it silently would change the question.",
        "Ask with fewer or smaller pictures or a shorter text, or start again with /reset.",
    )
