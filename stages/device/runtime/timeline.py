"""What ran when: the record that shows whether patch embedding really overlapped the ViT blocks (Fig. 5)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Literal

Part = Literal["patch", "blocks"]


@dataclass(frozen=True)
class Span:
    """One part of one batch: start and end in seconds since the timeline began."""

    part: Part
    batch: int
    tiles: int
    start: float
    end: float

    def as_dict(self) -> dict[str, object]:
        """For JSON, times rounded to the microsecond."""
        return {
            "part": self.part,
            "batch": self.batch,
            "tiles": self.tiles,
            "start": round(self.start, 6),
            "end": round(self.end, 6),
        }


class Timeline:
    """Spans as they end, from any thread."""

    def __init__(self) -> None:
        self._origin = time.perf_counter()
        self._lock = Lock()
        self._spans: list[Span] = []

    @contextmanager
    def span(self, part: Part, batch: int, tiles: int) -> Iterator[None]:
        """Records the time its block takes."""
        start = time.perf_counter()
        yield
        end = time.perf_counter()
        with self._lock:
            self._spans.append(Span(part, batch, tiles, start - self._origin, end - self._origin))

    @property
    def spans(self) -> tuple[Span, ...]:
        """All spans so far, by start."""
        with self._lock:
            return tuple(sorted(self._spans, key=lambda span: (span.start, span.end)))


def hidden_seconds(spans: Sequence[Span]) -> float:
    """Seconds of patch embedding that ran while blocks of another batch did: what the pipeline saves at most."""
    blocks = [span for span in spans if span.part == "blocks"]
    return sum(
        max(0.0, min(patch.end, block.end) - max(patch.start, block.start))
        for patch in spans
        if patch.part == "patch"
        for block in blocks
        if block.batch != patch.batch
    )
