"""Work that only knows callbacks, as a stream of events: it runs in a thread, its events come out of a generator.

Ctrl-C (or closing the generator) asks the work to stop and waits until it has; a second Ctrl-C does not wait.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Generic, TypeVar

from stages.artifacts.events import Notice, Progress

Value = TypeVar("Value")
Told = Progress | Notice
Emit = Callable[[Told], None]
THREAD = "training"
_STOPPING = Notice("Stopping after this step; the same command will go on from there. Ctrl-C again stops at once.")


@dataclass
class _Outcome(Generic[Value]):
    values: list[Value] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)


def stream(work: Callable[[Emit, threading.Event], Value]) -> Generator[Told, None, Value]:
    """Runs `work(emit, stop)` in a thread and yields what it emits.

    Args:
        work: calls `emit` with events; ends early, in good order, once `stop` is set.

    Returns:
        What the work returned.

    Raises:
        KeyboardInterrupt: it was interrupted; the work has ended.
        BaseException: whatever the work raised.
    """
    queue: SimpleQueue[Told | None] = SimpleQueue()
    stop = threading.Event()
    outcome: _Outcome[Value] = _Outcome()

    def body() -> None:
        try:
            outcome.values.append(work(queue.put, stop))
        except BaseException as error:  # handed over to the thread that waits, and raised there
            outcome.errors.append(error)
        finally:
            queue.put(None)

    thread = threading.Thread(target=body, daemon=True, name=THREAD)
    thread.start()
    try:
        yield from _drain(queue)
    except KeyboardInterrupt:
        stop.set()
        yield _STOPPING
        yield from _drain(queue)
        thread.join()
        raise
    except GeneratorExit:
        stop.set()
        thread.join()
        raise
    thread.join()
    if outcome.errors:
        raise outcome.errors[0]
    return outcome.values[0]


def _drain(queue: SimpleQueue[Told | None]) -> Generator[Told, None, None]:
    while (event := queue.get()) is not None:
        yield event
