"""What a model answered, as question-answer pairs; or why it cannot be taken."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from stages.workshop.corpus.row import IMAGE_MARK

Task = Literal["create-caption", "create-qa", "revise"]

_THOUGHT = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_FENCE = re.compile(r"^```[a-zA-Z]*\s*\n(.*?)\n?```\s*$", re.DOTALL)


class Pair(NamedTuple):
    """A question and its answer."""

    question: str
    answer: str


class Reply(NamedTuple):
    """One answer of the endpoint.

    Attributes:
        text: what the model says.
        finish: why it stopped, in the endpoint's words: "stop", "length", "content_filter" …
        prompt_tokens, completion_tokens: what it counted; None where it does not say.
    """

    text: str
    finish: str
    prompt_tokens: int | None
    completion_tokens: int | None


class UnreadableAnswerError(ValueError):
    """An answer that is not in the form asked for; the model may be asked again."""


class RefusedAnswerError(ValueError):
    """The model, or a filter before it, does not answer: asking again is of no use."""


def read_answer(task: Task, reply: Reply) -> tuple[Pair, ...]:
    """The pairs of an answer; a caption is a pair without a question. None at all where a revision keeps none.

    Raises:
        UnreadableAnswerError: it is cut off, empty, or not what was asked for.
        RefusedAnswerError: a filter took it.
    """
    if reply.finish in ("content_filter", "refusal"):
        raise RefusedAnswerError(reply.text.strip() or "a content filter took the answer")
    if reply.finish == "length":
        raise UnreadableAnswerError("it is cut off: max_tokens is too low for it")
    text = _THOUGHT.sub("", reply.text).strip()
    if not text:
        raise UnreadableAnswerError("it is empty")
    if IMAGE_MARK in text:
        raise UnreadableAnswerError(f"it holds {IMAGE_MARK}, which stands for a picture")
    if _CONTROL.search(text):
        raise UnreadableAnswerError("it holds control characters")
    return _READERS[task](text)


def correction(problem: UnreadableAnswerError) -> str:
    """What the model is told when it is asked again."""
    return f"That answer cannot be used: {problem}. Answer again, in exactly the form asked for, and with nothing else."


def _caption(text: str) -> tuple[Pair, ...]:
    return (Pair("", text),)


def _some_pairs(text: str) -> tuple[Pair, ...]:
    pairs = _pairs(text)
    if not pairs:
        raise UnreadableAnswerError("the list is empty")
    return pairs


def _pairs(text: str) -> tuple[Pair, ...]:
    items = _list_of(_json_in(text))
    return tuple(_pair(number, item) for number, item in enumerate(items))


def _pair(number: int, item: Any) -> Pair:
    if not isinstance(item, Mapping):
        raise UnreadableAnswerError(f"item {number} is not an object with a question and an answer")
    said = []
    for key in Pair._fields:
        value = item.get(key)
        # A number is a fair answer to "how many", and models give it as one.
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str) or not value.strip():
            raise UnreadableAnswerError(f"item {number} has no {key}")
        said.append(value.strip())
    return Pair(*said)


def _list_of(value: Any) -> list[Any]:
    """The list itself, or the only list in an object, which is how models that must answer with one wrap it."""
    if isinstance(value, Mapping):
        lists = [inner for inner in value.values() if isinstance(inner, list)]
        if len(lists) == 1:
            return lists[0]
        if set(Pair._fields) <= set(value):
            return [value]
    if isinstance(value, list):
        return value
    raise UnreadableAnswerError("it is not a JSON list")


def _json_in(text: str) -> Any:
    """The JSON of an answer, in a code fence or with words around it as models like to put them."""
    fenced = _FENCE.match(text)
    text = fenced.group(1) if fenced else text
    # Only from the first bracket: the inside of a broken list is not what was meant.
    start = re.search(r"[\[{]", text)
    if start is None:
        raise UnreadableAnswerError("it holds no JSON")
    try:
        value, _ = json.JSONDecoder().raw_decode(text, start.start())
    except (json.JSONDecodeError, RecursionError) as error:
        raise UnreadableAnswerError("its JSON is broken") from error
    return value


_READERS: Mapping[Task, Callable[[str], tuple[Pair, ...]]] = {
    "create-caption": _caption,
    "create-qa": _some_pairs,
    "revise": _pairs,
}
