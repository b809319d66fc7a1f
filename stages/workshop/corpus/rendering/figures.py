"""Amounts of money, dates, times and numbers as they stand on papers and screens; each belongs to one split.

An amount belongs where its digits do ("12.45", whatever currency stands beside it), a date where both its ISO form and
its printed form do.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable

import numpy as np

from stages.workshop.corpus.rendering.split import Split, belongs

_EPOCH = datetime.date(1994, 1, 1)
_DAYS = 14_000
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_LONG_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)
DATE_FORMS: tuple[Callable[[datetime.date], str], ...] = (
    lambda day: day.isoformat(),
    lambda day: f"{day.day:02d}.{day.month:02d}.{day.year}",
    lambda day: f"{day.day:02d}/{day.month:02d}/{day.year}",
    lambda day: f"{day.day} {_MONTHS[day.month - 1]} {day.year}",
    lambda day: f"{_MONTHS[day.month - 1]} {day.day}, {day.year}",
    lambda day: f"{day.day} {_LONG_MONTHS[day.month - 1]} {day.year}",
)
# Forms of money: what stands before and after the digits. Nothing but ASCII, which every font has.
MONEY_FORMS = (("", ""), ("", ""), ("$", ""), ("", " EUR"), ("EUR ", ""), ("", " USD"))


def money(cents: int) -> str:
    """Hundredths as a decimal number."""
    return f"{cents // 100}.{cents % 100:02d}"


def owns(cents: int, split: Split) -> bool:
    """Whether an amount belongs to a split."""
    return belongs(money(cents), split)


def draw_cents(rng: np.random.Generator, split: Split, most: int = 9_999) -> int:
    """A price in hundredths, small ones as often as large ones."""
    while True:
        cents = round(50 * (most / 50) ** rng.random())
        if rng.random() < 0.5:
            cents = max(5, cents // 5 * 5)
        if owns(cents, split):
            return cents


def draw_date(rng: np.random.Generator, split: Split, form: Callable[[datetime.date], str] | None = None) -> str:
    """A date in one of the usual forms."""
    while True:
        day = _EPOCH + datetime.timedelta(days=int(rng.integers(_DAYS)))
        chosen = form or DATE_FORMS[rng.integers(len(DATE_FORMS))]
        text = chosen(day)
        if belongs(day.isoformat(), split) and belongs(text.lower(), split):
            return text


def draw_time(rng: np.random.Generator, split: Split) -> str:
    """Hours and minutes."""
    return _draw(rng, split, lambda: f"{rng.integers(0, 24):02d}:{rng.integers(0, 60):02d}")


def draw_whole(rng: np.random.Generator, split: Split, low: int, high: int) -> int:
    """A whole number from low to high, high excluded."""
    return int(_draw(rng, split, lambda: str(rng.integers(low, high))))


def draw_code(rng: np.random.Generator, split: Split) -> str:
    """A number as customers, policies and orders have: letters and digits that are not easily confused."""
    letters, digits = "ABCDEFGHKLMNPRSTUVWXYZ", "0123456789"
    patterns = ("aa-dddd", "addddd", "dddddd", "dd-dddd", "aaa ddd", "dddd/dd", "aadd-ddd")

    def draw() -> str:
        pattern = patterns[rng.integers(len(patterns))]
        signs = {"a": letters, "d": digits}
        return "".join(signs[sign][rng.integers(len(signs[sign]))] if sign in signs else sign for sign in pattern)

    return _draw(rng, split, draw)


def draw_phone(rng: np.random.Generator, split: Split) -> str:
    """A telephone number."""
    return _draw(
        rng, split, lambda: f"{rng.integers(10, 100):03d} {rng.integers(100, 1000)} {rng.integers(1000, 10000)}"
    )


def _draw(rng: np.random.Generator, split: Split, draw: Callable[[], str]) -> str:
    while True:
        text = draw()
        if belongs(text.lower(), split):
            return text
