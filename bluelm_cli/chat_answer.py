"""An answer on stdout while it comes: formatted Markdown at a terminal, the plain text into a file or a pipe.

At a terminal, blocks that are complete (paragraphs, lists, code) are printed for good; only the last one, still
growing, is drawn again with each token. So nothing that has left the screen ever changes.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from bluelm_cli import console
from bluelm_cli.chat_text import printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.markdown import Markdown

# A screen needs no more than this between two drawings of a growing block (seconds).
_INTERVAL = 0.05
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})(.*)$")


class AnswerOutput(Protocol):
    """Where an answer goes."""

    def push(self, text: str) -> None:
        """Shows a piece of it."""

    def end(self) -> None:
        """Nothing more comes: what is still held back is shown, and the line ended."""


class PlainAnswer:
    """The text as it is, without what could steer a terminal."""

    def push(self, text: str) -> None:
        """See `AnswerOutput`."""
        console.emit_text(printable(text), end="")

    def end(self) -> None:
        """See `AnswerOutput`."""
        console.emit_text("")


class MarkdownAnswer:
    """Formatted for a terminal.

    Args:
        out: its console.
    """

    def __init__(self, out: Console) -> None:
        from rich.live import Live

        self._out = out
        self._tail = ""
        self._drawn = 0.0
        self._follows = False  # something was printed for good
        self._live = Live(console=out, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False)
        self._live.start()

    def push(self, text: str) -> None:
        """See `AnswerOutput`."""
        self._tail += printable(text)
        done, self._tail = split_blocks(self._tail)
        if done.strip():
            self._live.update("", refresh=True)
            self._print(done)
        now = time.monotonic()
        if done or now - self._drawn >= _INTERVAL:
            self._drawn = now
            self._live.update(_Block(self._tail, self._follows, self._out.height - 2), refresh=True)

    def end(self) -> None:
        """See `AnswerOutput`."""
        self._live.update("")
        self._live.stop()
        if self._tail.strip():
            self._print(self._tail)

    def _print(self, text: str) -> None:
        self._out.print(_Block(text, self._follows), end="")
        self._follows = True


class _Block:
    """Markdown without blank lines around it, and one before it where it follows another.

    Args:
        text: the Markdown.
        follows: it follows another.
        most: only so many of its last lines: what scrolled away could not be drawn again.
    """

    def __init__(self, text: str, follows: bool, most: int | None = None) -> None:
        self._text, self._follows, self._most = text, follows, most

    def __rich_console__(self, out: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment

        lines = out.render_lines(markdown(self._text), options, pad=False)
        full = [index for index, line in enumerate(lines) if "".join(part.text for part in line).strip()]
        lines = lines[full[0] : full[-1] + 1] if full else []
        if lines and self._follows:
            lines.insert(0, [])
        for line in lines if self._most is None else lines[-max(1, self._most) :]:
            yield from line
            yield Segment.line()


def answer_output() -> AnswerOutput:
    """Formatted where stdout is a terminal that can draw, plain where not."""
    if not sys.stdout.isatty() or os.environ.get("TERM") in ("dumb", "unknown"):
        return PlainAnswer()
    from rich.console import Console

    return MarkdownAnswer(Console(file=sys.stdout))


def markdown(text: str) -> Markdown:
    """Markdown whose links show where they lead, rather than hide it behind their words."""
    from rich.markdown import Markdown

    return Markdown(text, hyperlinks=False)


def split_blocks(text: str) -> tuple[str, str]:
    """What of a growing Markdown text is complete, and the block at its end that may still change.

    A block ends with a blank line outside of fenced code, where the next line is not indented (it could belong to a
    list item above).
    """
    fence: str | None = None
    end = position = 0
    blank = False
    for line in text.splitlines(keepends=True):
        bare = line.rstrip("\n")
        if blank and fence is None and bare and not bare[0].isspace():
            end = position
        if (found := _FENCE.match(bare)) is not None:
            mark, rest = found.groups()
            if fence is None:
                fence = mark
            elif mark[0] == fence[0] and len(mark) >= len(fence) and not rest.strip():
                fence = None
        blank = not bare.strip()
        position += len(line)
    return text[:end], text[end:]


@contextmanager
def keys_unseen() -> Iterator[None]:
    """What is typed while an answer is drawn is not echoed into it; it is there at the next prompt. Ctrl-C works."""
    if not sys.stdin.isatty() or sys.platform == "win32":
        yield
        return
    import termios

    stream = sys.stdin.fileno()
    before = termios.tcgetattr(stream)
    silent = [*before]
    silent[3] = before[3] & ~termios.ECHO
    termios.tcsetattr(stream, termios.TCSANOW, silent)
    try:
        yield
    finally:
        termios.tcsetattr(stream, termios.TCSANOW, before)
