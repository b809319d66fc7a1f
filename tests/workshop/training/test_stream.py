"""Work in a thread as a stream of events."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from typing import Any

import pytest

from stages.artifacts.events import Notice, Progress
from stages.workshop.training.stream import stream


def drain(events: Generator[Any, None, Any]) -> tuple[list[Any], Any]:
    seen = []
    while True:
        try:
            seen.append(next(events))
        except StopIteration as end:
            return seen, end.value


def test_events_come_in_order_and_the_value_last() -> None:
    def work(emit: Callable[[Any], None], stop: threading.Event) -> str:
        for step in range(3):
            emit(Progress("x", step, 3))
        return "done"

    assert drain(stream(work)) == ([Progress("x", step, 3) for step in range(3)], "done")


def test_an_error_is_raised_where_the_events_are_read() -> None:
    def work(emit: Callable[[Any], None], stop: threading.Event) -> None:
        emit(Notice("before"))
        raise LookupError("inside")

    events = stream(work)
    assert next(events) == Notice("before")
    with pytest.raises(LookupError, match="inside"):
        next(events)


def test_ctrl_c_waits_for_the_work_to_stop_and_is_raised_again() -> None:
    ended = threading.Event()

    def work(emit: Callable[[Any], None], stop: threading.Event) -> None:
        emit(Notice("first"))
        stop.wait(10)
        emit(Notice("saved"))
        ended.set()

    events = stream(work)
    assert next(events) == Notice("first")
    assert "go on from there" in events.throw(KeyboardInterrupt()).text
    assert next(events) == Notice("saved")
    with pytest.raises(KeyboardInterrupt):
        next(events)
    assert ended.is_set()


def test_closing_the_events_stops_the_work() -> None:
    ended = threading.Event()

    def work(emit: Callable[[Any], None], stop: threading.Event) -> None:
        emit(Notice("first"))
        assert stop.wait(10)
        ended.set()

    events = stream(work)
    next(events)
    events.close()
    assert ended.is_set()
