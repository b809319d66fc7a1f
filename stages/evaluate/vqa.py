"""VQA accuracy (VQAv2, TextVQA): an answer is as right as the share of people who gave it, three making it whole.

Each of the ten answers is left out in turn, and the reply scores min(1, agreeing others / 3); the mean of these is the
score. Before comparing, both sides lose punctuation, articles and case, number words become digits, and contractions
get their apostrophes back.

Source: Antol et al. 2015 and the VQA evaluation code's published rules, as lmms-eval 0.7.3 applies them: VQAv2 without,
TextVQA with the tokenizing step before. Known oddities of those rules are kept, since scores are compared with others':
"let's" keeps its apostrophe, a period before a digit stays, at most 32 other periods go.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

_ARTICLES = frozenset(("a", "an", "the"))
_DIGITS = {
    word: str(value)
    for value, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
} | {"none": "0"}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"(?<=\d),+(?=\d)")
_PERIOD = re.compile(r"\.(?!\d)")
_MOST_PERIODS = 32
# As many others as must agree for a whole point.
_ENOUGH = 3

# One apostrophe: found by the word without it.
_CONTRACTIONS = """
    'twas ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's
    isn't it'd it'll ma'am might've mightn't must've mustn't needn't not've o'clock oughtn't shan't should've shouldn't
    somebody'll somebody's someone'd someone'll someone's something'd something'll that's there'd there're there's
    they'd they'll they're they've wasn't we've weren't what'll what're what's what've when's where'd where's where've
    who'd who'll who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
"""
# Two: found by the word that lacks either of them.
_DOUBLE_CONTRACTIONS = """
    couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've something'd've
    there'd've they'd've we'd've who'd've wouldn't've y'all'll you'd've
"""
_IRREGULAR = {
    "ow's'at": "'ow's'at",
    "'ows'at": "'ow's'at",
    "'ow'sat": "'ow's'at",
    "somebody'd": "somebodyd",
    "yall'd've": "y'all'd've",
    "y'alld've": "y'all'd've",
    "y'all'dve": "y'all'd've",
}


@cache
def contractions() -> dict[str, str]:
    """Words that lack apostrophes, and what they become."""
    table = {word.replace("'", ""): word for word in _CONTRACTIONS.split()}
    for word in _DOUBLE_CONTRACTIONS.split():
        first = word.index("'")
        second = word.index("'", first + 1)
        table[word[:first] + word[first + 1 :]] = table[word[:second] + word[second + 1 :]] = word
    return table | _IRREGULAR


def normalise_vqa(answer: str) -> str:
    """The form in which VQAv2 compares answers."""
    text = answer.replace("\n", " ").replace("\t", " ").strip()
    return _plain_words(_without_punctuation(text))


def normalise_textvqa(answer: str) -> str:
    """The form in which TextVQA compares answers: commas, question marks and the space before 's go first."""
    text = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return _plain_words(_without_punctuation(text.replace("\n", " ").replace("\t", " ").strip()))


def vqa_accuracy(reply: str, answers: Sequence[str]) -> float:
    """VQAv2's score of a reply, 0 … 1.

    Args:
        reply: what the model said.
        answers: what people said, ten as a rule; of a single one nothing can agree, and the score is 0.

    Raises:
        ValueError: no answers.
    """
    return _leave_one_out(normalise_vqa(reply), [normalise_vqa(answer) for answer in answers])


def textvqa_accuracy(reply: str, answers: Sequence[str]) -> float:
    """TextVQA's score of a reply, 0 … 1; as `vqa_accuracy` with its own tokenizing.

    Raises:
        ValueError: no answers.
    """
    return _leave_one_out(normalise_textvqa(reply), [normalise_textvqa(answer) for answer in answers])


def _leave_one_out(reply: str, answers: Sequence[str]) -> float:
    if not answers:
        raise ValueError("no answer to compare with")
    agreeing = sum(answer == reply for answer in answers)
    shares = [min(1.0, (agreeing - (answer == reply)) / _ENOUGH) for answer in answers]
    return sum(shares) / len(shares)


def _without_punctuation(text: str) -> str:
    """Marks beside a space, or anywhere in a text with a comma in a number, vanish; others become spaces."""
    drop_all = _COMMA_IN_NUMBER.search(text) is not None
    cleaned = text
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        cleaned = cleaned.replace(mark, "" if drop_all or beside_space else " ")
    return _PERIOD.sub("", cleaned, count=_MOST_PERIODS)


def _plain_words(text: str) -> str:
    words = (_DIGITS.get(word, word) for word in text.lower().split())
    return " ".join(contractions().get(word, word) for word in words if word not in _ARTICLES)
