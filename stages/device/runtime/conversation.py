"""A conversation: pictures named, questions asked, turns remembered; what a terminal or a server drives.

A picture is encoded from the moment it is named; it belongs to the next question. A question that fails leaves the
conversation as it was before it, with its pictures still waiting; an interrupted answer stays as far as it came.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.artifacts.errors import BluelmError, UsageError, raise_all
from stages.device.imaging.loading import read_size
from stages.device.prompt.messages import assistant, user
from stages.device.runtime.album import PictureFeatures
from stages.device.runtime.engine import Answer, AnswerOptions, Engine
from stages.device.runtime.generator import Token


@dataclass(frozen=True)
class Named:
    """A picture that waits for its question: its path and, some time, its features."""

    path: Path
    features: Future[PictureFeatures]


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
    """

    def __init__(self, engine: Engine, options: AnswerOptions | None = None) -> None:
        self.engine, self.options = engine, options or AnswerOptions()
        self.reset()

    def reset(self) -> None:
        """Forgets all turns and pictures; their features stay in the album."""
        self.messages: list[dict[str, Any]] = []
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
        named = Named(path, self.engine.album.add(path))
        self.named.append(named)
        return named

    def ask(self, text: str) -> Generator[Token | Answer, None, None]:
        """Asks about everything named so far.

        Yields:
            Every token, then the answer.

        Raises:
            UsageError: the question is empty, or the conversation no longer fits the model.
            ImageError: a picture cannot be read; it is dropped, and the question was not asked.
            ModelError: a graph fails.
        """
        asked = time.perf_counter()
        if not text.strip():
            raise UsageError("The question is empty.", "There is nothing to answer.", "Type a question.")
        added = self._wait()
        waited = time.perf_counter() - asked
        before = len(self.messages), len(self.pictures), self.named
        self.messages.append(user(text, images=len(added)))
        self.pictures.extend(added)
        self.named = []
        said = ""
        finished = False
        try:
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
                del self.messages[before[0] :], self.pictures[before[1] :]
                self.named = before[2] + self.named

    def _wait(self) -> tuple[PictureFeatures, ...]:
        """The features of all named pictures; drops those that fail and raises their errors together."""
        errors = {item: item.features.exception() for item in self.named}  # waits
        self.named = [item for item in self.named if errors[item] is None]
        raise_all([_expected(error) for error in errors.values() if error is not None])
        return tuple(item.features.result() for item in self.named)

    def _remember(self, answer: Answer, added: tuple[PictureFeatures, ...], waited: float) -> None:
        self.messages.append(assistant(answer.text))
        self.turns.append(Turn(answer, added, waited, sum(picture.encode_s for picture in added)))


def _expected(error: BaseException) -> BluelmError:
    """An error to tell the user; anything else is a bug and goes on."""
    if isinstance(error, BluelmError):
        return error
    raise error
