"""How much of the processor others took while something was timed.

A run that others disturbed says little about what was run, and least about what waits actively for its threads. This is
judged by processor time alone, never by how long the run took, so that leaving such runs out favours nobody.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

from stages.measure.machine import usable_cores

_IDLE = ("idle", "iowait", "guest", "guest_nice")


@dataclass
class Disturbance:
    """The share of all cores that others had during a `with watched()` block; 0 until it ends."""

    share: float = 0.0


@contextmanager
def watched(process: int | None = None) -> Iterator[Disturbance]:
    """Watches the processor while a block runs.

    Args:
        process: whose work the block waits for; this process if None. It must live until the block ends.
    """
    one, found = psutil.Process(process or os.getpid()), Disturbance()
    start, busy, own = time.perf_counter(), _busy_seconds(), _seconds_of(one)
    try:
        yield found
    finally:
        available = (time.perf_counter() - start) * (psutil.cpu_count() or usable_cores())
        others = (_busy_seconds() - busy) - (_seconds_of(one) - own)
        found.share = share_of(others, available)


def share_of(others: float, available: float) -> float:
    """Seconds that others had as a share of those there were, between 0 and 1: clocks of processes tick coarsely."""
    return min(1.0, max(0.0, others / available)) if available > 0 else 0.0


def _busy_seconds() -> float:
    """Seconds that all cores together have worked since the system started, for others beside this machine too."""
    times = psutil.cpu_times()._asdict()
    return sum(seconds for name, seconds in times.items() if name not in _IDLE)


def _seconds_of(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
