"""SIGTERM is how schedulers take a machine back: it stops training as Ctrl-C does, with a state of the current step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from stages.workshop.training.machine import Machine


class TerminatedError(KeyboardInterrupt):
    """The process was asked to end."""


class InterruptedByOthers(KeyboardInterrupt):
    """Another process of the same training was asked to stop, so all stopped after the same step."""


@contextmanager
def terminable(machine: Machine) -> Iterator[None]:
    """Within, SIGTERM interrupts once; what comes after it changes nothing, until the state is written.

    With several processes the same goes for SIGINT: Ctrl-C reaches every process, and torchrun passes it on once more.
    Only the main thread can take signals; elsewhere (a server, a notebook's worker) nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if not asked:
            asked = True
            raise TerminatedError

    numbers = [signal.SIGTERM] + ([signal.SIGINT] if machine.processes > 1 else [])
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
