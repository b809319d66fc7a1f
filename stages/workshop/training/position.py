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
        """Goes to a position, before the first batch is read."""


def write_position(folder: Path, rank: int, state: Mapping[str, Any]) -> None:
    """Writes a process' position into a state."""
    (folder / _file(rank)).write_text(json.dumps(state), encoding="utf-8")


def read_position(folder: Path, rank: int) -> dict[str, Any]:
    """A process' position in a state.

    Raises:
        UsageError: the state was written by fewer processes.
    """
    path = folder / _file(rank)
    if not path.is_file():
        raise UsageError(
            f"{folder} holds no position of process {rank}.",
            "It was written by fewer processes, and each goes on where it stopped in the data.",
            "Start as many processes as before, or begin anew with --force and an empty --out.",
        )
    state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return state


def _file(rank: int) -> str:
    return f"data-{rank}.json"
