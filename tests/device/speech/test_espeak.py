"""espeak-ng: sound that is a voice's own; languages and voices by name; what does not exist."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("espeakng_loader", reason="the extra 'speech' is not installed: pip install 'bluelm[speech]'")

from stages.artifacts.errors import UsageError
from stages.device.speech.espeak import Espeak


def test_voices_differ_and_are_found_by_language_and_variant() -> None:
    sounds = [Espeak(voice).synthesize("Hello there.").samples for voice in ("en-us", "en-gb", "en-us+f3", "de")]
    for sound in sounds:
        assert 0.3 < len(sound) / 22_050 < 5 and 0.05 < np.abs(sound).max() <= 1
    assert len({sound.tobytes() for sound in sounds}) == len(sounds)


def test_pace_and_nothing_to_say() -> None:
    slow, fast = (len(Espeak(rate=rate).synthesize("What colour is the shape?").samples) for rate in (0.7, 1.6))
    assert slow > 1.5 * fast
    assert np.abs(Espeak().synthesize("").samples).max(initial=0) == 0


@pytest.mark.parametrize("voice", ["", "xx-none", "en\0us"])
def test_no_such_voice(voice: str) -> None:
    with pytest.raises(UsageError, match="no voice"):
        Espeak(voice)
