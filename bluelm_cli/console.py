"""What people and scripts see: results on stdout, everything else on stderr.

rich is imported only when something is drawn, so that `--help` and `--json` start fast.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from bluelm_cli.chat_text import escaped, printable
from stages.artifacts.errors import BluelmError
from stages.artifacts.events import Events, Finished, Notice, Progress

if TYPE_CHECKING:
    from rich.progress import Progress as ProgressBars

Result = TypeVar("Result")

# Where stderr is no terminal, a running stage says where it is this often (seconds).
_LOG_INTERVAL = 15.0
_BAR_WIDTH = 20
# Read well on black and on white, as rich's yellow does not.
_WARNING = "magenta"
_WARNING_CODE = "\x1b[35m"


def emit_json(payload: Mapping[str, Any]) -> None:
    """Prints one JSON object on stdout."""
    sys.stdout.write(escaped(json.dumps(payload, ensure_ascii=False, indent=2, allow_nan=False)) + "\n")


def emit_text(text: str, end: str = "\n") -> None:
    """Prints text on stdout as it is."""
    sys.stdout.write(text + end)
    sys.stdout.flush()


def emit_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Prints a table on stdout; columns whose values are all numbers are aligned to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD)
    for index, column in enumerate(columns):
        values = [row[index] for row in rows if row[index] is not None]
        numeric = bool(values) and all(isinstance(value, int | float) for value in values)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*[Text(_cell(value)) for value in row])
    terminal = sys.stdout.isatty()
    console = Console(file=sys.stdout, width=None if terminal else 160, highlight=False)
    console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else printable(str(value))


def note(text: str, warning: bool = False) -> None:
    """Prints one line on stderr. It may quote names and bytes of files, which must not steer a terminal."""
    text = printable(text)
    if warning and sys.stderr.isatty():
        text = f"{_WARNING_CODE}{text}\x1b[0m"
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def draw(picture: str) -> None:
    """Prints what steers the terminal on purpose (a preview of ours, no text of others) on stderr."""
    sys.stderr.write(picture + "\n")
    sys.stderr.flush()


def show_error(error: BluelmError) -> None:
    """Prints each problem's three beats on stderr."""
    problems = error.problems
    if len(problems) > 1:
        note(f"{len(problems)} problems:")
    for problem in problems:
        # They quote names and bytes of files, which must not steer a terminal.
        what, why, fix = (printable(beat) for beat in (problem.what, problem.why, problem.fix))
        what = f"\x1b[1;31m{what}\x1b[0m" if sys.stderr.isatty() else what
        sys.stderr.write(f"Error: {what}\n  Why: {why}\n  Fix: {fix}\n")
        sys.stderr.flush()


def show_bug(error: Exception) -> None:
    """Says that an unexpected error is ours, without a traceback."""
    note(
        f"Error: {type(error).__name__}: {error}\n"
        "  Why: this is a bug in bluelm, not in what you gave it.\n"
        "  Fix: run the command again with --debug and report the traceback."
    )


def drive(events: Events[Result]) -> Result:
    """Runs a stage to its end, showing its progress and notices on stderr, and returns its result.

    Raises:
        RuntimeError: the stage ended without a result.
    """
    if sys.stderr.isatty():
        return _drive_bars(events)
    last = time.monotonic()
    for event in events:
        if isinstance(event, Finished):
            return event.result
        if isinstance(event, Notice):
            note(event.text, event.level == "warning")
        elif time.monotonic() - last >= _LOG_INTERVAL:
            last = time.monotonic()
            total = "" if event.total is None else f"/{event.total}"
            note(f"{event.label} {event.done}{total} {event.unit}".rstrip())
    raise RuntimeError("the stage ended without a Finished event")


def _drive_bars(events: Events[Result]) -> Result:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars
    from rich.table import Column
    from rich.theme import Theme

    # Where the terminal is narrow a long label takes several lines; cut, it would lose its end.
    label = TextColumn("{task.description}", table_column=Column())
    columns = (label, BarColumn(_BAR_WIDTH), MofNCompleteColumn(), TimeElapsedColumn())
    plain = Theme({"progress.elapsed": "default", "progress.download": "default"})
    with Bars(*columns, console=Console(stderr=True, theme=plain), transient=True) as bars:
        tasks: dict[str, Any] = {}
        for event in events:
            if isinstance(event, Finished):
                return event.result
            if isinstance(event, Notice):
                bars.console.print(
                    printable(event.text), style=_WARNING if event.level == "warning" else None, markup=False
                )
            else:
                _advance(bars, tasks, event)
    raise RuntimeError("the stage ended without a Finished event")


def _advance(bars: ProgressBars, tasks: dict[str, Any], event: Progress) -> None:
    """Moves a stage's bar. Labels may change as they go (a loss, a rate): one bar a unit, described by the newest."""
    from rich.markup import escape

    key = event.unit or event.label
    if key not in tasks:
        tasks[key] = bars.add_task("", total=event.total)
    label = escape(printable(event.label))
    bars.update(tasks[key], completed=event.done, total=event.total, description=label)
