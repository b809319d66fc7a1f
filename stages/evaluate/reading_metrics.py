"""Metrics of documents and charts: ANLS (DocVQA), relaxed accuracy (ChartQA), containment (OCRBench, MTVQA).

Each is as lmms-eval 0.7.3 computes it, so that scores can stand beside published ones; where its rule is looser or
stricter than a paper's, the function says so.
"""

from __future__ import annotations

from collections.abc import Sequence

# Below this similarity an answer counts nothing (Biten et al. 2019).
ANLS_THRESHOLD = 0.5
# ChartQA (Masry et al. 2022, Sec. 5.1): numbers may be 5 % off.
RELAXED_SHARE = 0.05
_FULL_WIDTH = range(0xFF01, 0xFF5F)
_FULL_TO_ASCII = 0xFEE0
_IDEOGRAPHIC_SPACE = "\u3000"


def edit_distance(one: str, other: str) -> int:
    """Levenshtein's distance: insertions, deletions and substitutions of characters."""
    short, long = sorted((one, other), key=len)
    row = list(range(len(short) + 1))
    for index, character in enumerate(long, start=1):
        before, row[0] = row[0], index
        for place, wanted in enumerate(short, start=1):
            step = min(row[place] + 1, row[place - 1] + 1, before + (character != wanted))
            before, row[place] = row[place], step
    return row[-1]


def anls(reply: str, answers: Sequence[str]) -> float:
    """Average normalised Levenshtein similarity: that to the nearest answer, 0 where it is below one half.

    Case and runs of space are no differences, yet the length that a distance is divided by counts them all.

    Raises:
        ValueError: no answers.
    """
    if not answers:
        raise ValueError("no answer to compare with")
    said = " ".join(reply.lower().split())
    shares = []
    for answer in answers:
        # Some letters have another length in upper case (ß): that is the one that counts.
        length = max(len(answer.upper()), len(reply.upper()))
        distance = edit_distance(" ".join(answer.lower().split()), said)
        shares.append(distance / length if length else 0.0)
    similarity = 1 - min(shares)
    return similarity if similarity >= ANLS_THRESHOLD else 0.0


def relaxed_accuracy(reply: str, answers: Sequence[str]) -> float:
    """1 where a number is within 5 % of an answer, or a text is equal to one but for case.

    A percentage is a hundredth; "1,000" and "$5" are texts; an answer of 0 wants the same text.
    """
    return float(any(_relaxed(reply, answer) for answer in answers))


def contains_answer(reply: str, answers: Sequence[str]) -> float:
    """OCRBench: 1 where an answer stands somewhere in the reply. Case, line ends and full-width forms are no matter."""
    said = _ocr_text(reply.strip())
    return float(any(_ocr_text(answer) in said for answer in answers))


def contains_formula(reply: str, answers: Sequence[str]) -> float:
    """OCRBench's handwritten formulas (HME100k): as `contains_answer`, but case matters and no space does."""
    said = _spaceless(reply)
    return float(any(_spaceless(answer) in said for answer in answers))


def contains_without_periods(reply: str, answers: Sequence[str]) -> float:
    """MTVQA: 1 where an answer stands somewhere in the reply; case, outer space and periods are no matter."""
    said = _undotted(reply)
    return float(any(_undotted(answer) in said for answer in answers))


def _relaxed(reply: str, answer: str) -> bool:
    said, wanted = _number(reply), _number(answer)
    if said is not None and wanted:
        return abs(said - wanted) / abs(wanted) <= RELAXED_SHARE
    return reply.lower() == answer.lower()


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def _ocr_text(text: str) -> str:
    folded = "".join(
        chr(ord(one) - _FULL_TO_ASCII) if ord(one) in _FULL_WIDTH else " " if one == _IDEOGRAPHIC_SPACE else one
        for one in text
    )
    return folded.lower().strip().replace("\n", " ")


def _spaceless(text: str) -> str:
    return text.strip().replace("\n", " ").replace(" ", "")


def _undotted(text: str) -> str:
    return text.strip().lower().replace(".", "")
