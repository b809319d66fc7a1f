"""Who answers: the one interface behind which float, quantized and exported models stand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from stages.evaluate.questions import Question


@dataclass(frozen=True)
class Reply:
    """What a model said, and what it cost in tokens. `prompt_tokens` counts the image tokens too."""

    text: str
    image_tokens: int
    prompt_tokens: int
    generated_tokens: int


# Takes questions, gives one reply each in the same order. It may look ahead to answer several at once.
Answerer = Callable[[Sequence[Question]], Iterator[Reply]]


def one_by_one(answer: Callable[[Question], Reply]) -> Answerer:
    """An answerer that takes the questions one after the other."""

    def answer_all(questions: Sequence[Question]) -> Iterator[Reply]:
        yield from map(answer, questions)

    return answer_all


def beside_their_pictures(questions: Iterable[Question]) -> list[Question]:
    """The same questions with those about the same pictures side by side, so that a picture is encoded once."""
    place: dict[tuple[str, ...], int] = {}
    keyed = []
    for question in questions:
        key = tuple(picture.as_posix() for picture in question.pictures)
        keyed.append((place.setdefault(key, len(place)), question))
    return [question for _, question in sorted(keyed, key=lambda pair: pair[0])]
