"""Several conversations over one decoder: each keeps its own KV cache, so that who asks in turns need not be read anew.

Which cache a prompt continues is decided by what it shares with it. A cache of which more would be lost than kept stays
as it is while there is another place, or one that was used longer ago. The graphs and their weights are shared.
"""

from __future__ import annotations

from collections.abc import Sequence

from stages.device.runtime.cache import KVCache
from stages.device.runtime.context import Context, Key, common_prefix
from stages.device.runtime.decoder import Decoder


class Contexts:
    """Contexts of one decoder; used by one thread.

    Args:
        first: the context that is there from the start.
        most: how many there may be.
    """

    def __init__(self, first: Context, most: int = 1) -> None:
        self._contexts = [first]  # the longest unused first
        self.most = most

    def __len__(self) -> int:
        return len(self._contexts)

    @property
    def latest(self) -> Context:
        """The context that was used last."""
        return self._contexts[-1]

    def allow(self, most: int, nbytes: float) -> None:
        """Lets there be `most` contexts, as far as their full KV caches fit into `nbytes`; one is always there."""
        decoder = self.latest.decoder
        each = KVCache(decoder.spec, decoder.spec.max_context).nbytes
        self.most = max(1, min(most, int(nbytes // each)))

    def choose(self, keys: Sequence[Key]) -> Context:
        """The context to read a prompt in, a new one where that is allowed and better."""
        found = self._fitting(keys)
        if found is None and len(self) < self.most:
            found = _beside(self.latest)
        chosen = found or self._contexts[0]
        self._contexts = [context for context in self._contexts if context is not chosen] + [chosen]
        return chosen

    def _fitting(self, keys: Sequence[Key]) -> Context | None:
        """The context that shares most, where that is no less than would be lost of it."""
        shared = [common_prefix(context.keys, keys) for context in self._contexts]
        best = max(
            range(len(shared)), key=lambda index: (2 * shared[index] >= self._contexts[index].length, shared[index])
        )
        return self._contexts[best] if 2 * shared[best] >= self._contexts[best].length else None


def _beside(context: Context) -> Context:
    """An empty context over the same graphs."""
    decoder = context.decoder
    cache = KVCache(decoder.spec, decoder.cache.capacity)
    return Context(Decoder(decoder.graph, decoder.spec, cache, decoder.compact), context.embedder, context.chunk)
