"""A question from the microphone: from the first word to the silence after the last.

pocketsphinx' endpointer (WebRTC's voice activity detection) says where speech begins and ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from stages.artifacts.errors import AudioError
from stages.device.speech.missing import need_package
from stages.device.speech.recording import Recording

RATE = 16_000
# Seconds: without a word, and of one question, until listening ends; and the silence that ends a question.
PATIENCE = 15.0
LONGEST = 60.0
PAUSE = 0.8


def listen() -> Recording:
    """Records one question.

    Raises:
        MissingExtraError: a package is not installed.
        AudioError: there is no microphone, or nobody spoke.
    """
    size = _endpointer().frame_bytes
    with _blocks(size) as blocks:
        return utterance(blocks)


def utterance(blocks: Iterable[bytes]) -> Recording:
    """The first question in a stream of sound.

    Args:
        blocks: 16-bit samples at 16 kHz, each as long as the endpointer's frames.

    Raises:
        AudioError: nobody spoke within `PATIENCE` seconds.
    """
    endpointer = _endpointer()
    heard: list[bytes] = []
    seconds = 0.0
    for block in blocks:
        if len(block) < endpointer.frame_bytes:
            break
        seconds += endpointer.frame_length
        speech = endpointer.process(block)
        if speech is not None:
            heard.append(speech)
            if not endpointer.in_speech or len(heard) * endpointer.frame_length > LONGEST:
                break
        elif not heard and seconds > PATIENCE:
            break
    if not heard:
        raise AudioError(
            f"Nobody spoke for {seconds:.0f} s.",
            "There is no question to answer.",
            "Speak up, look at the system's microphone settings, or type the question.",
        )
    samples = np.frombuffer(b"".join(heard), np.int16)
    return Recording((samples / 32768.0).astype(np.float32), RATE)


def _endpointer() -> Any:
    library = need_package("pocketsphinx", "pocketsphinx", "listening")
    return library.Endpointer(window=PAUSE, ratio=0.9, sample_rate=RATE)


@contextmanager
def _blocks(size: int) -> Iterator[Iterator[bytes]]:
    """The microphone's sound in blocks of `size` bytes."""
    library = need_package("sounddevice", "sounddevice", "the microphone")
    try:
        with library.RawInputStream(samplerate=RATE, channels=1, dtype="int16") as stream:
            yield (bytes(stream.read(size // 2)[0]) for _ in iter(int, 1))
    except (library.PortAudioError, ValueError) as error:
        raise AudioError(
            f"The microphone cannot be used: {error}.",
            "A question was to be heard.",
            "Look at the system's sound settings, or name a recording: --listen FILE.wav",
        ) from None
