"""A conversation: pictures named, questions asked, turns remembered; what a terminal drives.

A picture is encoded from the moment it is named; it belongs to the next question. A question that fails leaves the
conversation as it was before it, with its pictures still waiting; an interrupted answer stays as far as it came. What
no longer fits the model's context is forgotten from the oldest turn on, whole turns with their pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from stages.artifacts.errors import BluelmError, UsageError, raise_all
from stages.artifacts.events import Notice
from stages.device.imaging.loading import read_size
from stages.device.prompt.messages import Message, assistant, count_images, user
from stages.device.runtime.album import PictureFeatures
from stages.device.runtime.engine import Answer, AnswerOptions, Engine
from stages.device.runtime.generator import Token


@dataclass
class EncodingProgress:
    """Tiles of a picture that are encoded, and tiles in all; 0 while it waits for its turn."""

    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Named:
    """A picture that waits for its question: its path and, some time, its features."""

    path: Path
    features: Future[PictureFeatures]
    progress: EncodingProgress = field(default_factory=EncodingProgress, compare=False)


@dataclass(frozen=True)
class Turn:
    """A question that was answered, and what waiting for its pictures took.

    Attributes:
        answer: what came back.
        pictures: those named for this question.
        waited_s: seconds the question waited for them.
        encoded_s: seconds their encoding took; what exceeds `waited_s` was hidden while the user typed.
    """

    answer: Answer
    pictures: tuple[PictureFeatures, ...]
    waited_s: float
    encoded_s: float

    @property
    def hidden_s(self) -> float:
        """Seconds of encoding that nobody waited for."""
        return max(0.0, self.encoded_s - self.waited_s)


class Conversation:
    """Turns over one engine.

    Args:
        engine: the loaded, or loading, model.
        options: how to answer.
        model: digest of the exported model, by which saved conversations know it.

    Attributes:
        changed: called, in any thread, when an encoding has moved on.
    """

    def __init__(self, engine: Engine, options: AnswerOptions | None = None, model: str = "") -> None:
        self.engine, self.options, self.model = engine, options or AnswerOptions(), model
        self.changed: Callable[[], None] = lambda: None
        self.reset()

    def reset(self) -> None:
        """Forgets all turns and pictures; their features stay in the album."""
        self.messages: list[Message] = []
        self.pictures: list[PictureFeatures] = []
        self.named: list[Named] = []
        self.turns: list[Turn] = []

    def name(self, path: Path, check: bool = True) -> Named:
        """Names a picture for the next question and starts to encode it.

        Args:
            path: the picture.
            check: look at its header now, rather than tell what is wrong when the question is asked.

        Raises:
            ImageError: its header says that it cannot be read; it is not named then.
        """
        if check:
            read_size(path)
        progress = EncodingProgress()

        def moved(done: int, total: int) -> None:
            progress.done, progress.total = done, total
            self.changed()

        named = Named(path, self.engine.album.add(path, moved), progress)
        named.features.add_done_callback(lambda _: self.changed())
        self.named.append(named)
        return named

    def name_encoded(self, picture: PictureFeatures) -> None:
        """Names a picture whose features are there already."""
        features: Future[PictureFeatures] = Future()
        features.set_result(picture)
        self.named.append(Named(picture.path, features, EncodingProgress(picture.tiles, picture.tiles)))

    def ask(self, text: str, asked: float | None = None) -> Generator[Token | Answer | Notice, None, None]:
        """Asks about everything named so far.

        Args:
            text: the question.
            asked: the engine's clock when it came; now where it is not given.

        Yields:
            A notice where old turns are forgotten, every token, then the answer.

        Raises:
            UsageError: the question is empty, or alone too long for the model.
            ImageError: a picture cannot be read; it is dropped, and the question was not asked.
            ModelError: a graph fails.
        """
        asked = self.engine.clock() if asked is None else asked
        if not text.strip():
            raise UsageError("The question is empty.", "There is nothing to answer.", "Type a question.")
        added = self.wait()
        waited = self.engine.clock() - asked
        before = list(self.messages), list(self.pictures), self.named
        self.messages.append(user(text, images=len(added)))
        self.pictures.extend(added)
        self.named = []
        said = ""
        finished = False
        try:
            if (forgotten := self._make_room()) is not None:
                yield forgotten
            for event in self.engine.answer(self.messages, self.pictures, self.options, asked):
                if isinstance(event, Answer):
                    finished = True
                    self._remember(event, added, waited)
                else:
                    said += event.text
                yield event
        finally:
            if not finished and said:
                self.messages.append(assistant(said))
            elif not finished:
                self.messages, self.pictures = before[0], before[1]
                self.named = before[2] + self.named

    def wait(self) -> tuple[PictureFeatures, ...]:
        """The features of all named pictures, once they are there.

        Raises:
            BluelmError: some cannot be encoded, told together; they are no longer named.
        """
        errors = {item: item.features.exception() for item in self.named}  # waits
        self.named = [item for item in self.named if errors[item] is None]
        raise_all([_expected(error) for error in errors.values() if error is not None])
        return tuple(item.features.result() for item in self.named)

    def _make_room(self) -> Notice | None:
        """Forgets the oldest turns until question and answer fit; none where the question alone does not."""
        limit = self.engine.language.context.limit
        room = limit - min(self.options.max_tokens, limit // 4)
        kept = oldest_kept(
            self.messages, room, lambda messages, pictures: self._tokens(messages, self.pictures[pictures:])
        )
        if kept == 0 or (kept == len(self.messages) - 1 and self._tokens(*self._from(kept)) > limit):
            return None
        pictures = len(self.pictures)
        self.messages, self.pictures = self._from(kept)
        pictures -= len(self.pictures)
        return Notice(_forgotten(kept // 2, pictures, limit), "warning")

    def _from(self, first: int) -> tuple[list[Message], list[PictureFeatures]]:
        """The messages from this one on, and their pictures."""
        return self.messages[first:], self.pictures[count_images(self.messages[:first]) :]

    def _tokens(self, messages: Sequence[Message], pictures: Sequence[PictureFeatures]) -> int:
        return self.engine.prompt_tokens(messages, pictures)

    def _remember(self, answer: Answer, added: tuple[PictureFeatures, ...], waited: float) -> None:
        self.messages.append(assistant(answer.text))
        self.turns.append(Turn(answer, added, waited, sum(picture.encode_s for picture in added)))


def oldest_kept(messages: Sequence[Message], room: int, tokens: Callable[[Sequence[Message], int], int]) -> int:
    """The first message of a conversation's longest end that fits, always a question: the last one at the latest.

    Args:
        messages: questions and answers in turn, a question last.
        room: most tokens.
        tokens: of some messages, given how many pictures lie before them.
    """
    for first in range(0, len(messages) - 1, 2):
        if tokens(messages[first:], count_images(messages[:first])) <= room:
            return first
    return len(messages) - 1


def _forgotten(turns: int, pictures: int, limit: int) -> str:
    what = "the oldest question and its answer" if turns == 1 else f"the {turns} oldest questions and their answers"
    shown = "" if pictures == 0 else " with a picture" if pictures == 1 else f" with {pictures} pictures"
    return f"The model holds {limit:,} tokens: {what}{shown} were forgotten."


def _expected(error: BaseException) -> BluelmError:
    """An error to tell the user; anything else is a bug and goes on."""
    if isinstance(error, BluelmError):
        return error
    raise error
