"""A voice and an outlet by their names, held open while answers are said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.device.speech.espeak import Espeak
from stages.device.speech.outlets import Loudspeaker, WavFile
from stages.device.speech.piper import Piper
from stages.device.speech.speaker import Speaker, Voice


def open_voice(name: str, rate: float = 1.0) -> Voice:
    """A voice.

    Args:
        name: a voice of espeak-ng, or the path of a piper voice (`NAME.onnx`).
        rate: how fast; 1 is usual.

    Raises:
        MissingExtraError: a package is not installed.
        UsageError: there is no such voice.
        AudioError: it cannot be used.
    """
    return Piper(Path(name), rate) if name.endswith(".onnx") else Espeak(name, rate)


@contextmanager
def speaking(voice: Voice, file: Path | None = None) -> Iterator[Speaker]:
    """A speaker into a wav file, or to the loudspeaker where none is named.

    The file appears when all was said; an error or an interruption leaves none, and one that was there as it was.

    Raises:
        BluelmError: the outlet cannot be used.
    """
    speaker = Speaker(voice, Loudspeaker(voice.rate) if file is None else WavFile(file, voice.rate))
    finished = False
    try:
        yield speaker
        speaker.wait()
        finished = True
    finally:
        speaker.close(finished)
