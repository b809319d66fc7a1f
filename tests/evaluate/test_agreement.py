"""Agreement of two models: figures by hand, intervals, and the store that one model's readings wait in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stages.evaluate.agreement import Compared, ReadingStore, StoredReading, compare, log_softmax, summarize
from stages.evaluate.metrics import wilson
from stages.evaluate.questions import Question

VOCABULARY = 6


def question(name: str) -> Question:
    return Question(name, (), "What?", "this")


def reading(seed: int, places: int = 4, answers: int = 2, tokens: list[int] | None = None) -> StoredReading:
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((places, VOCABULARY)).astype(np.float32) * 3
    logits[:, 5] = -np.inf
    stands = np.random.default_rng(0).integers(0, 5, places) if tokens is None else np.array(tokens)
    is_answer = np.arange(places) >= places - answers
    return StoredReading(stands, is_answer, logits)


def stored(folder: Path, *readings: StoredReading) -> ReadingStore:
    store = ReadingStore(folder / "readings")
    assert list(store.keep(iter(readings))) == list(range(1, len(readings) + 1))
    return store


def compared(folder: Path, first: list[StoredReading], second: list[StoredReading]) -> list[Compared]:
    questions = [question(str(index)) for index in range(len(first))]
    return list(compare(questions, stored(folder, *first), iter(second)))


def test_readings_come_back_as_they_were(tmp_path: Path) -> None:
    readings = [reading(1), reading(2, places=7), reading(3, places=1, answers=1)]
    store = stored(tmp_path, *readings)
    assert len(store) == 3
    for index in (2, 0, 1):
        found = store[index]
        np.testing.assert_array_equal(found.logits, readings[index].logits)
        np.testing.assert_array_equal(found.tokens, readings[index].tokens)
        np.testing.assert_array_equal(found.is_answer, readings[index].is_answer)


def test_figures_by_hand(tmp_path: Path) -> None:
    first, second = [reading(1), reading(2)], [reading(11), reading(12)]
    rows = compared(tmp_path, first, second)
    agreement = summarize(rows)
    kl, same, nats, count = 0.0, 0, [0.0, 0.0], 0
    for one, other in zip(first, second, strict=True):
        for place in range(4):
            if not one.is_answer[place]:
                continue
            p, q = (np.exp(part.logits[place, :5].astype(float)) for part in (one, other))
            p, q = p / p.sum(), q / q.sum()
            kl += float((p * np.log(p / q)).sum())
            same += int(p.argmax() == q.argmax())
            nats[0] -= float(np.log(p[one.tokens[place]]))
            nats[1] -= float(np.log(q[one.tokens[place]]))
            count += 1
    assert agreement.answers.tokens == count == 4
    assert agreement.answers.top1_agreement.value == same / count
    assert agreement.answers.kl.value == pytest.approx(kl / count, rel=1e-12)
    assert agreement.answers.first_perplexity == pytest.approx(np.exp(nats[0] / count), rel=1e-12)
    assert agreement.answers.second_perplexity == pytest.approx(np.exp(nats[1] / count), rel=1e-12)
    assert agreement.text is not None
    assert agreement.text.tokens == 8


def test_a_model_agrees_with_itself(tmp_path: Path) -> None:
    readings = [reading(seed) for seed in range(5)]
    agreement = summarize(compared(tmp_path, readings, readings))
    assert agreement.answers.top1_agreement.value == 1
    # Five questions that agree are no proof that all would.
    assert agreement.answers.top1_agreement.interval == wilson(5, 5)
    assert agreement.exact_difference.interval == (-wilson(0, 5).high, wilson(0, 5).high)
    assert agreement.answers.kl.value == 0
    assert agreement.answers.first_perplexity == agreement.answers.second_perplexity
    assert (agreement.lost, agreement.won, agreement.exact_difference.value) == (0, 0, 0)


def test_an_answer_is_right_when_every_token_is(tmp_path: Path) -> None:
    right = reading(1)
    tops = right.logits.argmax(axis=1)
    right = StoredReading(tops, right.is_answer, right.logits)
    # The prompt's own text does not count, the last answer token does.
    early, late = tops.copy(), tops.copy()
    early[0], late[3] = (early[0] + 1) % 5, (late[3] + 1) % 5
    for tokens, expected in ((tops, True), (early, True), (late, False)):
        same = StoredReading(tokens, right.is_answer, right.logits)
        (row,) = compared(tmp_path, [same], [same])
        assert row.first_right is row.second_right is expected


def test_pairs_of_exact_answers(tmp_path: Path) -> None:
    def answering(right: bool) -> StoredReading:
        logits = np.zeros((1, VOCABULARY), np.float32)
        logits[0, 2 if right else 3] = 5
        return StoredReading(np.array([2]), np.array([True]), logits)

    pattern = [(True, True)] * 6 + [(True, False)] * 3 + [(False, True)] + [(False, False)] * 2
    rows = compared(tmp_path, [answering(one) for one, _ in pattern], [answering(other) for _, other in pattern])
    agreement = summarize(rows)
    assert (agreement.questions, agreement.lost, agreement.won) == (12, 3, 1)
    assert agreement.first_exact == pytest.approx(9 / 12)
    assert agreement.second_exact == pytest.approx(7 / 12)
    assert agreement.exact_difference.value == pytest.approx(-2 / 12)
    low, high = agreement.exact_difference.interval
    # Normal theory: the standard error of the mean of these twelve differences.
    difference = np.array([int(other) - int(one) for one, other in pattern])
    error = difference.std() / np.sqrt(12)
    assert low == pytest.approx(-2 / 12 - 1.96 * error, abs=0.05)
    assert high == pytest.approx(-2 / 12 + 1.96 * error, abs=0.05)
    assert agreement.text is None


def test_a_model_of_answers_alone_is_compared_on_answers(tmp_path: Path) -> None:
    whole, other = reading(1), reading(2)
    kept = other.is_answer
    answers = StoredReading(other.tokens[kept], other.is_answer[kept], other.logits[kept])
    (apart,) = compared(tmp_path, [whole], [answers])
    (together,) = compared(tmp_path, [whole], [other])
    assert apart.answer == together.answer
    assert (apart.text, together.text is None) == (None, False)


def test_other_tokens_and_other_counts_are_mistakes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="different tokens"):
        compared(tmp_path, [reading(1)], [reading(1, tokens=[0, 0, 0, 0])])
    with pytest.raises(ValueError, match="shorter"):
        compared(tmp_path, [reading(1), reading(2)], [reading(1)])
    with pytest.raises(ValueError, match="nothing was compared"):
        summarize([])


def test_probabilities_sum_to_one() -> None:
    found = np.exp(log_softmax(reading(4).logits + np.float32(300)))
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)
    assert (found[:, 5] == 0).all()


def test_the_interval_is_over_questions_not_tokens(tmp_path: Path) -> None:
    """Twenty places that all agree or all part say as much as one."""

    def block(seed: int) -> Iterator[tuple[StoredReading, StoredReading]]:
        one = reading(seed, places=20, answers=20)
        yield one, one if seed % 2 else StoredReading(one.tokens, one.is_answer, -one.logits[:, [0, 1, 2, 3, 4, 4]])

    pairs = [pair for seed in range(10) for pair in block(seed)]
    agreement = summarize(compared(tmp_path, [one for one, _ in pairs], [other for _, other in pairs]))
    low, high = agreement.answers.top1_agreement.interval
    assert high - low > 0.4


def test_questions_about_one_picture_are_drawn_together(tmp_path: Path) -> None:
    """The same answers as before: ten questions about ten pictures, or about two."""

    def width(pictures: list[tuple[Path, ...]]) -> float:
        rows = []
        for index, shown in enumerate(pictures):
            one = reading(index, places=20, answers=20)
            other = StoredReading(
                one.tokens, one.is_answer, one.logits if index % 2 else -one.logits[:, [0, 1, 2, 3, 4, 4]]
            )
            (tmp_path / str(index)).mkdir(exist_ok=True)
            asked = Question(str(index), shown, "What?", "this")
            rows += list(compare([asked], stored(tmp_path / str(index), one), iter([other])))
        low, high = summarize(rows).answers.top1_agreement.interval
        return high - low

    alone = width([(Path(f"{index}.png"),) for index in range(10)])
    # All that agree are about one picture, all that part about the other: two draws of either are likely.
    assert width([(Path(f"{index % 2}.png"),) for index in range(10)]) > 1.5 * alone
    # Questions without a picture have nothing in common.
    assert width([()] * 10) == alone
