"""Answers that are numbers or phrases inside a longer reply: MMMU's open questions, MathVista's.

The published codes' rules, as in lmms-eval 0.7.3. MathVista has a hosted model extract what no rule finds; here a reply
whose number is not its only content, or said as `The answer is "…".`, counts as wrong: a lower bound.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from stages.evaluate.reading_metrics import edit_distance

_WITH_COMMAS = re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b")
_SCIENTIFIC = re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+")
_PLAIN = re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])")
_SENTENCES = re.compile(r"\.\s(?=[A-Z])|\n")
_BEFORE_ANSWERS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_SAID = re.compile(r'The answer is "(.*)"\.')
_OPTION = re.compile(r"\(([a-zA-Z])\)")
# What is left of a sentence behind "is " and says nothing.
_EMPTY = frozenset(":,.!?;'")

Value = str | float


def open_match(reply: str, answers: Sequence[str]) -> float:
    """MMMU: 1 where a number of the reply equals an answer (two decimals), or an answer's words stand in a key phrase.

    A phrase is what follows the last "is ", "so ", "=" … of a sentence; the whole reply where there is none.
    """
    wanted = [value for answer in answers for value in _values(answer)]
    for said in _candidates(reply):
        if isinstance(said, str):
            if any(isinstance(value, str) and value in said for value in wanted):
                return 1.0
        elif said in wanted:
            return 1.0
    return 0.0


def mathvista_match(
    reply: str, answer: str, *, choices: Sequence[str] = (), answer_type: str = "text", precision: int = 0
) -> float:
    """MathVista without its extracting model: 1 where what a reply gives, put into the answer's form, equals it.

    Args:
        reply: what the model said.
        answer: the right one.
        choices: the options of a multiple-choice question; the most similar one is what was meant.
        answer_type: "text", "integer", "float" or "list", of a free one.
        precision: decimals of a float.
    """
    said = reply.strip()
    if choices:
        if said not in choices:
            said = _nearest_choice(_quoted(said), choices)
    elif answer_type in ("integer", "float"):
        number = _only_number(said, whole=answer_type == "integer")
        if number is None:
            return 0.0
        said = str(int(number)) if answer_type == "integer" else str(round(number, precision))
    else:
        said = _quoted(said)
    return float(said.strip() == answer.strip())


def _only_number(said: str, *, whole: bool) -> float | None:
    """The number that a reply is, or that it quotes as its answer; a bare one must be whole where that is asked."""
    try:
        return int(said) if whole else float(said)
    except ValueError:
        pass
    try:
        number = float(_quoted(said)) if _SAID.search(said) else None
    except ValueError:
        return None
    return number if number is not None and math.isfinite(number) else None


def _quoted(text: str) -> str:
    found = _SAID.search(text)
    return found[1] if found else text


def _nearest_choice(said: str, choices: Sequence[str]) -> str:
    letter = _OPTION.search(said)
    name = letter[1].upper() if letter else said.strip()
    place = ord(name) - ord("A") if len(name) == 1 else -1
    if 0 <= place < len(choices):
        return choices[place]
    return min(choices, key=lambda choice: edit_distance(name, choice))


def _candidates(reply: str) -> list[Value]:
    phrases = _key_phrases(reply)
    numbers = [number for phrase in phrases for number in _numbers(phrase)]
    return [value for text in [*phrases, *numbers] for value in _values(text)]


def _key_phrases(reply: str) -> list[str]:
    text = reply.strip().strip(".").lower()
    sentences = _SENTENCES.split(text)
    found = []
    for index, sentence in enumerate(sentences):
        marks = (*_BEFORE_ANSWERS, "=") if index == len(sentences) - 1 else _BEFORE_ANSWERS
        shortest = _shortest(sentence.split(mark)[-1].strip() for mark in marks if mark in sentence)
        if shortest and shortest not in _EMPTY:
            found.append(shortest)
    return found or [text]


def _shortest(tails: Iterable[str]) -> str:
    """The first of the shortest; an empty one is passed over until something follows it."""
    best = ""
    for tail in tails:
        if not best or len(tail) < len(best):
            best = tail
    return best


def _numbers(text: str) -> list[str]:
    return [*_WITH_COMMAS.findall(text), *_SCIENTIFIC.findall(text), *_PLAIN.findall(text)]


def _values(text: str) -> list[Value]:
    """A number with two decimals, or words in lower case; a single letter only beside a space."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
    return [f" {text}", f"{text} "] if len(text) == 1 else [text]
