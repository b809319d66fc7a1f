"""A row of any of the forms that public sets have, as our row: the same rule for JSON, tables and tars.

Text is one of
    messages       [{"role", "content"}], content a text or parts {"type": "text", "text"} and {"type": "image", …}
    conversations  [{"from", "value"}] or [{"role", "content"}]
    texts          [{"user", "assistant"}]
and pictures are `image` or `images` of the row, or stand in the parts (`image`, `path`, `url`, `image_url`). `<image>`
in a text marks a picture's place; where pictures are given and no place is marked at all, they stand before the first
question. Sources: transformers' chat templates, OpenAI's chat format, ms-swift, LLaMA-Factory, the Cauldron.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stages.artifacts.llava_rows import IMAGE_MARK, Problem, read_tasks, read_turn, row_name, wrong_text
from stages.workshop.corpus.picture import Picture, PictureFile, PictureInTable, PictureInTar
from stages.workshop.corpus.row import BadRow, Place, Row, Turn

TEXT_KEYS = ("messages", "conversations", "texts")
PICTURE_KEYS = ("image", "images")
_REFERENCES = ("image", "path", "url", "image_url")

# Turns what a row says of a picture into the picture, or says what is wrong with it.
Find = Callable[[Any], Picture | Problem]


def read_conversation(item: Any, place: Place, find: Find) -> Row | BadRow:
    """A row in one of these forms.

    Args:
        item: a value of the file; a picture may already be a `Picture`.
        place: where it stands.
        find: finds the other pictures.
    """
    if not isinstance(item, Mapping):
        return BadRow(place, (Problem("form", f"it is a {type(item).__name__}, not an object"),))
    turns, inside, problems = _read_texts(item)
    beside = _beside(item)
    tasks, wrong = read_tasks(item)
    problems += wrong
    if inside and beside:
        problems.append(Problem("form", "its pictures are named twice: in the turns and beside them"))
    pictures: list[Picture] = []
    for given in inside or beside:
        found = given if isinstance(given, PictureFile | PictureInTar | PictureInTable) else find(given)
        if isinstance(found, Problem):
            problems.append(found)
        else:
            pictures.append(found)
    name = row_name(item, place.number)
    if not problems:
        turns = _marked(turns, len(pictures))
        marks = sum(turn.text.count(IMAGE_MARK) for turn in turns)
        if marks == len(pictures):
            return Row(name, tuple(turns), tuple(pictures), tuple(tasks), place)
        problems.append(Problem("marks", f"it has {marks} {IMAGE_MARK} marks for {len(pictures)} pictures"))
    return BadRow(place, tuple(problems), name if item.get("id") is not None else None)


def _beside(item: Mapping[str, Any]) -> list[Any]:
    """What the row's own keys say of pictures."""
    given = next((item[key] for key in PICTURE_KEYS if item.get(key) is not None), None)
    return given if isinstance(given, list) else [] if given is None else [given]


def _marked(turns: list[Turn], pictures: int) -> list[Turn]:
    """Marks before the first question, where pictures have none anywhere."""
    first = next((index for index, turn in enumerate(turns) if turn.role == "user"), None)
    if not pictures or first is None or any(IMAGE_MARK in turn.text for turn in turns):
        return turns
    marked = Turn("user", "\n".join([*[IMAGE_MARK] * pictures, *filter(None, [turns[first].text])]))
    return [*turns[:first], marked, *turns[first + 1 :]]


def _read_texts(item: Mapping[str, Any]) -> tuple[list[Turn], list[Any], list[Problem]]:
    """Turns, pictures that stand in them, and what is wrong."""
    key = next((key for key in TEXT_KEYS if item.get(key) is not None), None)
    if key is None:
        return [], [], [Problem("form", f"it has none of the keys {', '.join(map(repr, TEXT_KEYS))}")]
    given = _transposed(item[key])
    if not isinstance(given, list) or not given:
        return [], [], [Problem("form", f"{key!r} is not a list of turns")]
    if key == "texts":
        given = _alternating(given)
    turns: list[Turn] = []
    pictures: list[Any] = []
    problems: list[Problem] = []
    for index, turn in enumerate(given):
        flat = _flat(turn, index, pictures, problems)
        if flat is None:
            continue
        keys = ("from", "value") if key == "conversations" and "from" in flat else ("role", "content")
        read = read_turn(flat, index, *keys)
        if isinstance(read, tuple):
            turns.append(Turn(*read))
        else:
            problems += read
    return turns, pictures, problems


def _transposed(given: Any) -> Any:
    """A list of turns; older `datasets` give an object of lists for it."""
    if not isinstance(given, Mapping) or not all(isinstance(value, list) for value in given.values()):
        return given
    if len({len(value) for value in given.values()}) != 1:
        return given
    return [dict(zip(given, values, strict=True)) for values in zip(*given.values(), strict=True)]


def _alternating(pairs: Sequence[Any]) -> list[Any]:
    """Questions and answers as turns; what is no pair stays as it is, to be told."""
    turns: list[Any] = []
    for pair in pairs:
        if isinstance(pair, Mapping) and {"user", "assistant"} <= pair.keys():
            turns += [{"role": role, "content": pair[role]} for role in ("user", "assistant")]
        else:
            turns.append(pair)
    return turns


def _flat(turn: Any, index: int, pictures: list[Any], problems: list[Problem]) -> Any:
    """A turn whose content is one text: parts joined, marks where pictures stand; None where a part is wrong."""
    content = turn.get("content") if isinstance(turn, Mapping) else None
    if not isinstance(content, list):
        return turn
    text, before = "", False
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            # A line break beside a mark is never read as text.
            text += ("\n" if before else "") + part["text"]
            before = False
        elif kind in ("image", "image_url"):
            text += ("\n" if text else "") + IMAGE_MARK
            before = True
            pictures += [part[key] for key in _REFERENCES if part.get(key) is not None][:1]
        else:
            what = f"a part of type {str(kind)[:40]!r}" if isinstance(part, Mapping) else f"a {type(part).__name__}"
            problems.append(Problem("form", f"turn {index} holds {what}, neither text nor a picture"))
            return None
    return {**turn, "content": text}


def checked_name(given: Any) -> str | Problem:
    """The path or URL that a row says of a picture: plain, or inside `{"url"}` or `{"path"}`."""
    if isinstance(given, Mapping):
        given = next((given[key] for key in ("url", "path") if given.get(key) is not None), given)
    if not isinstance(given, str) or not given or "\0" in given or wrong_text(given) is not None:
        return Problem("form", f"a picture is named by a {type(given).__name__} that is no path")
    if given.startswith("data:"):
        return Problem("form", "a picture is written into the row itself (data:)")
    if given.startswith(("http://", "https://")):
        return Problem("outside", f"the picture {given!r} lies on the web, from where nothing is fetched")
    return given.removeprefix("file://")
