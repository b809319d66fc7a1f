"""Pictures of a conversation: encoded in the background as soon as they are named, each only once.

One worker encodes in the order of naming, while the user still types (Sec. 3.4). Features are kept by the digest of
the picture's bytes; the model is the encoder's, so the same digest always means the same features. When nothing is
left to encode the vision graphs are freed, unless they are to be kept.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stages.device.imaging.geometry import Grid, Size
from stages.device.runtime.timeline import Span

# Pictures whose features stay in memory after the conversation let go of them.
_KEPT = 32


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

    def encode(self, path: Path, data: bytes, digest: str) -> PictureFeatures:
        """Encodes the picture that these bytes are."""


class Album:
    """Encodes pictures in the background.

    Args:
        encoder: reads and encodes.
        when_idle: called in the worker when no picture waits any more.
    """

    def __init__(self, encoder: PictureEncoder, when_idle: Callable[[], None]) -> None:
        self._encoder, self._when_idle = encoder, when_idle
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="album")
        self._lock = threading.Lock()
        self._waiting = 0
        self._known: OrderedDict[str, PictureFeatures] = OrderedDict()

    def run_first(self, task: Callable[[], None]) -> Future[None]:
        """Runs something in the worker before the pictures named later, such as loading the graphs."""
        return self._worker.submit(task)

    def add(self, path: Path) -> Future[PictureFeatures]:
        """Starts encoding a picture; the future raises ImageError or ModelError."""
        with self._lock:
            self._waiting += 1
        return self._worker.submit(self._take, path)

    def close(self) -> None:
        """Drops what waits and ends the worker; a picture being encoded is finished first."""
        self._worker.shutdown(wait=True, cancel_futures=True)

    def _take(self, path: Path) -> PictureFeatures:
        try:
            started = time.perf_counter()
            data = self._encoder.read(path)
            digest = hashlib.sha256(data).hexdigest()
            known = self._known.get(digest)
            if known is not None:
                self._known.move_to_end(digest)
                return replace(known, path=path, encode_s=0.0, reused=True)
            made = self._encoder.encode(path, data, digest)
            made = made if made.reused else replace(made, encode_s=time.perf_counter() - started)
            self._known[digest] = made
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
            return made
        finally:
            self._done()

    def _done(self) -> None:
        with self._lock:
            self._waiting -= 1
            idle = self._waiting == 0
        if idle:
            self._when_idle()
