"""A spoken question: a recording or the microphone, and who makes text of it."""

from __future__ import annotations

from pathlib import Path

from stages.device.speech.microphone import listen
from stages.device.speech.recording import read_wav
from stages.device.speech.transcribing import Transcriber, understood


class Listener:
    """Hears questions.

    Args:
        transcriber: makes text of sound.
    """

    def __init__(self, transcriber: Transcriber) -> None:
        self._transcriber = transcriber

    def question(self, path: Path | None) -> str:
        """What is asked in a wav file, or at the microphone where none is named.

        Raises:
            MissingExtraError: the microphone needs a package that is not installed.
            AudioError: there is no sound, or nothing in it was understood.
        """
        recording = read_wav(path) if path is not None else listen()
        return understood(self._transcriber.transcribe(recording), str(path) if path is not None else "The microphone")
