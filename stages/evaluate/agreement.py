"""How far two models part on the same text: next tokens, probabilities, and whether the answer would be right.

Both are given the right answers (teacher forcing): at each place a model says how likely every next token is, knowing
all before it. So one reading of a question gives all figures, and nothing has to be generated:

    top-1 agreement   how often both have the same most likely token
    KL                mean of Σ p · (log p − log q) over places, in nats; p is the first model's
    perplexity        exp of the mean −log of what stands there, of each model
    exact match       whether a model's most likely tokens are the answer's, all of them and the one that ends it: it
                      would answer so greedily

What the assistant says counts apart from the other text of the prompts, of which models know most by heart.
Intervals are 95 % by bootstrap over pictures with all their questions (a question without a picture by itself), since
the tokens of one answer and the answers about one picture are not independent; where hardly any picture stands apart,
those of shares are as wide as Wilson's (`bootstrap.py`).

Shapes: P places, V vocabulary, Q questions, G pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from stages.evaluate.bootstrap import by_group, difference_interval, percentiles, share_interval
from stages.evaluate.metrics import Interval
from stages.evaluate.questions import Question

RESAMPLES = 2000
Floats = NDArray[np.float64]
# Widens a drawn interval by what stands in each group: `share_interval`, `difference_interval`.
Honest = Callable[[Interval, Floats, Floats], Interval]


class Reading(Protocol):
    """One question read with its answer in place.

    Attributes:
        tokens: what stands at the places [P].
        is_answer: which of them the assistant said [P], its closing token included.
        logits: what the model expected there [P, V], float32.
    """

    @property
    def tokens(self) -> NDArray[np.int64]: ...
    @property
    def is_answer(self) -> NDArray[np.bool_]: ...
    @property
    def logits(self) -> NDArray[np.float32]: ...


class Reader(Protocol):
    """A model that reads questions with their answers, in the same order."""

    def __call__(self, questions: Sequence[Question]) -> Iterator[Reading]: ...


@dataclass(frozen=True)
class StoredReading:
    """A reading out of a `ReadingStore`."""

    tokens: NDArray[np.int64]
    is_answer: NDArray[np.bool_]
    logits: NDArray[np.float32]


class ReadingStore:
    """Readings of one model on disk, so that the next model finds the memory free."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._places: list[tuple[NDArray[np.int64], NDArray[np.bool_], int]] = []
        self._width = 0

    def __len__(self) -> int:
        return len(self._places)

    def keep(self, readings: Iterable[Reading]) -> Iterator[int]:
        """Writes readings, telling after each how many are there."""
        with self._file.open("wb") as file:
            for reading in readings:
                self._width = reading.logits.shape[1]
                self._places.append((reading.tokens, reading.is_answer, file.tell()))
                file.write(np.ascontiguousarray(reading.logits, np.float32).tobytes())
                yield len(self._places)

    def __getitem__(self, index: int) -> StoredReading:
        tokens, is_answer, start = self._places[index]
        count = len(tokens) * self._width
        logits = np.fromfile(self._file, np.float32, count, offset=start).reshape(len(tokens), self._width)
        return StoredReading(tokens, is_answer, logits)


class Tally(NamedTuple):
    """Places of one question: how many, how many had the same top token, and the summed KL and −log of both models."""

    tokens: int
    same: int
    kl: float
    first_nats: float
    second_nats: float


@dataclass(frozen=True)
class Compared:
    """One question through both models; `text` is all places, and None where a model reads answers alone."""

    question: Question
    answer: Tally
    text: Tally | None
    first_right: bool
    second_right: bool

    @property
    def group(self) -> str:
        """What is drawn together when uncertainty is told: its pictures, or itself."""
        return " ".join(path.as_posix() for path in self.question.pictures) or self.question.name


def compare(questions: Sequence[Question], store: ReadingStore, second: Iterable[Reading]) -> Iterator[Compared]:
    """Holds a second model's readings against the first one's.

    Raises:
        ValueError: the two read different tokens (models with different tokenizers), or another number of questions.
    """
    for index, (question, other) in enumerate(zip(questions, second, strict=True)):
        one = store[index]
        first, there = _common(one, other)
        if not np.array_equal(first.tokens, there.tokens):
            raise ValueError(f"the models read {question.name} as different tokens")
        yield _compared(question, first, there, whole=not one.is_answer.all() and not other.is_answer.all())


def _common(first: Reading, second: Reading) -> tuple[Reading, Reading]:
    """Both at the same places: where one has answers alone, so has the other."""
    if first.is_answer.all() == second.is_answer.all():
        return first, second
    return _answers_of(first), _answers_of(second)


def _answers_of(reading: Reading) -> Reading:
    chosen = reading.is_answer
    return StoredReading(reading.tokens[chosen], reading.is_answer[chosen], reading.logits[chosen])


def _compared(question: Question, first: Reading, second: Reading, *, whole: bool) -> Compared:
    tokens, answer = first.tokens, first.is_answer
    log_p, log_q = log_softmax(first.logits), log_softmax(second.logits)  # [P, V]
    tops = log_p.argmax(axis=1), log_q.argmax(axis=1)
    with np.errstate(invalid="ignore"):
        # A token that neither model may say has −∞ in both and takes no part.
        terms = np.where(np.isneginf(log_p), 0.0, np.exp(log_p) * (log_p - log_q))
    kl = terms.sum(axis=1)  # [P]
    at = np.arange(len(tokens)), tokens
    nats = -log_p[at], -log_q[at]

    def tally(chosen: NDArray[np.bool_]) -> Tally:
        same = int((tops[0] == tops[1])[chosen].sum())
        sums = [float(part[chosen].sum()) for part in (kl, *nats)]
        return Tally(int(chosen.sum()), same, *sums)

    right = [bool((top == tokens)[answer].all()) for top in tops]
    everywhere = tally(np.ones_like(answer)) if whole else None
    return Compared(question, tally(answer), everywhere, right[0], right[1])


def log_softmax(logits: NDArray[np.float32]) -> Floats:
    """Logarithms of the probabilities [P, V], in float64."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return wide


@dataclass(frozen=True)
class Figure:
    """A figure with its 95 % interval."""

    value: float
    interval: Interval

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {"value": self.value, "interval": list(self.interval)}


@dataclass(frozen=True)
class Scope:
    """Figures over some of the places: their number, agreement, KL, and perplexity of both models."""

    tokens: int
    top1_agreement: Figure
    kl: Figure
    first_perplexity: float
    second_perplexity: float

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "tokens": self.tokens,
            "top1_agreement": self.top1_agreement.as_dict(),
            "kl": self.kl.as_dict(),
            "perplexity": {"first": self.first_perplexity, "second": self.second_perplexity},
        }


@dataclass(frozen=True)
class Agreement:
    """Two models on the same questions.

    Attributes:
        answers: over what the assistant says.
        text: over all text, None where a model read answers alone.
        questions: how many.
        first_exact, second_exact: share of the questions that each answers exactly.
        exact_difference: second minus first, paired.
        lost, won: questions that only the first, and only the second, answers exactly.
    """

    answers: Scope
    text: Scope | None
    questions: int
    first_exact: float
    second_exact: float
    exact_difference: Figure
    lost: int
    won: int

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "answers": self.answers.as_dict(),
            "text": None if self.text is None else self.text.as_dict(),
            "exact_match": {
                "questions": self.questions,
                "first": self.first_exact,
                "second": self.second_exact,
                "difference": self.exact_difference.as_dict(),
                "lost": self.lost,
                "won": self.won,
            },
        }


@dataclass(frozen=True)
class _Draws:
    """The same draws for every figure: the group of each question [Q], and how often each group is drawn [draws, G]."""

    groups: Sequence[str]
    times: Floats

    @classmethod
    def of(cls, groups: Sequence[str], seed: int) -> _Draws:
        count = len(set(groups))
        times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
        return cls(groups, times.astype(np.float64))

    def ratio(self, above: Floats, below: Floats, honest: Honest | None = None) -> Figure:
        """Σ above / Σ below of all questions, with its interval."""
        sums, counts = by_group(above.tolist(), self.groups, below.tolist())  # [G]
        totals = self.times @ counts
        drawn = percentiles((self.times @ sums)[totals > 0] / totals[totals > 0])
        return Figure(float(above.sum() / below.sum()), honest(drawn, sums, counts) if honest else drawn)


def summarize(compared: Sequence[Compared], seed: int = 0) -> Agreement:
    """All questions together.

    Raises:
        ValueError: there is none, or none with an answer.
    """
    if not compared or not any(row.answer.tokens for row in compared):
        raise ValueError("nothing was compared")
    draws = _Draws.of([row.group for row in compared], seed)
    first = np.array([row.first_right for row in compared], np.float64)
    second = np.array([row.second_right for row in compared], np.float64)
    whole = [row.text for row in compared if row.text is not None]
    ones = np.ones(len(compared))
    return Agreement(
        answers=_scope([row.answer for row in compared], draws),
        text=_scope(whole, draws) if len(whole) == len(compared) else None,
        questions=len(compared),
        first_exact=float(first.mean()),
        second_exact=float(second.mean()),
        exact_difference=draws.ratio(second - first, ones, difference_interval),
        lost=int((first > second).sum()),
        won=int((second > first).sum()),
    )


def _scope(tallies: Sequence[Tally], draws: _Draws) -> Scope:
    tokens, same, kl, first, second = (np.array(column, np.float64) for column in zip(*tallies, strict=True))
    return Scope(
        tokens=int(tokens.sum()),
        top1_agreement=draws.ratio(same, tokens, share_interval),
        kl=draws.ratio(kl, tokens),
        first_perplexity=float(np.exp(first.sum() / tokens.sum())),
        second_perplexity=float(np.exp(second.sum() / tokens.sum())),
    )
