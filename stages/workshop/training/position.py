"""Where a stream of data stands, so that a resumed run reads on where it stopped instead of reading everything again.

A map-style set needs none of this: its order is a pure function of the seed (see order.py), and the batches behind the
state are skipped by their indices alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class DataPosition(Protocol):
    """What the trainer asks of a stream; one object in each process, and one file of each process in a state.

    Loaders read ahead, so the position is that of the batches that were trained on, not of those that were read:
    `advance` is told of each of them (what it must know can ride in the batch, as a plain Python value).
    """

    def advance(self, batch: Mapping[str, Any]) -> None:
        """A batch was trained on."""

    def state_dict(self) -> dict[str, Any]:
        """The position after the last batch told, as plain JSON."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to a position, before the first batch is read."""


def position_file(rank: int) -> str:
    """Name of a process' position within a state."""
    return f"data-{rank}.json"


def write_position(folder: Path, rank: int, state: Mapping[str, Any]) -> None:
    """Writes a process' position into a state."""
    (folder / position_file(rank)).write_text(json.dumps(state), encoding="utf-8")


def read_position(folder: Path, rank: int) -> dict[str, Any] | None:
    """A process' position in a state, or None where the state holds none of it."""
    path = folder / position_file(rank)
    if not path.is_file():
        return None
    state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return state
