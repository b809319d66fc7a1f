"""The metrics by name: what each scores, whose rule it is, and what it needs beside reply and answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from stages.evaluate import choices, open_answers, reading_metrics, vqa
from stages.evaluate.metrics import exact_match


@dataclass(frozen=True)
class Key:
    """What a reply is compared with.

    Attributes:
        answers: right answers, at least one; of multiple choice the letter.
        options: of multiple choice, by letter.
        answer_type, precision: MathVista's form of a free answer.
    """

    answers: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict)
    answer_type: str = "text"
    precision: int = 0


@dataclass(frozen=True)
class Metric:
    """A score of one reply, 0 … 1. `note` says what a reader of the score must know."""

    name: str
    score: Callable[[str, Key], float]
    note: str


def _any_exact(reply: str, key: Key) -> float:
    return float(any(exact_match(reply, answer) for answer in key.answers))


def _letter(pick: Callable[[str, Key], str | None]) -> Callable[[str, Key], float]:
    def score(reply: str, key: Key) -> float:
        return float(pick(reply, key) == key.answers[0])

    return score


def _of_answers(score: Callable[[str, Sequence[str]], float]) -> Callable[[str, Key], float]:
    return lambda reply, key: score(reply, key.answers)


def _leading(reply: str, key: Key) -> float:
    """AI2D's: case and punctuation are no matter (`ignore_case`, `ignore_punctuation` of lmms-eval)."""
    return float(_bare(choices.leading_letter(reply)) == _bare(key.answers[0]))


def _bare(text: str) -> str:
    return "".join(one for one in text.lower() if one not in _ASCII_PUNCTUATION)


_ASCII_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


def _mmmu(reply: str, key: Key) -> float:
    if key.options:
        return float(choices.bracketed_letter(reply, key.options) == key.answers[0])
    return open_answers.open_match(reply, key.answers)


def _mathvista(reply: str, key: Key) -> float:
    options = tuple(key.options.values())
    answer, kind, precision = key.answers[0], key.answer_type, key.precision
    return open_answers.mathvista_match(reply, answer, choices=options, answer_type=kind, precision=precision)


_METRICS = (
    Metric("exact", _any_exact, "equal but for case, outer space and final punctuation"),
    Metric("vqa", _of_answers(vqa.vqa_accuracy), "VQAv2: share of ten people, three make it whole"),
    Metric("textvqa", _of_answers(vqa.textvqa_accuracy), "as vqa, with TextVQA's tokenizing"),
    Metric("anls", _of_answers(reading_metrics.anls), "similarity to the nearest answer, 0 below one half"),
    Metric("relaxed", _of_answers(reading_metrics.relaxed_accuracy), "numbers may be 5 % off"),
    Metric("contains", _of_answers(reading_metrics.contains_answer), "OCRBench: the answer stands in the reply"),
    Metric("contains-formula", _of_answers(reading_metrics.contains_formula), "OCRBench's HME100k: without spaces"),
    Metric("contains-mtvqa", _of_answers(reading_metrics.contains_without_periods), "MTVQA: without periods"),
    Metric("choice-leading", _leading, "AI2D: the letter before a period, or the whole reply"),
    Metric(
        "choice-ranked",
        _letter(lambda reply, key: choices.ranked_letter(reply, "".join(key.options) or "ABCD")),
        "MMStar: the letter at the most telling place",
    ),
    Metric(
        "choice-inferred",
        _letter(lambda reply, key: choices.inferred_letter(reply, key.options)),
        "MMBench: one letter alone, or one option's words; what its judge would settle counts as wrong",
    ),
    Metric("mmmu", _mmmu, "MMMU: letter, number or key phrase; a reply that names no option is wrong, not drawn"),
    Metric("mathvista", _mathvista, "MathVista without its extracting model: a lower bound"),
    Metric(
        "yes-no",
        _letter(lambda reply, key: choices.yes_or_no(reply)),
        "HallusionBench without its judge: yes where the word stands in the reply",
    ),
)
METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in _METRICS})
# What MM-Vet asks: a hosted model's judgement, which no rule replaces.
UNSCORED = "none"
