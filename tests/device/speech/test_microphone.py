"""A question out of a stream of sound: from the first word to the silence behind the last; patience ends."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("pocketsphinx", reason="the extra 'speech' is not installed: pip install 'bluelm[speech]'")
pytest.importorskip("espeakng_loader", reason="the extra 'speech' is not installed: pip install 'bluelm[speech]'")

from stages.artifacts.errors import AudioError
from stages.device.speech.espeak import Espeak
from stages.device.speech.microphone import RATE, utterance

FRAME = 480  # samples of 30 ms


def blocks(samples: np.ndarray) -> Iterator[bytes]:
    for start in range(0, len(samples) - FRAME + 1, FRAME):
        yield samples[start : start + FRAME].tobytes()


def test_the_first_question_is_cut_out() -> None:
    said = Espeak("en-us+f3").synthesize("What colour is the shape?").at(RATE).pcm16()
    quiet = np.random.default_rng(0).integers(-5, 5, 2 * RATE).astype(np.int16)
    rest = blocks(np.concatenate([quiet, said, quiet, said, quiet]))
    heard = utterance(rest)
    assert len(said) - 0.5 * RATE < len(heard.samples) < len(said) + 1.7 * RATE
    assert len(list(rest)) * FRAME > len(said) + RATE  # the second was not listened to


def test_patience_ends() -> None:
    with pytest.raises(AudioError, match="Nobody spoke for 15 s"):
        utterance(blocks(np.zeros(60 * RATE, np.int16)))
    with pytest.raises(AudioError, match="Nobody spoke"):
        utterance(iter([]))
