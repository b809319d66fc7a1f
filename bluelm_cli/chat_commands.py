"""What the commands of a conversation do, but for asking and listening: pictures, files, figures."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bluelm_cli import console
from bluelm_cli.chat_paths import dropped, is_file, picture_path
from bluelm_cli.chat_preview import can_draw, graphics_of, preview
from bluelm_cli.chat_status import conversation_figures
from bluelm_cli.chat_text import shown
from stages.artifacts.errors import BluelmError

if TYPE_CHECKING:
    from stages.device.runtime.conversation import Conversation

COMMANDS = {
    "/image": ("PATH…", "name pictures; their encoding starts at once   (paths alone, dropped or pasted, do the same)"),
    "/paste": ("", "name the picture in the clipboard   (Ctrl-V does the same)"),
    "/images": ("", "the pictures of this conversation"),
    "/preview": ("[N]", "draw the N-th picture, or the last"),
    "/reset": ("", "forget questions, answers and pictures"),
    "/save": ("FILE", "keep the conversation and what its pictures became"),
    "/load": ("FILE", "go on with a saved conversation"),
    "/stats": ("", "tokens, times, what encoding while typing saved, memory"),
    "/listen": ("[WAV]", "ask by voice: at the microphone, or what a wav file says (--listen: an empty line listens)"),
    "/help": ("", "this"),
    "/exit": ("", "end   (also Ctrl-D, or Ctrl-C twice)"),
}
HELP = "\n".join(
    ["Type a question. Pictures that were named since the last question belong to it."]
    + [f"  {f'{name} {words}':15} {what}" for name, (words, what) in COMMANDS.items()]
)


class Commands:
    """The commands, by their names.

    Args:
        talking: the conversation.
        pasted: folder for pictures from the clipboard.

    Attributes:
        interactive: a person sits at a terminal.
    """

    def __init__(self, talking: Conversation, pasted: Path) -> None:
        self.talking, self._pasted = talking, pasted
        self._file: Path | None = None  # where the conversation was saved
        self.interactive = False
        self.table: dict[str, Callable[[str], None]] = {
            "/image": self._image,
            "/paste": lambda _: self.name_clipboard(),
            "/images": lambda _: self._images(),
            "/preview": self._preview,
            "/reset": lambda _: self._reset(),
            "/save": self._save,
            "/load": self._load,
            "/stats": lambda _: console.note("\n".join(conversation_figures(self.talking))),
            "/help": lambda _: console.note(HELP),
        }

    def name(self, path: Path) -> None:
        """Names a picture for the next question.

        Raises:
            ImageError: it cannot be read.
        """
        self.talking.name(path)
        if not self.interactive:
            return
        console.note(f"{shown(path)} is being encoded; ask about it when you like")
        if can_draw() and (graphics := graphics_of(os.environ)) is not None:
            try:
                console.draw(preview(path, graphics))
            except BluelmError:  # told when the question is asked
                return

    def name_all(self, paths: Sequence[Path]) -> None:
        """Names several pictures."""
        for path in paths:
            self.name(path)

    def name_clipboard(self) -> None:
        """Names the picture in the clipboard.

        Raises:
            ImageError: there is none.
        """
        from stages.device.imaging.clipboard import clipboard_pictures

        number = sum(1 for _ in self._pasted.iterdir()) + 1
        self.name_all(clipboard_pictures(self._pasted / f"clipboard-{number}.png"))

    def _image(self, words: str) -> None:
        if words:
            self.name_all(dropped(words) or [picture_path(words)])
        else:
            console.note("Which picture? /image PATH")

    def _images(self) -> None:
        lines = [
            f"{shown(picture.path)}: {picture.grid.cols}:{picture.grid.rows}, {picture.tiles} tiles, "
            f"{picture.tokens} tokens"
            for picture in self.talking.pictures
        ]
        for named in self.talking.named:
            state = "encoded" if named.features.done() else "being encoded"
            lines.append(f"{shown(named.path)}: {state}, not asked about yet")
        for number, line in enumerate(lines, start=1):
            console.note(f"{number} {line}")
        if not lines:
            console.note("No pictures yet. /image PATH names one.")

    def _preview(self, words: str) -> None:
        paths = [picture.path for picture in self.talking.pictures]
        paths += [named.path for named in self.talking.named]
        if not paths:
            console.note("No pictures yet. /image PATH names one.")
        elif words and not (words.isdecimal() and 1 <= int(words) <= len(paths)):
            console.note(f"There is no picture {shown(words)}; /images counts them from 1 to {len(paths)}.")
        elif not can_draw():
            console.note("Pictures are drawn on terminals alone, and this is none.")
        else:
            console.draw(preview(paths[int(words or len(paths)) - 1], graphics_of(os.environ)))

    def _reset(self) -> None:
        self.talking.reset()
        self._file = None
        console.note("Forgotten: questions, answers and pictures.")

    def _save(self, words: str) -> None:
        from stages.device.runtime.conversation_file import save_conversation

        if not words:
            console.note("Into which file? /save FILE")
            return
        path = picture_path(words)
        # What this conversation was saved to or loaded from is its own.
        save_conversation(self.talking, path, replace=is_file(path) and path.absolute() == self._file)
        self._file = path.absolute()
        console.note(f"Saved: {shown(path)}")

    def _load(self, words: str) -> None:
        from stages.device.runtime.conversation_file import load_conversation

        if not words:
            console.note("Which conversation? /load FILE")
            return
        path = picture_path(words)
        turns = load_conversation(self.talking, path)
        self._file = path.absolute()
        pictures = len(self.talking.pictures) + len(self.talking.named)
        console.note(f"Loaded: {turns} questions and answers, {pictures} pictures. Go on.")
