"""Exact match, and how sure a share of right answers is.

Two answers are the same when they are equal after Unicode NFKC, casefolding, dropping space at both ends, one space
for each run of spaces inside, and dropping the punctuation that ends the last sentence (`. , ; : ! ?` and their
full-width forms). Nothing else: "a red circle" is not "red circle", and "3" is not "three".
"""

from __future__ import annotations

import math
import unicodedata
from typing import NamedTuple

_FINAL = ".,;:!?。、，；：！？"
# Two-sided 95 % quantile of the normal distribution.
Z95 = 1.959963984540054


class Interval(NamedTuple):
    """Lower and upper bound of a share, both within 0 … 1."""

    low: float
    high: float


def normalise(answer: str) -> str:
    """The form in which answers are compared."""
    text = " ".join(unicodedata.normalize("NFKC", answer).casefold().split())
    return text.rstrip(_FINAL + " ")


def exact_match(answer: str, truth: str) -> bool:
    """Whether an answer is the right one, up to `normalise`.

    A truth that is nothing but punctuation is compared without dropping it.
    """
    wanted = normalise(truth)
    return normalise(answer) == wanted if wanted else answer.strip() == truth.strip()


def wilson(correct: float, total: int, z: float = Z95) -> Interval:
    """Wilson's score interval of a share, honest also near 0 and 1; the whole range for no questions at all.

    Args:
        correct: right answers; a fraction where they are right in part.
        total: questions.
        z: quantile of the normal distribution; 95 % by default.

    Raises:
        ValueError: more right answers than questions, or a negative count.

    Source: Wilson 1927; Brown, Cai, DasGupta 2001.
    """
    if not 0 <= correct <= total:
        raise ValueError(f"{correct} right of {total}")
    if total == 0:
        return Interval(0.0, 1.0)
    share = correct / total
    widening = 1 + z * z / total
    centre = (share + z * z / (2 * total)) / widening
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / widening
    low = 0.0 if correct == 0 else centre - half
    high = 1.0 if correct == total else centre + half
    return Interval(low, high)
