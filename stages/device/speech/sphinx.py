"""Speech recognition inside bluelm: pocketsphinx with a grammar of questions, or its free dictation.

The English model comes with the wheel; nothing is downloaded. Free dictation is poor, see recipes/RESULTS.md.
"""

from __future__ import annotations

from typing import Any

from stages.device.speech.grammar import Grammar
from stages.device.speech.jsgf import wrong
from stages.device.speech.missing import need_package
from stages.device.speech.recording import Recording
from stages.device.speech.transcribing import as_question

RATE = 16_000
_SEARCH = "questions"
# pocketsphinx drops sound at the very edges while its filters settle.
_EDGE = bytes(2 * RATE // 4)
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
            decoder.process_raw(_EDGE + recording.at(RATE).pcm16().tobytes() + _EDGE, full_utt=True)
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
        try:
            decoder.add_jsgf_string(_SEARCH, grammar.text)
            decoder.activate_search(_SEARCH)
        except (ValueError, RuntimeError) as error:
            raise wrong(grammar.place, f"pocketsphinx says: {error}") from None
        return decoder
