"""Where a stream of data stands, so that a resumed run reads on where it stopped instead of reading everything again.

The order of a set in memory (order.py) is one: a pure function of the seed and of the steps behind it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from stages.artifacts.errors import UsageError


class DataPosition(Protocol):
    """What the trainer asks of a stream; one object in each process, and one file of each process in a state.

    Loaders read ahead, so the position is that of the batches that were trained on, not of those that were read:
    `advance` is told of each of them (what it must know can ride in the batch, as a plain Python value).
    """

    def advance(self, batch: dict[str, Any]) -> None:
        """A batch was trained on; what is no input of the model is taken out of it."""

    def state_dict(self) -> dict[str, Any]:
        """The position after the last batch told, as plain JSON."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to a position, before the first batch is read.

        Raises:
            UsageError: another number of processes wrote it, and that matters.
        """


def write_position(folder: Path, rank: int, state: Mapping[str, Any]) -> None:
    """Writes a process' position into a state."""
    (folder / _file(rank)).write_text(json.dumps(state), encoding="utf-8")


def read_position(folder: Path, rank: int) -> dict[str, Any]:
    """A process' position in a state.

    A process that there was none of gets that of the first: `check_processes` is for orders that cannot go on from it.
    """
    path = folder / _file(rank)
    state: dict[str, Any] = json.loads((path if path.is_file() else folder / _file(0)).read_text(encoding="utf-8"))
    return state


def check_processes(state: Mapping[str, Any], processes: int) -> None:
    """For orders that depend on how many processes share them.

    Raises:
        UsageError: another number of processes wrote the position.
    """
    if state["processes"] != processes:
        raise UsageError(
            f"The run was stopped with {state['processes']} processes, and would go on with {processes}.",
            "Each goes on in its own share of the data: rows would be left out, others learned twice.",
            f"Start {state['processes']} as before, or begin anew with --force.",
        )


def _file(rank: int) -> str:
    return f"data-{rank}.json"
