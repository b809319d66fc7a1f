"""British pronunciations by rule, against words written down by hand; what the recogniser makes of silence."""

from __future__ import annotations

import random

import numpy as np
import pytest

from stages.device.speech.grammar import parse_grammar, shipped_grammar
from stages.device.speech.pronunciations import british
from stages.device.speech.recording import Recording
from stages.device.speech.sphinx import RATE, Sphinx, as_heard


@pytest.mark.parametrize(
    ("american", "said"),
    [
        ("N AH M B ER", "N AH M B AH"),  # number
        ("K AA R", "K AA"),  # car
        ("DH EH R", "DH EH AH"),  # there
        ("HH IH R", "HH IH AH"),  # here
        ("F AO R", "F AO"),  # for
        ("B AA T AH M", "B AO T AH M"),  # bottom
        ("L AE S T", "L AA S T"),  # last
        ("K AE T", "K AE T"),  # cat
        ("R EH D", "R EH D"),  # red
        ("AE R OW", "AE R OW"),  # arrow: an r between vowels stays
        ("P ER ER", "P AH R AH"),
        ("", ""),
    ],
)
def test_words_as_they_are_said_in_the_south_of_england(american: str, said: str) -> None:
    assert british(american.split()) == tuple(said.split())


def test_a_recording_becomes_as_loud_as_all_others_and_is_never_silent() -> None:
    rng = np.random.default_rng(1)
    speech = np.zeros(RATE, np.float32)
    speech[4000:8000] = rng.normal(0, 0.1, 4000)
    loud, soft = as_heard(Recording(speech, RATE)).samples, as_heard(Recording(speech / 50, RATE)).samples
    assert len(loud) == RATE + RATE // 2
    np.testing.assert_allclose(loud, soft, atol=1e-6)
    assert np.array_equal(as_heard(Recording(speech, RATE)).samples, loud)
    assert np.abs(loud).max() == pytest.approx(0.7, abs=0.01)
    windows = loud[: len(loud) // 400 * 400].reshape(-1, 400).std(axis=1)
    assert 0.0015 < windows.min() < 0.0025
    assert np.isfinite(as_heard(Recording(np.zeros(100, np.float32), RATE)).samples).all()


def test_the_recogniser_knows_both_ways_to_say_a_word() -> None:
    pytest.importorskip("pocketsphinx", reason="the extra 'speech' is not installed: pip install 'bluelm[speech]'")
    hears = Sphinx(parse_grammar("#JSGF V1.0; grammar g; public <q> = number | cat;", "here"))
    known, place = [], ""
    while (spoken := hears._decoder.lookup_word(f"number{place}")) is not None:
        known.append(spoken)
        place = f"({len(known) + 1})"
    assert {"N AH M B ER", "N AH M B AH"} <= set(known) and len(known) == len(set(known))
    assert hears._decoder.lookup_word("cat(2)") is None


def test_a_british_voice_is_heard() -> None:
    pytest.importorskip("pocketsphinx", reason="the extra 'speech' is not installed: pip install 'bluelm[speech]'")
    pytest.importorskip("espeakng_loader", reason="the extra 'speech' is not installed: pip install 'bluelm[speech]'")
    from stages.device.speech.espeak import Espeak
    from stages.device.speech.transcribing import as_question

    grammar = shipped_grammar()
    hears, says = Sphinx(grammar), Espeak("en-gb", 1.0)
    questions = [as_question(grammar.draw(random.Random(seed))) for seed in range(6)]
    heard = [hears.transcribe(says.synthesize(question)) for question in questions]
    assert sum(one == other for one, other in zip(questions, heard, strict=True)) >= 4
