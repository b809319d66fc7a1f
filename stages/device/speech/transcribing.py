"""From words to a question, and who makes words of sound."""

from __future__ import annotations

import re
from typing import Protocol

from stages.artifacts.errors import AudioError
from stages.device.speech.recording import Recording

# With these a request begins; all else that is heard is a question.
_REQUESTS = {"read", "name", "count", "describe", "copy", "write", "tell", "please", "give", "list", "look", "say"}
# After these a number is a label, and written in digits: "line 2", but "which one".
_NUMBERED = {"line", "column", "row", "item", "number", "page", "button", "picture"}
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBERS)}
# pocketsphinx marks the second pronunciation of a word: "read(2)".
_VARIANT = re.compile(r"\(\d+\)\Z")


class Transcriber(Protocol):
    """Makes text of sound."""

    def transcribe(self, recording: Recording) -> str:
        """What was said, as a question; empty where nothing was understood.

        Raises:
            AudioError: the recogniser fails.
        """
        ...


def as_question(words: str) -> str:
    """Words as a recogniser writes them to a question as people write it: capital, digits, mark at the end.

    The models were trained on questions in that form.
    """
    said = [_VARIANT.sub("", word) for word in words.split()]
    if not said:
        return ""
    pairs = zip(["", *said], said, strict=False)
    written = " ".join(_DIGITS.get(word, word) if before in _NUMBERED else word for before, word in pairs)
    written = re.sub(r"\bi\b", "I", written)
    return written[0].upper() + written[1:] + ("." if said[0] in _REQUESTS else "?")


def understood(text: str, place: str) -> str:
    """The text where there is one.

    Raises:
        AudioError: nothing was understood.
    """
    if text:
        return text
    raise AudioError(
        f"{place}: nothing was understood.",
        "By default only the question forms of a grammar are heard (stages/device/speech/questions.jsgf).",
        "Ask in one of its forms, name a grammar of your own with --grammar, or take --dictation or --asr FOLDER.",
    )
