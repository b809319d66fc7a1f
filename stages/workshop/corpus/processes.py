"""Processes that work on pictures: how many, how they start, and when they end."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

_WATCH_SECONDS = 0.5


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def process_pool(processes: int) -> ProcessPoolExecutor:
    """A pool whose processes leave Ctrl-C to the caller, and end with it however it ends."""
    # fork would copy whatever threads the caller runs; spawn starts clean.
    return ProcessPoolExecutor(processes, get_context("spawn"), initializer=_begin, initargs=(os.getpid(),))


def _begin(parent: int) -> None:
    """Leaves interrupts to the parent, and ends with it: a killed parent cannot tell its processes to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
