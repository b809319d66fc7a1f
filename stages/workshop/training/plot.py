"""`loss.png`: the loss of a run over its steps, and that on held-out data where it was measured."""

from __future__ import annotations

import io
from pathlib import Path

from stages.artifacts.atomic_file import write_atomically
from stages.workshop.training.history import History, Row

PLOT_FILE = "loss.png"
_SIZE = (8.0, 5.0)  # inches
_DPI = 120
# Okabe and Ito's colours, which differ for every kind of colour vision.
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#999999"


def draw_history(history: History, path: Path) -> None:
    """Draws a history as PNG, in one step; nothing of matplotlib's global state is touched."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    loss, rate = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    marker = "o" if len(history.rows) < 30 else None
    loss.plot(*_series(history.rows, "loss"), color=_BLUE, marker=marker, markersize=3, label="training")
    heldout = _series(history.rows, "eval_loss")
    if heldout[0]:
        loss.plot(*heldout, color=_ORANGE, marker="o", markersize=4, label="held out")
        loss.legend(frameon=False)
    loss.set_ylabel("loss per learned token")
    peaks = sorted({name for row in history.rows for name in row if name.startswith("lr_")}, key=_peak)
    for name in peaks:
        rate.plot(*_series(history.rows, name), color=_BLUE if name == peaks[-1] else _GREY, linewidth=1)
    rate.set_ylabel("learning rate")
    rate.set_xlabel("step")
    for axes in (loss, rate):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    drawn = io.BytesIO()
    canvas.print_png(drawn)
    write_atomically(path, drawn.getvalue(), durable=False)


def _series(rows: list[Row], name: str) -> tuple[list[float], list[float]]:
    """Steps and values of a column where it has any."""
    found = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    return [float(step or 0) for step, _ in found], [float(value or 0) for _, value in found]


def _peak(name: str) -> float:
    return float(name.removeprefix("lr_"))
