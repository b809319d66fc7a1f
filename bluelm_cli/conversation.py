"""The interactive terminal of `bluelm chat`: lines in, answers streamed to stdout, everything else on stderr.

Works on a terminal (editing and history through readline) and on a pipe (a scripted conversation). Ctrl-C stops an
answer; a second one in a row, Ctrl-D or /exit ends the conversation.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from bluelm_cli import console
from bluelm_cli.speech import Ears, SpeechFlags, corrected, mouth
from stages.artifacts.errors import BluelmError

if TYPE_CHECKING:
    from stages.chat import TalkConfig
    from stages.device.runtime.conversation import Conversation
    from stages.device.speech.speaker import Speaker

# How a line begins that may be a dropped or pasted path rather than a question.
_PATH_STARTS = ("/", "~", "./", "../", "'", '"')
HELP = """\
Type a question. Pictures that were named since the last question belong to it.
  /image PATH   name a picture; its encoding starts at once   (a picture's path alone does the same)
  /images       the pictures of this conversation
  /reset        forget questions, answers and pictures
  /stats        tokens, times and memory
  /listen [WAV] ask by voice: at the microphone, or what a wav file says (with --listen: an empty line listens)
  /help         this
  /exit         end (also Ctrl-D, or Ctrl-C twice)"""


def talk(config: TalkConfig, model: Path, images: Sequence[Path], features: Path | None, speech: SpeechFlags) -> None:
    """Talks until the user ends it.

    Raises:
        BluelmError: the model cannot be used. A bad picture or question is told and does not end the conversation.
    """
    from stages.chat import conversation

    ears = Ears(config)
    if speech.listen:
        _ = ears.listener  # what is missing is told before the model loads
    with mouth(config, speech) as speaker, conversation(config, model, features) as talking:
        terminal = Terminal(talking, ears, speaker, speech.listen)
        for path in images:
            terminal.guard(lambda path=path: terminal.name(path))  # type: ignore[misc]
        talking.engine.wait()
        for notice in talking.engine.notices:
            console.note(notice)
        terminal.run()


def printable(text: str) -> str:
    """Text without control characters: an answer must not steer the terminal."""
    return "".join(letter for letter in text if letter.isprintable() or letter in "\n\t")


class Terminal:
    """Reads lines and does what they say.

    Args:
        talking: the conversation.
        ears: hear spoken questions.
        speaker: says answers, where they are said.
        listens: an empty line listens at the microphone.
    """

    def __init__(
        self, talking: Conversation, ears: Ears, speaker: Speaker | None = None, listens: bool = False
    ) -> None:
        self.talking, self._ears, self._speaker, self._listens = talking, ears, speaker, listens
        self.interactive = sys.stdin.isatty()
        self._commands: dict[str, Callable[[str], None]] = {
            "/image": self._image,
            "/images": lambda _: self._images(),
            "/reset": lambda _: self._reset(),
            "/stats": lambda _: self._stats(),
            "/listen": self._listen,
            "/help": lambda _: console.note(HELP),
        }

    def run(self) -> None:
        """Reads and does one line after the other, to the end of input."""
        if self.interactive:
            console.note(f"{self.talking.engine.config.name} · /help shows the commands, /exit ends")
            if self._listens:
                console.note("Press Enter on an empty line and ask; correct what was heard, or empty the line.")
        interrupted = False
        while True:
            try:
                line = self._read()
                if line is None or line in ("/exit", "/quit"):
                    return
                interrupted = False
                self.guard(lambda line=line: self._do(line))  # type: ignore[misc]
            except KeyboardInterrupt:
                if self._speaker is not None:
                    self._speaker.stop()
                console.note("" if self.interactive else "interrupted")
                if interrupted:
                    return
                interrupted = True
                console.note("(Ctrl-C again, Ctrl-D or /exit ends the conversation)")

    def guard(self, action: Callable[[], None]) -> None:
        """Does something, and tells of an error instead of ending."""
        try:
            action()
        except BluelmError as error:
            console.show_error(error)

    def name(self, path: Path) -> None:
        """Names a picture for the next question."""
        self.talking.name(path)
        if self.interactive:
            console.note(f"{path} is being encoded; ask about it when you like")

    def _read(self) -> str | None:
        """The next line, None at the end of input."""
        if not self.interactive:
            line = sys.stdin.readline()
            return line.strip() if line else None
        import readline  # noqa: F401  (gives input() editing and history)

        try:
            return input("> ").strip()
        except EOFError:
            console.note("")
            return None

    def _do(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if not line:
            if self._listens and self.interactive:
                self._listen("")
            return
        if word in self._commands:
            self._commands[word](rest.strip())
        elif line.startswith(_PATH_STARTS) and is_file(path := picture_path(line)):
            self.name(path)
        elif word.startswith("/"):
            console.note(f"{word} is neither a command nor a picture. /help shows the commands.")
        else:
            self._ask(line)

    def _ask(self, text: str) -> None:
        from stages.device.runtime.generator import Token

        started = False
        try:
            with closing(self.talking.ask(text)) as events:
                for event in events if self._speaker is None else self._speaker.follow(events):
                    if isinstance(event, Token):
                        started = True
                        console.emit_text(printable(event.text), end="")
        except BluelmError as error:
            console.show_error(error)
            console.note("The question was not answered.")
            return
        finally:
            if started:
                console.emit_text("")
        if not started:
            console.emit_text("")
        if self.interactive:
            console.note(self._summary())
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

    def _image(self, words: str) -> None:
        if words:
            self.name(picture_path(words))
        else:
            console.note("Which picture? /image PATH")

    def _images(self) -> None:
        for picture in self.talking.pictures:
            grid = f"{picture.grid.cols}:{picture.grid.rows}"
            console.note(f"{picture.path}: {grid}, {picture.tiles} tiles, {picture.tokens} tokens")
        for named in self.talking.named:
            console.note(
                f"{named.path}: {'encoded' if named.features.done() else 'being encoded'}, not asked about yet"
            )
        if not self.talking.pictures and not self.talking.named:
            console.note("No pictures yet. /image PATH names one.")

    def _reset(self) -> None:
        self.talking.reset()
        console.note("Forgotten: questions, answers and pictures.")

    def _stats(self) -> None:
        turns = self.talking.turns
        if not turns:
            console.note("Nothing was answered yet.")
            return
        console.note(self._summary())
        hidden = sum(turn.hidden_s for turn in turns)
        console.note(
            f"{len(turns)} answers, {sum(turn.answer.generated_tokens for turn in turns)} tokens generated; "
            f"loading {self.talking.engine.load_s:.2f} s; {hidden:.2f} s of encoding hidden; "
            f"peak memory {turns[-1].answer.peak_rss_mb:,.0f} MB"
        )

    def _summary(self) -> str:
        """The last answer in figures."""
        turn = self.talking.turns[-1]
        answer = turn.answer
        rate = f", {answer.decode_tok_s:.1f} tok/s" if answer.decode_tok_s is not None else ""
        return (
            f"[{answer.prompt_tokens} prompt tokens ({answer.image_tokens} image, {answer.reused_tokens} reused); "
            f"first token {answer.first_token_s:.2f} s (waited {turn.waited_s:.2f} s for pictures){rate}]"
        )


def picture_path(words: str) -> Path:
    """A path as people type, paste or drop it: plain, quoted or with escaped spaces, `~` for the home folder."""
    plain = _at_home(words)
    if is_file(plain):
        return plain
    try:
        parts = shlex.split(words)
    except ValueError:
        return plain
    return _at_home(parts[0]) if len(parts) == 1 else plain


def is_file(path: Path) -> bool:
    """Whether there is such a file; False too for what can be no path, such as a long question."""
    try:
        return path.is_file()
    except OSError:
        return False


def _at_home(words: str) -> Path:
    try:
        return Path(words).expanduser()
    except RuntimeError:  # ~nobody
        return Path(words)
