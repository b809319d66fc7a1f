"""Which of several options a reply means: every benchmark with its own rule, none of which asks another model.

| rule | of | a reply that names no option |
|---|---|---|
| `leading_letter` | AI2D | is compared as it is |
| `ranked_letter` | MMStar | the last capital letter that could be one |
| `bracketed_letter` | MMMU | is wrong (the published code draws one at random, or every second run would differ) |
| `inferred_letter` | MMBench | is wrong (the published code asks a hosted model) |
| `yes_or_no` | HallusionBench | "no" |

The rules are those of lmms-eval 0.7.3 (MMBench's and MMMU's are the benchmarks' own); they differ on purpose of their
authors, so a score is only comparable under its suite's rule.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence

_ENDS = ",.!?;:'\""
_LEADING = re.compile(r"^\s*([A-Z])\.")
_PHRASES = (
    "the answer is",
    "answer is",
    "the correct answer is",
    "correct answer is",
    "the best answer is",
    "best answer is",
    "the correct option is",
    "correct option is",
    "the best option is",
    "best option is",
    "the choice is",
    "choice is",
    "the correct choice is",
    "correct choice is",
    "i choose",
    "i select",
    "i pick",
    "my answer is",
    "my choice is",
    "옵션",
    "정답은",
    "답은",
    "답:",
    "答案是",
    "答案为",
    "选",
    "答えは",
)
# How telling a place is, as the rule ranks them.
_START, _END, _PHRASE, _ANYWHERE = 10, 9, 7, 0
_FORMS = (("({})", 6), ("{}.", 5), ("{}:", 4), ("{})", 3), ("{} ", 2))
# What may stand around a letter in MMBench's rule, tried in this order: the first that names one option decides.
_AROUND = (
    *(("", end) for end in (".", ",", ":", ")", ").")),
    ("(", ")"),
    ("(", ")."),
    *((":", end) for end in ("", ",", ".", ")", ").")),
)
_FEW_WORDS, _MANY_WORDS = 3, 5


def letters(count: int) -> str:
    """The names of so many options: "ABC…"."""
    return string.ascii_uppercase[:count]


def leading_letter(reply: str) -> str:
    """The letter before a period that begins the reply, else the reply."""
    found = _LEADING.match(reply)
    return found[1] if found else reply


def ranked_letter(reply: str, options: str = "ABCD") -> str:
    """The letter at the most telling place, the later one among equal places; "" where there is none."""
    text = reply.strip()
    for mark in _ENDS:
        text = text.strip(mark)
    bare, text = text.strip(), f" {text} "
    found = [*_in_forms(text, options), *_after_phrases(text, options)]
    for letter in options:
        if bare.startswith(letter) and not bare[1:2].isalpha():
            found.append((_START, 0, letter))
        if bare.endswith(letter) and not bare[-2:-1].isalpha():
            found.append((_END, len(text) - 1, letter))
    if not found:
        found = [(_ANYWHERE, text.rfind(letter), letter) for letter in options if letter in text]
    return max(found, key=lambda one: one[:2], default=(0, 0, ""))[2]


def bracketed_letter(reply: str, options: Mapping[str, str]) -> str | None:
    """MMMU's rule: a letter in brackets, before a space, before a period, or the option's own words in a long reply.

    Args:
        reply: what the model said.
        options: their texts by letter.
    """
    text = reply
    for mark in ",.!?;:'":
        text = text.strip(mark)
    text = f" {text} "
    for form, place in (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} ")):
        named = [letter for letter in options if form.format(letter) in text]
        if named:
            # `max` takes the first of equals, as the published code does.
            return max(named, key=lambda letter: text.rfind(place.format(letter)))
    lowered = text.lower()
    if len(text.split()) > _MANY_WORDS:
        named = [letter for letter, words in options.items() if words.lower() in lowered]
        if named:
            return max(named, key=lambda letter: lowered.rfind(options[letter].lower()))
    return None


def inferred_letter(reply: str, options: Mapping[str, str]) -> str | None:
    """MMBench's rule: the one letter that stands alone (with marks around it), else the one option whose words occur.

    Args:
        reply: what the model said.
        options: their texts by letter.
    """
    words = reply.split()
    # "A" may be an article in anything longer than a few words.
    if (letter := _single(words)) is not None and not ("A" in words and len(words) > _FEW_WORDS):
        return letter
    for before, after in _AROUND:
        if (letter := _single(words, before, after)) is not None:
            return letter
    lowered = reply.lower()
    named = [letter for letter, text in options.items() if text.lower() in lowered]
    return named[0] if len(named) == 1 else None


def yes_or_no(reply: str) -> str:
    """HallusionBench without a judge: "yes" where the word stands anywhere in the reply, else "no"."""
    return "yes" if "yes" in reply.lower() else "no"


def _single(words: Sequence[str], before: str = "", after: str = "") -> str | None:
    """The letter that stands among the words with these marks, where it is the only one."""
    named = [letter for letter in "ABCDE" if f"{before}{letter}{after}" in words]
    return named[0] if len(named) == 1 else None


def _in_forms(text: str, options: str) -> list[tuple[int, int, str]]:
    return [
        (rank, text.rfind(form.format(letter)), letter)
        for form, rank in _FORMS
        for letter in options
        if form.format(letter) in text
    ]


def _after_phrases(text: str, options: str) -> list[tuple[int, int, str]]:
    found, lowered = [], text.lower()
    for phrase in _PHRASES:
        start = lowered.find(phrase)
        if start < 0:
            continue
        for letter in options:
            place = text.find(letter, start + len(phrase))
            if place >= 0:
                found.append((_PHRASE, place, letter))
    return found
