"""Phone screens: lists, settings with switches, dialogs with buttons, chats, and apps in rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from stages.workshop.corpus.rendering import screen_layouts as parts
from stages.workshop.corpus.rendering.family import Family
from stages.workshop.corpus.rendering.figures import draw_time
from stages.workshop.corpus.rendering.names import draw_distinct, draw_first_name
from stages.workshop.corpus.rendering.page import Page, PageOverflowError
from stages.workshop.corpus.rendering.room import LETTER
from stages.workshop.corpus.rendering.scene import Exchange, Look, Split, not_there, word_question
from stages.workshop.corpus.rendering.screen_texts import (
    draw_app,
    draw_button,
    draw_details,
    draw_explanation,
    draw_items,
    draw_message,
    draw_request,
    draw_setting,
    draw_title,
)

Make = Callable[[np.random.Generator, Split], str]

TITLE_QUESTIONS = (
    "What is the title of this screen?",
    "What does the title bar say?",
    "Which title stands at the top of the screen?",
)
TIME_QUESTIONS = ("What time does the phone show?", "What time is it on the phone?", "Read the clock at the top.")
ITEM_QUESTIONS = ("Which item is the {place} in the list?", "What is the {place} entry of the list?")
DETAIL_QUESTIONS = ("What is written with {name}?", "Which detail is shown for {name}?", "What does {name} have?")
STATE_QUESTIONS = ("Is {name} on or off?", "Is {name} switched on or off?", "What is the state of {name}?")
ONLY_QUESTIONS = ("Which setting is {state}?", "Which one is switched {state}?", "The only setting that is {state}?")
DIALOG_QUESTIONS = ("What is the heading of the dialog?", "What does the dialog ask or say in bold?")
PLACED_QUESTIONS = (
    "What does the {place} button say?",
    "Which text is on the {place} button?",
    "Read the {place} button.",
)
FILLED_QUESTIONS = ("What does the coloured button say?", "Which text is on the filled button?")
WHERE_QUESTIONS = ("Where is the button {name}?", "Which button says {name}?", "Which of the buttons says {name}?")
SENT_QUESTIONS = ("Which message was sent at {clock}?", "What was written at {clock}?")
ENDS_QUESTIONS = ("What does the {place} message say?", "Read the {place} message.")
CONTACT_QUESTIONS = ("Who is this chat with?", "Whose name is at the top of the chat?")
CHAT_COUNT_QUESTIONS = ("How many messages are shown?", "How many messages are in the chat?")
APP_QUESTIONS = ("Which app is directly {side} {name}?", "What is the app directly {side} {name}?")
CORNER_QUESTIONS = ("Which app is in the top {side} corner?", "What is the name of the app at the top {side}?")
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
LIST_LAYOUTS = ("beside", "below", "pictured")
SETTING_LAYOUTS = ("switch", "box", "words")
DIALOG_LAYOUTS = ("row", "stack", "sheet")
CHAT_LAYOUTS = ("bubbles", "bubbles-with-field")
HOME_LAYOUTS = ("round", "tiles")
TITLE_STYLES = ("filled", "plain", "large")
# Letters that a line of an upright phone has, few where its text is large.
_LETTERS = (17, 40)
# Em of the status bar and the title bar; rows of one line, of two; a dialog without its text.
_BARS, _ROW, _TALL_ROW, _DIALOG = 4.4, 2.1, 3.4, 7.0
_BUBBLE, _ICONS, _ENTRY = 3.7, 5.0, 2.8


class _Screen:
    """One screen while it is drawn: its size in em, its colours, its clock."""

    def __init__(self, rng: np.random.Generator, split: Split, look: Look, family: str, layouts: tuple[str, ...]):
        self.layout = look.draw_layout(rng, split, family, layouts)
        # What is set smaller than the rest must still be readable.
        least = look.heights[0] / 0.9
        lying = max(1.0, look.size.width / look.size.height)
        most = min(look.heights[1], look.size.width / (LETTER * _LETTERS[0] * lying))
        self.least, self.look, self.split = least, look, split
        self.height = max(least, min(most, look.size.width / (LETTER * lying * rng.integers(*_LETTERS))))
        self.wide, self.high = look.size.width / self.height, look.size.height / self.height
        self.letters = int((self.wide - 1.4) / LETTER)
        self.theme, self.clock = parts.draw_theme(rng), draw_time(rng, split)
        self.title_style = TITLE_STYLES[rng.integers(len(TITLE_STYLES))]

    def rows(self, used: float, row: float, least: int, most: int) -> int:
        """How many rows of that height fit below what is used already.

        Raises:
            PageOverflowError: fewer than the least.
        """
        fitting = int((self.high - used) / row)
        if fitting < least:
            raise PageOverflowError
        return min(fitting, most)

    def page(
        self,
        rng: np.random.Generator,
        body: str,
        exchanges: Sequence[Exchange],
        texts: Sequence[str],
        absent: Exchange,
        **facts: object,
    ) -> Page:
        """The page that shows it."""
        return Page(
            body=body,
            size=self.look.size,
            font=self.look.draw_font(rng, self.split),
            height=self.height,
            smallest=self.least,
            exchanges=tuple(exchanges),
            texts=(self.clock, *texts),
            absent=(absent,),
            margin=0.0,
            paper=self.theme.background,
            ink=self.theme.ink,
            bleed=True,
            facts={"layout": self.layout, **facts},
        )


def _short(rng: np.random.Generator, screen: _Screen, count: int, draw: Make, letters: int) -> list[str]:
    """That many different texts of at most so many letters."""

    def fitting() -> str:
        for _ in range(60):
            text = draw(rng, screen.split)
            if len(text) <= letters:
                return text
        raise PageOverflowError

    return draw_distinct(count, fitting)


def _list(rng: np.random.Generator, split: Split, look: Look) -> Page:
    screen = _Screen(rng, split, look, "screen-list", LIST_LAYOUTS)
    count = screen.rows(_BARS, _ROW if screen.layout == "beside" else _TALL_ROW, 2, len(ORDINALS))
    count = int(rng.integers(2, count + 1, 2).max())
    title = _short(rng, screen, 1, draw_title, int(screen.letters / 1.3) - 3)[0]
    room = {"beside": screen.letters - 1, "below": screen.letters, "pictured": screen.letters - 5}[screen.layout]
    details = _short(rng, screen, count, draw_details(rng), min(room - 6, 20))
    longest = max(map(len, details)) + 1 if screen.layout == "beside" else 0
    names = _short(rng, screen, count, draw_items(rng), room - longest)
    rows = [
        parts.list_row(screen.theme, name, detail, screen.layout, fill)
        for name, detail, fill in zip(names, details, parts.draw_fills(rng, count), strict=True)
    ]
    one, other = int(rng.integers(count)), int(rng.integers(count))
    exchanges = (
        Exchange("list-title", word_question(rng, TITLE_QUESTIONS), title),
        Exchange("list-item", word_question(rng, ITEM_QUESTIONS, place=ORDINALS[one]), names[one]),
        Exchange("list-detail", word_question(rng, DETAIL_QUESTIONS, name=names[other]), details[other]),
        Exchange("screen-time", word_question(rng, TIME_QUESTIONS), screen.clock),
    )
    missing = draw_distinct(1, lambda: draw_first_name(rng, split), [*names, title])[0]
    absent = not_there(word_question(rng, DETAIL_QUESTIONS, name=missing))
    body = parts.screen(screen.theme, screen.clock, [parts.title_bar(screen.theme, title, screen.title_style), *rows])
    return screen.page(rng, body, exchanges, (title, *names, *details), absent, names=names, details=details)


def _settings(rng: np.random.Generator, split: Split, look: Look) -> Page:
    screen = _Screen(rng, split, look, "screen-settings", SETTING_LAYOUTS)
    count = int(rng.integers(2, screen.rows(_BARS, _ROW, 2, 9) + 1, 2).max())
    title = _short(rng, screen, 1, draw_title, int(screen.letters / 1.3) - 3)[0]
    names = _short(rng, screen, count, draw_setting, screen.letters - 5)
    only, rest = int(rng.integers(count)), bool(rng.random() < 0.4)
    states = [(index == only) != rest for index in range(count)]
    mixed = split == "train" and rng.random() < 0.5
    if mixed:
        states = (rng.random(count) < 0.5).tolist()
    rows = [parts.switch_row(screen.theme, name, on, screen.layout) for name, on in zip(names, states, strict=True)]
    # Of those on and those off, one as often as the other.
    wanted = bool(rng.random() < 0.5)
    places = [place for place, on in enumerate(states) if on is wanted] or list(range(count))
    asked = places[rng.integers(len(places))]
    found = [
        Exchange(
            "setting-state", word_question(rng, STATE_QUESTIONS, name=names[asked]), "on" if states[asked] else "off"
        )
    ]
    for on, word in ((True, "on"), (False, "off")):
        if states.count(on) == 1 and not (count == 2 and on is rest):
            found.append(
                Exchange("setting-only", word_question(rng, ONLY_QUESTIONS, state=word), names[states.index(on)])
            )
    missing = draw_distinct(1, lambda: draw_setting(rng, split), names)[0]
    body = parts.screen(screen.theme, screen.clock, [parts.title_bar(screen.theme, title, screen.title_style), *rows])
    absent = not_there(word_question(rng, STATE_QUESTIONS, name=missing))
    return screen.page(rng, body, found, (title, *names), absent, states=dict(zip(names, states, strict=True)))


def _dialog(rng: np.random.Generator, split: Split, look: Look) -> Page:
    screen = _Screen(rng, split, look, "screen-dialog", DIALOG_LAYOUTS)
    theme, stacked = screen.theme, screen.layout != "row"
    heading, text = draw_request(rng, split), draw_explanation(rng, split)
    inner = screen.letters - 6
    lines = np.ceil(1.3 * len(heading) / inner) + np.ceil(1.2 * len(text) / inner)
    left = screen.high - _BARS - 3.5 - 1.4 * lines
    if inner < 12 or left < 2:
        raise PageOverflowError
    count = int(rng.integers(2, 4))
    if stacked and left < 2.6 * count:
        raise PageOverflowError
    letters = inner if stacked else inner // count - 3
    labels = _short(rng, screen, count, draw_button, letters)
    filled = int(rng.integers(count))
    buttons = [parts.button(theme, label, index == filled, True) for index, label in enumerate(labels)]
    title = _short(rng, screen, 1, draw_title, int(screen.letters / 1.3) - 3)[0]
    card = parts.dialog(theme, heading, text, buttons, stacked)
    bar = parts.title_bar(theme, title, screen.title_style)
    free = max(0.0, left - (2.4 * count if stacked else 2.4))
    if screen.layout == "sheet":
        body = parts.screen(theme, screen.clock, [bar], card)
    else:
        body = parts.screen(theme, screen.clock, [bar, parts.gap(free * rng.uniform(0.1, 0.6)), card])
    places = _places(count, stacked)
    one, other = int(rng.integers(count)), int(rng.integers(count))
    exchanges = (
        Exchange("dialog-heading", word_question(rng, DIALOG_QUESTIONS), heading),
        Exchange("button-text", word_question(rng, PLACED_QUESTIONS, place=places[one]), labels[one])
        if rng.random() < 0.6
        else Exchange("button-text", word_question(rng, FILLED_QUESTIONS), labels[filled]),
        Exchange("button-place", f"{word_question(rng, WHERE_QUESTIONS, name=labels[other])}{_choices(places)}",
                 places[other]),
    )  # fmt: skip
    texts = (title, heading, text, *labels)
    missing = draw_distinct(1, lambda: draw_button(rng, split), texts)[0]
    absent = not_there(word_question(rng, WHERE_QUESTIONS, name=missing))
    return screen.page(rng, body, exchanges, texts, absent, labels=labels, places=places, filled=filled)


def _places(count: int, stacked: bool) -> list[str]:
    ends = ("top", "bottom") if stacked else ("left", "right")
    return [ends[0], "middle", ends[1]] if count == 3 else list(ends)


def _choices(places: Sequence[str]) -> str:
    """The places that can be answered."""
    return f" Answer with {', '.join(places[:-1])} or {places[-1]}."


def _chat(rng: np.random.Generator, split: Split, look: Look) -> Page:
    screen = _Screen(rng, split, look, "screen-chat", CHAT_LAYOUTS)
    theme, field = screen.theme, screen.layout == "bubbles-with-field"
    count = screen.rows(_BARS + (_ENTRY if field else 0), _BUBBLE, 2, 8)
    count = int(rng.integers(2, count + 1, 2).max())
    contact = draw_first_name(rng, split)
    texts = _short(rng, screen, count, draw_message, int(0.95 * screen.letters) - 2)
    clocks = sorted(draw_distinct(count, lambda: draw_time(rng, split), [screen.clock]))
    mine = (rng.random(count) < 0.5).tolist()
    bubbles = [parts.bubble(theme, *message) for message in zip(texts, clocks, mine, strict=True)]
    bar = parts.title_bar(theme, contact, screen.title_style)
    label = _short(rng, screen, 1, draw_button, 8)[0] if field else ""
    foot = parts.entry_bar(theme, label) if field else ""
    asked, end = int(rng.integers(count)), int(rng.integers(2))
    exchanges = (
        Exchange("chat-message", word_question(rng, SENT_QUESTIONS, clock=clocks[asked]), texts[asked])
        if rng.random() < 0.6
        else Exchange("chat-message", word_question(rng, ENDS_QUESTIONS, place=("first", "last")[end]), texts[-end]),
        Exchange("chat-contact", word_question(rng, CONTACT_QUESTIONS), contact),
        Exchange("chat-count", word_question(rng, CHAT_COUNT_QUESTIONS), str(count)),
    )
    missing = draw_distinct(1, lambda: draw_time(rng, split), [*clocks, screen.clock])[0]
    absent = not_there(word_question(rng, SENT_QUESTIONS, clock=missing))
    written = (contact, *texts, *clocks, *([label] if label else []))
    body = parts.screen(theme, screen.clock, [bar, *bubbles], foot)
    return screen.page(rng, body, exchanges, written, absent, messages=texts, clocks=clocks)


def _home(rng: np.random.Generator, split: Split, look: Look) -> Page:
    screen = _Screen(rng, split, look, "screen-home", HOME_LAYOUTS)
    across = int(rng.integers(2, max(2, min(5, screen.letters // 7)) + 1))
    letters = screen.letters // across - 2
    down = screen.rows(2.5, _ICONS, 2, 6)
    down = int(rng.integers(2, down + 1))
    names = _short(rng, screen, across * down, draw_app, letters)
    fills = parts.draw_fills(rng, len(names))
    column, row = int(rng.integers(across)), int(rng.integers(down))
    sides = {"to the right of": (1, 0), "to the left of": (-1, 0), "below": (0, 1), "above": (0, -1)}
    fitting = [
        (side, names[(row + y) * across + column + x])
        for side, (x, y) in sides.items()
        if 0 <= column + x < across and 0 <= row + y < down
    ]
    side, answer = fitting[rng.integers(len(fitting))]
    corner = int(rng.integers(2))
    exchanges = (
        Exchange("app-beside", word_question(rng, APP_QUESTIONS, side=side, name=names[row * across + column]), answer),
        Exchange(
            "app-corner",
            word_question(rng, CORNER_QUESTIONS, side=("left", "right")[corner]),
            names[corner * (across - 1)],
        ),
    )
    missing = draw_distinct(1, lambda: draw_app(rng, split), names)[0]
    absent = not_there(word_question(rng, APP_QUESTIONS, side=str(rng.choice(list(sides))), name=missing))
    grid = parts.icons(screen.theme, names, across, fills, screen.layout == "round")
    body = parts.screen(screen.theme, screen.clock, [parts.gap(rng.uniform(0.2, 1.0)), grid])
    return screen.page(rng, body, exchanges, names, absent, names=names, across=across)


SCREENS: Mapping[str, Family] = MappingProxyType(
    {
        "screen-list": Family(("list-title", "list-item", "list-detail", "screen-time"), _list, LIST_LAYOUTS),
        "screen-settings": Family(("setting-state", "setting-only"), _settings, SETTING_LAYOUTS),
        "screen-dialog": Family(("dialog-heading", "button-text", "button-place"), _dialog, DIALOG_LAYOUTS),
        "screen-chat": Family(("chat-message", "chat-contact", "chat-count"), _chat, CHAT_LAYOUTS),
        "screen-home": Family(("app-beside", "app-corner"), _home, HOME_LAYOUTS),
    }
)
