"""How fast rows are answered, what it has cost, and how long it will take: one line while it runs."""

from __future__ import annotations

import time
from collections import deque

from stages.artifacts.events import Progress
from stages.workshop.corpus.revision.asking import Tally
from stages.workshop.corpus.revision.budget import Cost, Prices

_WINDOW = 60.0


class Pace:
    """Watches a tally; rates are those of the last minute."""

    def __init__(self, total: int, prices: Prices | None) -> None:
        self._total, self._prices = total, prices
        self._seen: deque[tuple[float, int]] = deque()

    def event(self, tally: Tally, spent: Cost, now: float | None = None) -> Progress:
        """The line to show now (seconds of a monotonic clock)."""
        now = time.monotonic() if now is None else now
        self._seen.append((now, tally.rows))
        while now - self._seen[0][0] > _WINDOW:
            self._seen.popleft()
        start, rows = self._seen[0]
        rate = (tally.rows - rows) / (now - start) if now > start else 0.0
        parts = ["asking", f"{rate:.1f} rows/s"]
        money = spent.money(self._prices)
        parts.append(f"{spent.tokens:,} tokens" if money is None else f"{money:.4g} spent")
        if tally.failed:
            parts.append(f"{tally.failed:,} failed")
        if rate > 0:
            parts.append(f"{_duration((self._total - tally.rows) / rate)} left")
        return Progress(" · ".join(parts), tally.rows, self._total, "rows")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
