"""How a run went, step by step, gathered into the rows that people watch: `training.csv`.

A row stands for the steps since the one before it, as a point of the loss curve does; an evaluation between two of them
has a row of its own. A state holds the history, so a resumed run has one without a gap. The file holds times, so it
stays outside the artifact's digest; what must repeat is in `training.json` (see curve.py).
"""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stages.workshop.training.curve import LossCurve

HISTORY_FILE = "training.csv"
# Enough losses for a median that a handful of odd batches cannot move.
_REMEMBERED = 64
Row = dict[str, float | None]


@dataclass(frozen=True)
class Step:
    """What one optimizer step did, over all processes.

    Attributes:
        number: counted from 1.
        loss: mean over its learned tokens.
        grad_norm: before it was cut.
        rates: learning rate by peak learning rate, highest first.
        tokens: real ones, image tokens included.
        learned: tokens whose loss was taken.
        slots: tokens with padding.
        seconds: from the end of the step before it.
        eval_loss: loss on held-out data after it, where that was measured.
    """

    number: int
    loss: float
    grad_norm: float
    rates: Mapping[float, float]
    tokens: int
    learned: int
    slots: int
    seconds: float
    eval_loss: float | None = None


@dataclass
class Window:
    """Sums over the steps after the last row."""

    steps: int = 0
    grad_norm: float = 0.0
    tokens: int = 0
    learned: int = 0
    slots: int = 0
    seconds: float = 0.0

    def add(self, step: Step) -> None:
        """Takes a step in."""
        self.steps += 1
        self.grad_norm += step.grad_norm
        self.tokens += step.tokens
        self.learned += step.learned
        self.slots += step.slots
        self.seconds += step.seconds

    @property
    def padding(self) -> float:
        """Share of the computed tokens that were padding."""
        return 1 - self.tokens / self.slots if self.slots else 0.0

    def values(self) -> Row:
        """The columns that are means and rates over the window."""
        seconds = max(self.seconds, 1e-9)
        return {
            "grad_norm": self.grad_norm / self.steps,
            "tokens_per_s": self.tokens / seconds,
            "learned_tokens_per_s": self.learned / seconds,
            "padding": self.padding,
            "seconds": self.seconds,
        }


@dataclass
class History:
    """All rows so far, and what is needed for the next one.

    Attributes:
        curve: the loss curve, which decides where a row ends.
        rows: by column.
        window: the open row.
        losses: of the newest steps, oldest first.
    """

    curve: LossCurve
    rows: list[Row] = field(default_factory=list)
    window: Window = field(default_factory=Window)
    losses: list[float] = field(default_factory=list)

    def add(self, step: Step) -> Row | None:
        """Takes a step in; returns the row that it ends, or the one of its evaluation."""
        self.window.add(step)
        self.losses = [*self.losses[1 - _REMEMBERED :], step.loss]
        mean = self.curve.add(step.number, step.loss)
        return self._end_row(step, mean)

    def close(self, step: Step) -> Row | None:
        """Ends the open row after the last step of a run."""
        mean = self.curve.close(step.number)
        return None if mean is None else self._end_row(step, mean)

    @property
    def usual_loss(self) -> float | None:
        """Median loss of the newest steps; None before there are enough of them."""
        return statistics.median(self.losses) if len(self.losses) >= _REMEMBERED // 4 else None

    @property
    def eval_loss(self) -> float | None:
        """The newest loss on held-out data."""
        return next((row["eval_loss"] for row in reversed(self.rows) if row.get("eval_loss") is not None), None)

    def _end_row(self, step: Step, mean: float | None) -> Row | None:
        if mean is None and step.eval_loss is None:
            return None
        row: Row = {"step": step.number, "loss": mean, "eval_loss": step.eval_loss}
        if mean is not None:
            row |= self.window.values() | {f"lr_{peak:.6g}": rate for peak, rate in step.rates.items()}
            self.window = Window()
        self.rows.append(row)
        return row

    def as_dict(self) -> dict[str, Any]:
        """For a state."""
        return asdict(self)


def history_from(content: Mapping[str, Any]) -> History:
    """The history that `as_dict` gave.

    Raises:
        KeyError, TypeError: it is something else.
    """
    return History(
        LossCurve(**content["curve"]), list(content["rows"]), Window(**content["window"]), list(content["losses"])
    )


class HistoryTable:
    """`training.csv`, written anew from a history and then a row at a time, so that it can be followed.

    Args:
        path: the file.
        peaks: peak learning rates, highest first: one column each.
    """

    def __init__(self, path: Path, peaks: Iterable[float]) -> None:
        self._path = path
        self._columns = ["step", "loss", "eval_loss", *Window(steps=1).values(), *(f"lr_{peak:.6g}" for peak in peaks)]

    def start(self, rows: Iterable[Row]) -> None:
        """Writes the head and the rows so far."""
        with self._path.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerow(self._columns)
        self.append(*rows)

    def append(self, *rows: Row) -> None:
        """Writes rows behind the others; a column that a row lacks stays empty."""
        with self._path.open("a", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerows([_cell(row.get(column)) for column in self._columns] for row in rows)


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else f"{value:.6g}"
