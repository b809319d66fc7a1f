"""What a running stage shows: one line on the terminal, `training.csv`, and TensorBoard where it is asked for."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from stages.artifacts.errors import UsageError
from stages.artifacts.events import Progress
from stages.workshop.training.history import HISTORY_FILE, History, HistoryTable, Row, Step, Window

_RECENT = 50


class Board(Protocol):
    """What is used of TensorBoard's `SummaryWriter`."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Draws a point."""

    def close(self) -> None:
        """Writes what is left."""


class Monitor:
    """Keeps the history of a run and shows it.

    Args:
        history: what a state held, or an empty one.
        emit: takes the line for the terminal; None in processes that do not speak.
        folder: where `training.csv` is written; None writes none.
        peaks: peak learning rates, highest first.
        board: TensorBoard, or None.
    """

    def __init__(
        self,
        history: History,
        emit: Callable[[Progress], None] | None = None,
        folder: Path | None = None,
        peaks: Iterable[float] = (),
        board: Board | None = None,
    ) -> None:
        self.history = history
        self.seconds: list[float] = []
        self._emit = emit
        self._board = board
        self._table = HistoryTable(folder / HISTORY_FILE, peaks) if folder is not None else None
        if self._table is not None:
            self._table.start(history.rows)

    def step(self, step: Step, steps: int) -> None:
        """A step is done; after the last of `steps` the open row is closed."""
        self.seconds.append(step.seconds)
        open_row = self.history.window
        self._write(self.history.add(step))
        if step.number >= steps:
            self._write(self.history.close(step))
        if self._emit is not None:
            label = live_line(step, open_row, self.history, self._left(steps - step.number))
            self._emit(Progress(label, step.number, steps, "steps"))

    def close(self) -> None:
        """Nothing more will come."""
        if self._board is not None:
            self._board.close()

    def _left(self, steps: int) -> float:
        return statistics.median(self.seconds[-_RECENT:]) * steps

    def _write(self, row: Row | None) -> None:
        if row is None:
            return
        if self._table is not None:
            self._table.append(row)
        if self._board is not None:
            for name, value in row.items():
                if name != "step" and value is not None:
                    self._board.add_scalar(name, value, int(row["step"] or 0))


def live_line(step: Step, window: Window, history: History, seconds_left: float) -> str:
    """One line: loss, speed in real and in learned tokens, padding, learning rates, gradient norm, time left.

    Args:
        step: the newest step.
        window: the steps of the row that it belongs to.
        history: for the loss before the first row.
        seconds_left: for the steps that remain.
    """
    seconds = max(window.seconds, 1e-9)
    curve = history.curve
    loss = curve.open_sum / curve.open_count if curve.open_count else curve.last
    rates = list(step.rates.values())
    low, high = min(rates), max(rates)
    parts = [
        f"training, loss {loss:.4f}",
        f"{window.tokens / seconds:,.0f} tok/s ({window.learned / seconds:,.0f} learned)",
        f"padding {window.padding:.0%}",
        f"lr {high:.2g}" if low == high else f"lr {low:.2g} to {high:.2g}",
        f"grad {step.grad_norm:.2g}",
        f"{_clock(seconds_left)} left",
    ]
    if history.eval_loss is not None:
        parts.insert(1, f"held out {history.eval_loss:.4f}")
    return ", ".join(parts)


def open_board(folder: str | None) -> Board | None:
    """TensorBoard's writer for a folder.

    Raises:
        UsageError: it is not installed.
    """
    if folder is None:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError(
            f"execution.tensorboard is {folder!r}, but tensorboard is not installed.",
            "Its files are written by that package.",
            "Install it with pip install tensorboard, or leave the key away: training.csv holds the same numbers.",
        ) from error
    writer: Any = SummaryWriter
    board: Board = writer(folder)
    return board


def _clock(seconds: float) -> str:
    """3:07 or 2:03:07, and days before them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    clock = f"{hours}:{minutes:02}:{rest:02}" if hours or days else f"{minutes}:{rest:02}"
    return f"{days} d {clock}" if days else clock
