"""Phone screens: buttons, switches, messages and apps are where the answers say they are."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable

from stages.device.imaging.geometry import Size
from stages.workshop.corpus.rendering.page import Page
from stages.workshop.corpus.rendering.scene import Exchange, Look
from stages.workshop.corpus.rendering.screens import ORDINALS

Make = Callable[..., Look]
Some = Callable[..., list[Page]]
Written = Callable[[Page], list[str]]
SIZE = Size(256, 512)


def answers(page: Page) -> dict[str, Exchange]:
    return {exchange.task: exchange for exchange in page.exchanges}


def once(shown: list[str]) -> list[str]:
    """What is written on the screen: its markup has it twice, once to be measured."""
    return shown[: len(shown) // 2]


def test_items_are_asked_by_their_place(look: Make, some_pages: Some, written: Written) -> None:
    for page in some_pages("screen-list", "train", look(size=SIZE), 50):
        shown, found = once(written(page)), answers(page)
        if page.facts["layout"] == "pictured":
            shown = [text for index, text in enumerate(shown) if index < 2 or (index - 2) % 3]
        clock, title, *rows = shown
        assert (found["screen-time"].answer, found["list-title"].answer) == (clock, title)
        names, details = rows[::2], rows[1::2]
        place = next(place for place, word in enumerate(ORDINALS) if word in found["list-item"].question)
        assert names[place] == found["list-item"].answer
        (name,) = (name for name in names if name in found["list-detail"].question)
        assert details[names.index(name)] == found["list-detail"].answer


def test_switches_are_on_where_the_answer_says_so(look: Make, some_pages: Some) -> None:
    """A knob on the right, a box with a mark, or the word."""
    states: Counter[str] = Counter()
    for page in some_pages("screen-settings", "heldout", look(size=SIZE), 80):
        found = answers(page)
        marks = {
            "switch": r"align\((right|left) \+ horizon, circle",
            "box": r"height: 1em, radius: 0.15em, (fill|stroke)",
        }
        kind = str(page.facts["layout"])
        seen = re.findall(marks.get(kind, r"\"(On|Off)\""), page.body)
        on = [mark in ("right", "fill", "On") for mark in seen[: len(seen) // 2]]
        names = list(page.facts["states"])  # type: ignore[call-overload]
        assert all(
            page.body.index(f'"{one}"') < page.body.index(f'"{other}"') for one, other in itertools.pairwise(names)
        )
        (name,) = (name for name in names if name in found["setting-state"].question)
        assert found["setting-state"].answer == ("on" if on[names.index(name)] else "off")
        states[found["setting-state"].answer] += 1
        only = found["setting-only"]
        wanted = re.search(r"\bon\b", only.question) is not None
        assert [name for name, state in zip(names, on, strict=True) if state is wanted] == [only.answer]
    assert min(states["on"], states["off"]) > 20


def test_buttons_are_where_the_answers_say(look: Make, some_pages: Some, written: Written) -> None:
    layouts, filled = set(), 0
    for page in some_pages("screen-dialog", "train", look(size=Size(300, 500)), 60):
        found, shown = answers(page), once(written(page))
        labels = list(page.facts["labels"])  # type: ignore[call-overload]
        assert shown[-len(labels) :] == labels
        places = {"row": ["left", "right"]}.get(str(page.facts["layout"]), ["top", "bottom"])
        if len(labels) == 3:
            places.insert(1, "middle")
        question = found["button-place"].question.split(" Answer")[0]
        label = max((label for label in labels if label in question), key=len)
        assert found["button-place"].answer == places[labels.index(label)]
        text = found["button-text"]
        place = [places.index(place) for place in places if f" {place} " in text.question]
        if place:
            assert labels[place[0]] == text.answer
        else:
            card = page.body[: len(page.body) // 2 + 200]
            fills = re.findall(r'fill: (none|rgb\("#[0-9a-f]{6}"\)), stroke: 0.06em', card)[: len(labels)]
            assert [label for label, fill in zip(labels, fills, strict=True) if fill != "none"] == [text.answer]
            filled += 1
        layouts.add(page.facts["layout"])
    assert layouts == {"row", "stack", "sheet"} and filled > 10


def test_messages_are_asked_by_time_and_place(look: Make, some_pages: Some) -> None:
    for page in some_pages("screen-chat", "train", look(size=SIZE), 50):
        found = answers(page)
        texts, clocks = list(page.facts["messages"]), list(page.facts["clocks"])  # type: ignore[call-overload]
        pairs = re.findall(r'text\("([^"]+)"\), align\(\s*right, text\(size: 0.9em, "([^"]+)"\)', page.body)
        assert pairs[: len(pairs) // 2] == list(zip(texts, clocks, strict=True)) and clocks == sorted(clocks)
        question = found["chat-message"].question
        by_time = [text for text, clock in zip(texts, clocks, strict=True) if clock in question]
        expected = by_time[0] if by_time else texts[0 if "first" in question else -1]
        assert found["chat-message"].answer == expected
        assert found["chat-count"].answer == str(len(texts))


def test_apps_are_beside_one_another_as_asked(look: Make, some_pages: Some) -> None:
    steps = {"right of": 1, "left of": -1}
    for page in some_pages("screen-home", "train", look(size=SIZE), 50):
        found = answers(page)
        names, across = list(page.facts["names"]), page.facts["across"]  # type: ignore[call-overload]
        assert isinstance(across, int)
        question = found["app-beside"].question
        name = max((name for name in names if name in question), key=len)
        step = next((step for words, step in steps.items() if words in question), 0)
        down = across if "below" in question else -across if "above" in question else 0
        place = names.index(name)
        assert names[place + step + down] == found["app-beside"].answer
        assert down or place // across == (place + step) // across
        corner = names[across - 1] if "right" in found["app-corner"].question else names[0]
        assert found["app-corner"].answer == corner
