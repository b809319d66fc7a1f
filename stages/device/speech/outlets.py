"""Where sound goes: the loudspeaker, or one wav file."""

from __future__ import annotations

import os
import wave
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from stages.artifacts.atomic_file import atomic_file
from stages.artifacts.errors import AudioError, UsageError
from stages.device.speech.missing import need_package
from stages.device.speech.recording import Recording

# Samples that are written to the loudspeaker at once: a stop takes effect within 1/20 s.
_BLOCK = 1024


class Outlet(Protocol):
    """Takes sound, one piece after the other."""

    def play(self, sound: Recording, stopped: Callable[[], bool]) -> None:
        """Says a piece, and returns when it was said, or soon after `stopped` begins to be true."""
        ...

    def close(self, whole: bool) -> None:
        """Ends everything. A file is kept where the whole of it was said."""
        ...


class Loudspeaker:
    """The system's loudspeaker, through PortAudio.

    Args:
        rate: samples per second of what will be played.

    Raises:
        MissingExtraError: sounddevice is not installed.
        AudioError: there is no loudspeaker.
    """

    def __init__(self, rate: int) -> None:
        self._library = need_package("sounddevice", "sounddevice", "the loudspeaker")
        try:
            self._stream: Any = self._library.OutputStream(samplerate=rate, channels=1, dtype="int16")
        except (self._library.PortAudioError, ValueError) as error:
            raise _no_loudspeaker(error) from None

    def play(self, sound: Recording, stopped: Callable[[], bool]) -> None:
        """Says a piece; see `Outlet`."""
        samples = sound.pcm16().reshape(-1, 1)
        try:
            self._stream.start()
            for start in range(0, len(samples), _BLOCK):
                if stopped():
                    self._stream.abort()
                    return
                self._stream.write(samples[start : start + _BLOCK])
            self._stream.stop()  # plays what is buffered to its end
        except self._library.PortAudioError as error:
            raise _no_loudspeaker(error) from None

    def close(self, whole: bool) -> None:
        """Lets go of the loudspeaker."""
        self._stream.close()


class WavFile:
    """One wav file of everything that is said; it appears, whole, when it is closed.

    Args:
        path: the file; one that is there is replaced.
        rate: samples per second of what will be said.

    Raises:
        UsageError: there can be no such file.
    """

    def __init__(self, path: Path, rate: int) -> None:
        check_target(path)
        self._rate = rate
        self._open = ExitStack()
        draft = self._open.enter_context(atomic_file(path, durable=False))
        self._file = wave.open(self._open.enter_context(draft.open("wb")), "wb")  # noqa: SIM115 (closed in close)
        self._file.setparams((1, 2, rate, 0, "NONE", ""))

    def play(self, sound: Recording, stopped: Callable[[], bool]) -> None:
        """Adds a piece; see `Outlet`."""
        self._file.writeframesraw(sound.at(self._rate).pcm16().astype("<i2").tobytes())

    def close(self, whole: bool) -> None:
        """Puts the file in its place, or drops it."""
        self._file.close()
        if whole:
            self._open.close()
        else:
            self._open.__exit__(GeneratorExit, GeneratorExit(), None)


def check_target(path: Path) -> None:
    """Sees that a file can be written.

    Raises:
        UsageError: it cannot.
    """
    folder = path.parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        problem = "is a folder" if path.is_dir() else f"cannot be written: {folder} is no folder that can be written to"
        raise UsageError(f"--speak-to: {path} {problem}.", "The spoken answer goes there.", "Name another file.")


def _no_loudspeaker(error: BaseException) -> AudioError:
    return AudioError(
        f"The loudspeaker cannot be used: {error}.",
        "The answer was to be said.",
        "Look at the system's sound settings, or write a file: --speak-to FILE.wav",
    )
