"""Says an answer while it is still being generated: whole sentences go to a thread that synthesizes and plays them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

from stages.device.runtime.generator import Token
from stages.device.speech.outlets import Outlet
from stages.device.speech.recording import Recording
from stages.device.speech.sentences import SentenceStream
from stages.device.speech.spoken_text import spoken

Event = TypeVar("Event")


class Voice(Protocol):
    """Makes sound of text."""

    @property
    def rate(self) -> int:
        """Samples per second of what it says."""
        ...

    def synthesize(self, text: str) -> Recording:
        """The sound of a text.

        Raises:
            AudioError: it cannot be said.
        """
        ...


class Speaker:
    """Says text as it comes.

    Args:
        voice: makes the sound.
        outlet: takes it; closed with the speaker.
    """

    def __init__(self, voice: Voice, outlet: Outlet) -> None:
        self._voice, self._outlet = voice, outlet
        self._sentences = SentenceStream()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="speaker")
        self._waiting: list[Future[None]] = []
        self._answer = 0
        self.said_s = 0.0

    def follow(self, events: Iterable[Event]) -> Iterator[Event]:
        """Passes events on, and says the text of the tokens among them. Who stops listening stops the voice.

        Raises:
            Whatever the events raise; nothing more is said then.
        """
        finished = False
        try:
            for event in events:
                if isinstance(event, Token):
                    self._say_all(self._sentences.push(event.text))
                yield event
            self._say_all(self._sentences.flush())
            finished = True
        finally:
            if not finished:
                self.stop()

    def wait(self) -> None:
        """Waits until all was said; an interruption (Ctrl-C) stops the voice.

        Raises:
            BluelmError: something could not be said.
        """
        finished = False
        try:
            while self._waiting:
                self._waiting[0].result()
                del self._waiting[0]
            finished = True
        finally:
            if not finished:
                self.stop()

    def stop(self) -> None:
        """Drops what was not said yet."""
        self._answer += 1
        self._sentences = SentenceStream()
        for future in self._waiting:
            future.cancel()
        self._waiting.clear()

    def close(self, whole: bool = True) -> None:
        """Says nothing more, and closes the outlet; see `Outlet.close`."""
        self.stop()
        self._thread.shutdown(wait=True)
        self._outlet.close(whole)

    def _say_all(self, sentences: Iterable[str]) -> None:
        for sentence in sentences:
            if text := spoken(sentence):
                self._waiting.append(self._thread.submit(self._say, text, self._answer))

    def _say(self, text: str, answer: int) -> None:
        sound = self._voice.synthesize(text)
        if answer == self._answer:  # else it was stopped meanwhile
            self._outlet.play(sound, lambda: answer != self._answer)
            self.said_s += sound.seconds
