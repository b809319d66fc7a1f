"""What a running stage tells the outside: logic yields events, the terminal prints them.

A stage is a generator of events whose last one is `Finished` with the stage's result. Nothing below `bluelm_cli`
prints, so a stage runs the same in a notebook, a server or a test.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

Result = TypeVar("Result")


@dataclass(frozen=True)
class Progress:
    """Work done so far: `done` of `total` units under a label. `total` is None while it is not known."""

    label: str
    done: int
    total: int | None
    unit: str = ""


@dataclass(frozen=True)
class Notice:
    """One line worth telling: plain information or a warning."""

    text: str
    level: Literal["info", "warning"] = "info"


@dataclass(frozen=True)
class Finished(Generic[Result]):
    """The last event of every stage: what it made."""

    result: Result


Event = Progress | Notice | Finished[Result]
Events = Iterator[Event[Result]]


def result_of(events: Iterable[Event[Result]]) -> Result:
    """Runs a stage to its end and returns its result, dropping progress and notices.

    Raises:
        RuntimeError: the stage ended without `Finished` (a bug in the stage).
    """
    for event in events:
        if isinstance(event, Finished):
            return event.result
    raise RuntimeError("the stage ended without a Finished event")
