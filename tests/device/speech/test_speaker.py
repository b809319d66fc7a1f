"""Answers are said while they are made: with a slow generator and fakes, without clocks."""

from __future__ import annotations

import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from stages.artifacts.errors import AudioError, BluelmError, UsageError
from stages.device.runtime.generator import Token
from stages.device.speech.outlets import WavFile
from stages.device.speech.recording import Recording, read_wav
from stages.device.speech.speaker import Speaker
from stages.device.speech.speaking import speaking

WAIT = 30  # seconds until a test that hangs fails


class Tones:
    """A voice whose sound has one sample a letter."""

    rate = 2000

    def __init__(self) -> None:
        self.texts: list[str] = []

    def synthesize(self, text: str) -> Recording:
        if "unsayable" in text:
            raise AudioError("It cannot be said.", "Because.", "Say another thing.")
        self.texts.append(text)
        return Recording(np.full(len(text), 0.5, np.float32), self.rate)


class Room:
    """An outlet that tells when something is played, and may hold it until it is stopped."""

    def __init__(self, hold: bool = False) -> None:
        self.played: list[int] = []
        self.begun = Event()
        self.whole: bool | None = None
        self._hold = hold

    def play(self, sound: Recording, stopped: Callable[[], bool]) -> None:
        self.played.append(len(sound.samples))
        self.begun.set()
        while self._hold and not stopped():
            Event().wait(0.001)

    def close(self, whole: bool) -> None:
        self.whole = whole


def tokens(*texts: str) -> list[Token]:
    return [Token(index, text) for index, text in enumerate(texts)]


def test_the_first_sentence_is_said_before_the_second_is_generated() -> None:
    voice, room = Tones(), Room()

    def generate() -> Iterator[Token]:
        yield from tokens("It is ", "red. ", "A")
        # The generator goes on only when the first sentence is being said: it would wait for ever otherwise.
        assert room.begun.wait(WAIT)
        yield from tokens("nd it is ", "round.")

    speaker = Speaker(voice, room)
    shown = "".join(token.text for token in speaker.follow(generate()))
    speaker.wait()
    speaker.close()
    assert shown == "It is red. And it is round."
    assert voice.texts == ["It is red.", "And it is round."]
    assert speaker.said_s == pytest.approx(sum(room.played) / 2000)


def test_who_stops_listening_stops_the_voice() -> None:
    voice, room = Tones(), Room(hold=True)
    speaker = Speaker(voice, room)
    events = speaker.follow(tokens("One. ", "Two. ", "Three. ", "Four."))
    next(events), next(events), next(events)
    assert room.begun.wait(WAIT)
    events.close()
    speaker.close()  # would hang if what is being played went on
    assert voice.texts[0] == "One." and len(room.played) == 1
    assert "Four." not in voice.texts


def test_an_interrupted_answer_leaves_nothing_for_the_next() -> None:
    voice, room = Tones(), Room()
    speaker = Speaker(voice, room)

    def broken() -> Iterator[Token]:
        yield Token(0, "Half a sent")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(speaker.follow(broken()))
    list(speaker.follow(tokens("Whole.")))
    speaker.wait()
    speaker.close()
    assert voice.texts == ["Whole."]


def test_what_cannot_be_said_is_told_and_ends_it() -> None:
    speaker = Speaker(Tones(), Room())
    list(speaker.follow(tokens("This is unsayable. ", "This is not.")))
    with pytest.raises(BluelmError, match="cannot be said"):
        speaker.wait()
    list(speaker.follow(tokens("Again.")))
    speaker.wait()
    speaker.close()


def test_one_wav_file_of_all_answers(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"old")
    with speaking(Tones(), path) as speaker:
        list(speaker.follow(tokens("It is red. ", "**Really.**")))
        speaker.wait()
        list(speaker.follow(tokens("Yes.")))
        assert path.read_bytes() == b"old"  # until all was said
    assert len(read_wav(path).samples) == len("It is red.") + len("Really.") + len("Yes.")
    with wave.open(str(path)) as file:
        assert file.getparams()[:4] == (1, 2, 2000, 21)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), AudioError("a", "b", "c")])
def test_an_error_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"old")
    with pytest.raises(type(error)), speaking(Tones(), path) as speaker:
        list(speaker.follow(tokens("It is red.")))
        raise error
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_an_answer_without_words_is_a_file_without_sound(tmp_path: Path) -> None:
    with speaking(Tones(), tmp_path / "a.wav") as speaker:
        list(speaker.follow(tokens("---")))
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getframerate(), file.getnframes()) == (2000, 0)


def test_places_where_no_file_can_be(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none" / "a.wav"):
        with pytest.raises(UsageError, match="--speak-to"):
            WavFile(path, 1000)
