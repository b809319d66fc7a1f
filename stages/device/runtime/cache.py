"""The KV cache: one buffer per layer for keys and one for values, which the decoder reads and extends in place.

Shapes: K kv heads, N capacity in positions, D head size. Every buffer is [1, K, N, D], float32 or int8.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from stages.artifacts.errors import UsageError
from stages.device.contract.device_config import DecoderSpec
from stages.device.contract.names import past_key, past_value, present_key, present_value

# Capacity grows in steps of this many positions.
_STEP = 256
_DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype(np.float32), "int8": np.dtype(np.int8)}


class KVCache:
    """Preallocated keys and values. Past and present are the same memory, so nothing is copied per token.

    The buffers start zeroed and lazily committed: memory is taken as positions are written. A cache that becomes too
    small grows (one copy), at most to the model's `max_context`.

    Args:
        spec: shape and type of the cache.
        capacity: positions to allocate at first.
    """

    def __init__(self, spec: DecoderSpec, capacity: int = 2048) -> None:
        self.spec = spec
        self._buffers: dict[str, NDArray[Any]] = {}
        self._values: dict[str, ort.OrtValue] = {}
        self._allocate(min(max(capacity, 1), spec.max_context))

    @property
    def capacity(self) -> int:
        """Positions that fit without growing."""
        return self._capacity

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return sum(buffer.nbytes for buffer in self._buffers.values())

    def reserve(self, length: int, keep: int) -> bool:
        """Makes room for `length` positions, keeping the first `keep`; True where the buffers moved.

        Raises:
            UsageError: more positions than the model can hold.
        """
        if length > self.spec.max_context:
            raise overflow(length, self.spec.max_context)
        if length <= self._capacity:
            return False
        old = self._buffers
        rounded = -(-max(length, 2 * self._capacity) // _STEP) * _STEP
        self._allocate(min(rounded, self.spec.max_context))
        for name, buffer in old.items():
            self._buffers[name][:, :, :keep] = buffer[:, :, :keep]
        return True

    def bind(self, binding: Any) -> None:
        """Binds every buffer to an IO binding: as past (input) and as present (output)."""
        for layer in range(self.spec.num_layers):
            for past, present in ((past_key, present_key), (past_value, present_value)):
                value = self._values[past(layer)]
                binding.bind_ortvalue_input(past(layer), value)
                binding.bind_ortvalue_output(present(layer), value)

    def keys(self, layer: int) -> NDArray[Any]:
        """Keys of one layer, [1, K, N, D], as stored."""
        return self._buffers[past_key(layer)]

    def values(self, layer: int) -> NDArray[Any]:
        """Values of one layer, [1, K, N, D], as stored."""
        return self._buffers[past_value(layer)]

    def _allocate(self, capacity: int) -> None:
        spec = self.spec
        shape = (1, spec.num_key_value_heads, capacity, spec.head_dim)
        names = [name(layer) for layer in range(spec.num_layers) for name in (past_key, past_value)]
        self._capacity = capacity
        self._buffers = {name: np.zeros(shape, _DTYPES[spec.kv_dtype]) for name in names}
        # On the CPU an OrtValue made of an array shares its memory.
        self._values = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in self._buffers.items()}


def overflow(length: int, limit: int) -> UsageError:
    """The error of a conversation that no longer fits the model."""
    return UsageError(
        f"The conversation takes {length} tokens; this model holds {limit}.",
        "What does not fit cannot be read, and cutting it silently would change the question.",
        "Ask with fewer or smaller pictures or a shorter text, or start again with /reset.",
    )
