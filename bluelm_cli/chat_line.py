"""The lines of a person at a terminal (prompt_toolkit).

They are edited, with history and completion of commands and paths; the line below the prompt is drawn
again as encodings move on, from whatever thread says so. Typing never waits for anything.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.output import Output, create_output

from bluelm_cli.chat_paths import SUFFIXES

PROMPT = "> "
HISTORY_FILE = "chat-history"
# A history that has grown beyond this begins anew (bytes).
_MOST_HISTORY = 1_000_000


class LineActions(Protocol):
    """What keys do beside editing."""

    def status(self) -> str:
        """The line below the prompt."""

    def take_pasted(self, text: str) -> bool:
        """Names the pictures whose paths were pasted or dropped; False where it is only text."""

    def take_clipboard(self) -> None:
        """Names the picture in the clipboard."""


class PromptLines:
    """Lines that a person types.

    Args:
        actions: what keys do beside editing.
        commands: their names, to complete.
        history: file of lines typed before; None keeps them for this conversation alone.
        source: where keys come from, and
        screen: where the prompt is drawn; the terminal where they are not given.
    """

    def __init__(
        self,
        actions: LineActions,
        commands: Sequence[str],
        history: Path | None = None,
        source: Input | None = None,
        screen: Output | None = None,
    ) -> None:
        self._actions = actions
        self._stopped = False
        # An answer may go to a file while the person types.
        stream = sys.stdout if sys.stdout.isatty() else sys.stderr
        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            history=_history(history),
            completer=_LineCompleter(commands),
            complete_while_typing=False,
            complete_in_thread=True,
            enable_history_search=True,
            bottom_toolbar=actions.status,
            key_bindings=self._keys(),
            input=source,
            output=screen or create_output(stream),
        )

    def read(self) -> str | None:
        """The next line; None at Ctrl-D, or once `stop` was called.

        Raises:
            KeyboardInterrupt: Ctrl-C.
        """
        try:
            return self._session.prompt(pre_run=self._end_if_stopped).strip()
        except EOFError:
            return None

    def refresh(self) -> None:
        """Draws the line below the prompt again; may be called in any thread."""
        self._session.app.invalidate()

    def stop(self) -> None:
        """Ends the line that is being typed, and all further ones; may be called in any thread."""
        self._stopped = True
        loop = self._session.app.loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._end_if_stopped)

    def _end_if_stopped(self) -> None:
        app = self._session.app
        if self._stopped and app.is_running and app.future is not None and not app.future.done():
            app.exit(exception=EOFError)

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        @keys.add(Keys.BracketedPaste)
        def pasted(event: KeyPressEvent) -> None:
            text = event.data.replace("\r\n", "\n").replace("\r", "\n")
            if event.current_buffer.text.startswith("/") or not self._actions.take_pasted(text.strip()):
                event.current_buffer.insert_text(text)

        @keys.add("c-v")
        def clipboard(_: KeyPressEvent) -> None:
            run_in_terminal(self._actions.take_clipboard, in_executor=True)

        return keys


class _LineCompleter(Completer):
    """Commands at the beginning of a line; paths behind a command, or where a line begins as one."""

    def __init__(self, commands: Sequence[str]) -> None:
        self._commands = commands
        self._pictures = PathCompleter(expanduser=True, file_filter=_may_hold_a_picture)
        self._files = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """See `Completer`."""
        text = document.text_before_cursor
        word, space, rest = text.partition(" ")
        if not space and word.startswith("/"):
            found = [command for command in self._commands if command.startswith(word)]
            yield from (Completion(command, -len(word)) for command in found)
        if space and word in ("/save", "/load", "/listen"):
            yield from self._files.get_completions(Document(rest.lstrip()), complete_event)
        elif space and word == "/image":
            yield from self._pictures.get_completions(Document(rest.lstrip()), complete_event)
        elif text.startswith(("/", "~", "./", "../")) and word not in self._commands:
            yield from self._pictures.get_completions(Document(text), complete_event)


def _may_hold_a_picture(name: str) -> bool:
    path = Path(name)
    return path.suffix.lower() in SUFFIXES or path.is_dir()


def _history(file: Path | None) -> History:
    """Lines typed before, in a file that only the user may read; for this conversation alone where that cannot be."""
    if file is None:
        return InMemoryHistory()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists() and file.stat().st_size > _MOST_HISTORY:
            file.unlink()
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600))
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(file))
