"""Stopping work from outside: whoever runs a model may say, in its thread, when to stop.

    with interruptible(lambda: client_left):
        ...                                     # raises Interrupted before the next run of a graph

A batch of tiles, a chunk of a prompt in one layer and a decoding step are a run each, so nothing goes on for long.
What was read into the KV cache by then stays usable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_STOPPED: ContextVar[Callable[[], bool] | None] = ContextVar("stopped", default=None)


class Interrupted(Exception):  # noqa: N818 (no error: what was asked for)
    """The work in progress is no longer wanted."""


@contextmanager
def interruptible(stopped: Callable[[], bool]) -> Iterator[None]:
    """Graphs that this thread runs in this block stop with `Interrupted` once `stopped` says so."""
    before = _STOPPED.set(stopped)
    try:
        yield
    finally:
        _STOPPED.reset(before)


def check_interruption() -> None:
    """Raises Interrupted where the work in progress is no longer wanted."""
    stopped = _STOPPED.get()
    if stopped is not None and stopped():
        raise Interrupted
