"""Speech recognition inside bluelm: pocketsphinx with a grammar of questions, or its free dictation.

The English model comes with the wheel; nothing is downloaded. Free dictation is poor, see recipes/RESULTS.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.device.speech.grammar import Grammar
from stages.device.speech.jsgf import wrong
from stages.device.speech.missing import need_package
from stages.device.speech.pronunciations import british
from stages.device.speech.recording import Recording
from stages.device.speech.transcribing import as_question

RATE = 16_000
_SEARCH = "questions"
# pocketsphinx drops sound at the very edges while its filters settle: so many seconds are put before and behind.
_EDGE_S = 0.25
# Loudness of the loudest sample, and of noise below it: the model has never heard perfect silence, whose logarithm is
# far below all else and pulls the mean that sound is normalised by. Synthesized speech is full of it (RESULTS.md).
_PEAK, _NOISE = 0.7, 0.002
# With a grammar, more paths are followed than usual: few words may come next, and a path that is dropped early is a
# whole question lost. The search over the lattice of words (bestpath) gives back questions without their end.
_PATIENT = {"beam": 1e-80, "wbeam": 1e-60, "pbeam": 1e-80, "maxhmmpf": 100_000, "bestpath": False}


class Sphinx:
    """pocketsphinx.

    Args:
        grammar: what may be said; None for free dictation.

    Raises:
        MissingExtraError: pocketsphinx is not installed.
        UsageError: the grammar has words that the recogniser cannot pronounce.
    """

    def __init__(self, grammar: Grammar | None) -> None:
        self._library = need_package("pocketsphinx", "pocketsphinx", "listening")
        self._decoder = self._open() if grammar is None else self._open_with(grammar)

    def transcribe(self, recording: Recording) -> str:
        """What was said; see `Transcriber`."""
        decoder = self._decoder
        decoder.start_utt()
        try:
            # As one utterance, so that the loudness is normalised over all of it and not over what came before.
            decoder.process_raw(as_heard(recording).pcm16().tobytes(), full_utt=True)
        finally:
            decoder.end_utt()
        found = decoder.hyp()
        return as_question(found.hypstr) if found is not None else ""

    def _open(self) -> Any:
        return self._library.Decoder(samprate=RATE, loglevel="FATAL")

    def _open_with(self, grammar: Grammar) -> Any:
        decoder = self._library.Decoder(lm=None, samprate=RATE, loglevel="FATAL", **_PATIENT)
        missing = sorted(word for word in grammar.words if decoder.lookup_word(word) is None)
        if missing:
            more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
            raise wrong(grammar.place, f"the recogniser knows no pronunciation of {', '.join(missing[:10])}{more}")
        _teach(decoder, grammar)
        try:
            decoder.add_jsgf_string(_SEARCH, grammar.text)
            decoder.activate_search(_SEARCH)
        except (ValueError, RuntimeError) as error:
            raise wrong(grammar.place, f"pocketsphinx says: {error}") from None
        return decoder


def as_heard(recording: Recording) -> Recording:
    """A recording as loud as all others, in a quiet room: with a little noise, the same each time."""
    samples = recording.at(RATE).samples
    edge: NDArray[np.float32] = np.zeros(int(_EDGE_S * RATE), np.float32)
    peak = float(np.abs(samples).max(initial=0.0))
    loud = np.concatenate([edge, samples * (_PEAK / peak if peak else 1.0), edge])
    noise = np.random.default_rng(0).normal(0, _NOISE, len(loud))
    return Recording((loud + noise).astype(np.float32), RATE)


def _teach(decoder: Any, grammar: Grammar) -> None:
    """Adds British pronunciations of a grammar's words, beside those that the recogniser knows."""
    for word in sorted(word for word in grammar.words if "(" not in word):
        known = [decoder.lookup_word(word)]
        while (other := decoder.lookup_word(f"{word}({len(known) + 1})")) is not None:
            known.append(other)
        for spoken in list(known):
            made = " ".join(british(spoken.split()))
            if made not in known:
                known.append(made)
                decoder.add_word(f"{word}({len(known)})", made, True)
