"""The interactive terminal of `bluelm chat`: lines in, answers streamed to stdout, everything else on stderr.

Works on a terminal and on a pipe (a scripted conversation). Ctrl-C stops an answer; at the prompt a second one in a
row, Ctrl-D or /exit ends the conversation.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from bluelm_cli import console
from bluelm_cli.chat_answer import answer_output, keys_unseen
from bluelm_cli.chat_commands import COMMANDS, Commands
from bluelm_cli.chat_paths import SUFFIXES, dropped, picture_path, split_question
from bluelm_cli.chat_pipe import PipeLines
from bluelm_cli.chat_status import answer_figures, status_line
from bluelm_cli.chat_text import shown
from bluelm_cli.speech import Ears, SpeechFlags, corrected, mouth
from stages.artifacts.errors import BluelmError

if TYPE_CHECKING:
    from bluelm_cli.chat_answer import AnswerOutput
    from bluelm_cli.chat_line import PromptLines
    from stages.chat import TalkConfig
    from stages.device.runtime.conversation import Conversation
    from stages.device.speech.speaker import Speaker


def talk(config: TalkConfig, model: Path, images: Sequence[Path], features: Path | None, speech: SpeechFlags) -> None:
    """Talks until the user ends it.

    Raises:
        BluelmError: the model cannot be used. A bad picture or question is told and does not end the conversation.
    """
    from stages.chat import conversation

    ears = Ears(config)
    if speech.listen:
        _ = ears.listener  # what is missing is told before the model loads
    with ExitStack() as stack:
        speaker = stack.enter_context(mouth(config, speech))
        talking = stack.enter_context(conversation(config, model, features))
        pasted = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bluelm-")))
        terminal = Terminal(talking, ears, speaker, speech.listen, pasted=pasted)
        for path in images:
            terminal.guard(lambda path=path: terminal.name(path))  # type: ignore[misc]
        if sys.stdin.isatty():
            terminal.sit_down(config.cache)
        else:
            talking.engine.wait()
        terminal.run()


class Terminal:
    """Reads lines and does what they say.

    Args:
        talking: the conversation.
        ears: hear spoken questions.
        speaker: says answers, where they are said.
        listens: an empty line listens at the microphone.
        pasted: folder for pictures from the clipboard.
    """

    def __init__(
        self,
        talking: Conversation,
        ears: Ears,
        speaker: Speaker | None = None,
        listens: bool = False,
        *,
        pasted: Path,
    ) -> None:
        self.talking, self._ears, self._speaker, self._listens = talking, ears, speaker, listens
        self._told = 0
        self.interactive = False
        self._lines: PipeLines | PromptLines = PipeLines()
        self._commands = Commands(talking, pasted)
        self._table = {**self._commands.table, "/listen": self._listen}

    def sit_down(self, keeps_history: bool) -> None:
        """A person sits at the terminal; the model loads while they type."""
        from bluelm_cli.chat_line import HISTORY_FILE, PromptLines
        from stages.device.runtime.session_cache import cache_folder

        folder = cache_folder() if keeps_history else None
        lines = PromptLines(self, list(COMMANDS), folder / HISTORY_FILE if folder is not None else None)
        self.interactive = self._commands.interactive = True
        self._lines = lines
        self.talking.changed = lines.refresh
        for part in self.talking.engine.loading:
            part.add_done_callback(lambda done: lines.stop() if _failed(done) else lines.refresh())
        console.note(f"{self.talking.engine.config.name} · /help shows the commands, /exit ends")
        if self._listens:
            console.note("Press Enter on an empty line and ask; correct what was heard, or empty the line.")

    def run(self) -> None:
        """Reads and does one line after the other, to the end of input.

        Raises:
            BluelmError: the model cannot be loaded.
        """
        interrupted = False
        while True:
            try:
                self._tell_notices()
                line = self._lines.read()
                self._check_loading()
                if line is None or line in ("/exit", "/quit"):
                    return
                interrupted = False
                self.guard(lambda line=line: self._do(line))  # type: ignore[misc]
            except KeyboardInterrupt:
                if self._speaker is not None:
                    self._speaker.stop()
                if not self.interactive:
                    raise
                if interrupted:
                    return
                interrupted = True
                console.note("(Ctrl-C again, Ctrl-D or /exit ends the conversation)")

    def guard(self, action: Callable[[], None]) -> None:
        """Does something, and tells of an error instead of ending.

        Raises:
            BluelmError: the model cannot be loaded.
        """
        try:
            action()
        except BluelmError as error:
            self._check_loading()
            console.show_error(error)

    def name(self, path: Path) -> None:
        """Names a picture for the next question; raises ImageError where it cannot be read."""
        self._commands.name(path)

    def status(self) -> str:
        """The line below the prompt."""
        return status_line(self.talking)

    def take_pasted(self, text: str) -> bool:
        """Names the pictures whose paths were pasted or dropped; False where it is only text."""
        try:
            paths = dropped(text)
        except BluelmError:
            return False
        if not paths or any(path.suffix.lower() not in SUFFIXES for path in paths):
            return False
        for path in paths:
            # Nothing may be printed here; a bad header is told when the question is asked.
            self.talking.name(path, check=False)
        return True

    def take_clipboard(self) -> None:
        """Names the picture in the clipboard."""
        self.guard(self._commands.name_clipboard)

    def _check_loading(self) -> None:
        """Raises BluelmError where the model cannot be loaded; waits for nothing that still loads."""
        if any(_failed(part) for part in self.talking.engine.loading):
            self.talking.engine.wait()

    def _tell_notices(self) -> None:
        notices = self.talking.engine.notices
        for notice in notices[self._told :]:
            console.note(notice)
        self._told = len(notices)

    def _do(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if not line:
            if self._listens and self.interactive:
                self._listen("")
            return
        if word in self._table:
            self._table[word](rest.strip())
        elif paths := dropped(line):
            self._commands.name_all(paths)
        else:
            pictures, question = split_question(line)
            if word.startswith("/") and not pictures:
                console.note(f"{shown(word)} is neither a command nor a picture. /help shows the commands.")
                return
            self._commands.name_all(pictures)
            self._ask(question)

    def _ask(self, text: str) -> None:
        """Shows the answer as it comes; Ctrl-C ends it where it is."""
        from stages.artifacts.events import Notice
        from stages.device.runtime.generator import Token

        asked = self.talking.engine.clock()
        stopped = False
        output: AnswerOutput | None = None
        try:
            with keys_unseen(), closing(self.talking.ask(text, asked)) as events:
                for event in events if self._speaker is None else self._speaker.follow(events):
                    if isinstance(event, Notice):
                        console.note(event.text, event.level == "warning")
                    elif isinstance(event, Token):
                        output = output or answer_output()
                        output.push(event.text)
        except BluelmError as error:
            self._check_loading()
            console.show_error(error)
            console.note("The question was not answered.")
            return
        except KeyboardInterrupt:
            if not self.interactive:
                raise
            stopped = True
            if self._speaker is not None:
                self._speaker.stop()
        finally:
            if output is not None:
                output.end()
        if stopped:
            console.note("(stopped)" if output is not None else "(stopped before the first word: it was not asked)")
            return
        if output is None:
            console.emit_text("")
        if self.interactive:
            console.note(answer_figures(self.talking.turns[-1]))
        if self._speaker is not None:
            self._speaker.wait()

    def _listen(self, words: str) -> None:
        text = self._ears.question(picture_path(words) if words else None)
        if self.interactive:
            text = corrected(text)
        if text:
            self._ask(text)
        else:
            console.note("Not asked.")


def _failed(part: object) -> bool:
    from concurrent.futures import Future

    return isinstance(part, Future) and part.done() and not part.cancelled() and part.exception() is not None
