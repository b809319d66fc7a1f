"""Pictures of a conversation: encoded in the background as soon as they are named, each only once.

One worker encodes in the order of naming, while the user still types (Sec. 3.4). Features are kept by the digest of
the picture's bytes, in memory up to a bound; the model is the encoder's, so the same digest always means the same
features. When nothing is left to encode the vision graphs are freed, unless they are to be kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stages.device.imaging.geometry import Grid, Size
from stages.device.runtime.feature_memory import FeatureMemory
from stages.device.runtime.timeline import Span

# Features that stay in memory after the conversation let go of them: thirteen pictures of ten tiles at a width of 2560.
_KEPT_BYTES = 256_000_000
# Called with tiles encoded so far and tiles in all.
OnTiles = Callable[[int, int], None]


@dataclass(frozen=True)
class PictureFeatures:
    """An encoded picture.

    Attributes:
        path: where it came from.
        digest: sha256 of its bytes.
        size: pixels.
        grid: its tiling.
        tiles: local tiles and thumbnail.
        features: [tokens, H], what the decoder reads in its place.
        encode_s: seconds that encoding took when it was done; 0 for stored features.
        reused: the features were there already.
        spans: what ran when.
    """

    path: Path
    digest: str
    size: Size
    grid: Grid
    tiles: int
    features: NDArray[np.float32]
    encode_s: float
    reused: bool = False
    spans: tuple[Span, ...] = ()

    @property
    def tokens(self) -> int:
        """Image tokens."""
        return len(self.features)


class PictureEncoder(Protocol):
    """What an album needs: a picture's bytes, and its features."""

    def read(self, path: Path) -> bytes:
        """The picture's bytes; raises ImageError where it cannot be read."""

    def encode(self, path: Path, data: bytes, digest: str, on_tiles: OnTiles | None = None) -> PictureFeatures:
        """Encodes the picture that these bytes are."""

    def keep(self, made: PictureFeatures) -> None:
        """Stores what was encoded, for later; nobody waits for it."""


@dataclass
class AlbumCounts:
    """Where features came from: encoded, in memory, or stored on disk."""

    encoded: int = 0
    in_memory: int = 0
    stored: int = 0


class Album:
    """Encodes pictures in the background.

    Args:
        encoder: reads and encodes.
        when_idle: called in the worker when no picture waits any more.
        clock: what `encode_s` is measured with.

    Attributes:
        counts: where features came from so far.
    """

    def __init__(
        self, encoder: PictureEncoder, when_idle: Callable[[], None], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._encoder, self._when_idle, self._clock = encoder, when_idle, clock
        self.counts = AlbumCounts()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="album")
        self._lock = threading.Lock()
        self._waiting = 0
        self._known = FeatureMemory(_KEPT_BYTES)

    def run_first(self, task: Callable[[], None]) -> Future[None]:
        """Runs something in the worker before the pictures named later, such as loading the graphs."""
        return self._worker.submit(task)

    def add(self, path: Path, on_tiles: OnTiles | None = None) -> Future[PictureFeatures]:
        """Starts encoding a picture; the future raises ImageError or ModelError.

        Args:
            path: the picture.
            on_tiles: called in the worker as its tiles are done.
        """
        with self._lock:
            self._waiting += 1
        return self._worker.submit(self._take, path, on_tiles)

    def know(self, picture: PictureFeatures) -> Future[None]:
        """Remembers features that were made elsewhere."""
        return self._worker.submit(self._known.put, picture)

    def close(self) -> None:
        """Drops what waits and ends the worker; a picture being encoded is finished first."""
        self._worker.shutdown(wait=True, cancel_futures=True)

    def _take(self, path: Path, on_tiles: OnTiles | None) -> PictureFeatures:
        try:
            started = self._clock()
            data = self._encoder.read(path)
            digest = hashlib.sha256(data).hexdigest()
            known = self._known.get(digest)
            if known is not None:
                self.counts.in_memory += 1
                return replace(known, path=path, encode_s=0.0, reused=True)
            made = self._encoder.encode(path, data, digest, on_tiles)
            if made.reused:
                self.counts.stored += 1
            else:
                self.counts.encoded += 1
                made = replace(made, encode_s=self._clock() - started)
                with contextlib.suppress(RuntimeError):  # the album is being closed
                    self._worker.submit(self._encoder.keep, made)
            self._known.put(made)
            return made
        finally:
            self._done()

    def _done(self) -> None:
        with self._lock:
            self._waiting -= 1
            idle = self._waiting == 0
        if idle:
            self._when_idle()
