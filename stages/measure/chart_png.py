"""Charts as PNG, by matplotlib: the same data as `charts` draws as SVG, for places that take no SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stages.measure.charts import Bar, Bars, Chart, Lanes, Panel, number

DPI = 160
_WIDE = 9.0
_COLOURS = {"accent": "#2158c9", "plain": "#8a94a2", "second": "#b4690e", "paper": "#c3cad3"}
_INK, _FAINT = "#1a1f26", "#59636f"


def write_png(path: Path, chart: Chart) -> None:
    """Draws a chart into a file."""
    # Not pyplot: it keeps figures, and asks for a window.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    bars = isinstance(chart, Bars)
    rows = [len(panel.bars) for panel in chart.panels] if isinstance(chart, Bars) else [len(chart.lanes)]
    tall = sum(0.42 * count + 0.85 for count in rows) + 0.3
    figure = Figure(figsize=(_WIDE, tall), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.suptitle(chart.title, x=0.01, ha="left", fontsize=12, fontweight="bold", color=_INK)
    axes = figure.subplots(len(rows), 1, squeeze=False, gridspec_kw={"height_ratios": rows})[:, 0]
    if bars:
        for axis, panel in zip(axes, chart.panels, strict=True):  # type: ignore[union-attr]
            _panel(axis, panel)
    else:
        _lanes(axes[0], chart)  # type: ignore[arg-type]
    # No date and no version: the same chart is the same bytes.
    figure.savefig(path, metadata={"Software": None})


def _panel(axis: Any, panel: Panel) -> None:
    for index, bar in enumerate(panel.bars):
        axis.barh(index, bar.value, height=0.6, color=_COLOURS[bar.colour], zorder=2)
        if bar.low is not None and bar.high is not None:
            reach = [[bar.value - bar.low], [bar.high - bar.value]]
            axis.errorbar(bar.value, index, xerr=reach, color=_INK, capsize=3, linewidth=1.2, zorder=3)
        axis.plot(bar.samples, [index + 0.38] * len(bar.samples), "o", ms=2.6, color=_FAINT, zorder=4)
        end = max([bar.value, bar.high or 0.0, *bar.samples])
        axis.annotate(_said(bar), (end, index), (6, 0), textcoords="offset points", va="center", fontsize=9, color=_INK)
    axis.set_yticks(range(len(panel.bars)), [bar.label for bar in panel.bars], fontsize=9, color=_INK)
    axis.set_title(f"{panel.title}, {panel.unit}", loc="left", fontsize=10, color=_INK)
    axis.margins(x=0.22)
    axis.set_xlim(left=0)
    _plain(axis)


def _said(bar: Bar) -> str:
    return number(bar.value) + (f"  {bar.note}" if bar.note else "")


def _lanes(axis: Any, chart: Lanes) -> None:
    for index, lane in enumerate(chart.lanes):
        for span in lane.spans:
            wide, colour = span.end - span.start, _COLOURS[span.colour]
            axis.barh(index, wide, left=span.start, height=0.62, color=colour, ec="white", lw=0.5, zorder=2)
            # However short: what ran is seen.
            axis.plot([span.start] * 2, [index - 0.31, index + 0.31], color=colour, lw=0.8, zorder=3)
    names = [f"{lane.group}\n{lane.label}" for lane in chart.lanes]
    axis.set_yticks(range(len(names)), names, fontsize=8.5, color=_INK)
    axis.set_xlabel("seconds", fontsize=9, color=_FAINT)
    axis.set_xlim(left=0)
    _plain(axis)


def _plain(axis: Any) -> None:
    axis.invert_yaxis()
    axis.grid(axis="x", color="#e2e6eb", zorder=0)
    axis.tick_params(length=0, labelcolor=_FAINT)
    for side in ("top", "right", "bottom"):
        axis.spines[side].set_visible(False)
