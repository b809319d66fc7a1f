"""Short strings that are not words: figures, prices, dates and codes; each belongs to one split."""

from __future__ import annotations

import datetime
from collections.abc import Callable

import numpy as np

from stages.workshop.corpus.rendering.split import Split, belongs
from stages.workshop.corpus.rendering.vocabulary import draw_invented, draw_word

# Without letters and digits that look alike in some font.
_CAPITALS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
_DIGITS = "0123456789"
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
           "December")  # fmt: skip
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_FIRST_DAY, _LAST_DAY = datetime.date(1950, 1, 1).toordinal(), datetime.date(2049, 12, 31).toordinal()
_ENDINGS = ("com", "org", "net", "de", "fr", "io")

Make = Callable[[np.random.Generator, Split], str]


def _of_split(rng: np.random.Generator, split: Split, makes: tuple[Make, ...]) -> str:
    """What one of several ways gives, again until it belongs to the split."""
    make = makes[rng.integers(len(makes))]
    while True:
        text = make(rng, split)
        if belongs(text, split):
            return text


def draw_figure(rng: np.random.Generator, split: Split) -> str:
    """A number: whole, with separators, with decimals, negative, a share or a time of day."""
    return _of_split(rng, split, (_whole, _whole, _separated, _decimal, _negative, _percent, _time))


def draw_price(rng: np.random.Generator, split: Split) -> str:
    """An amount of money with its currency."""
    return _of_split(rng, split, (_dollars, _dollars, _pounds, _euros, _comma_euros, _coded_price))


def draw_date(rng: np.random.Generator, split: Split) -> str:
    """A date in one of many forms; the day itself belongs to the split, whatever the form."""
    while True:
        day = datetime.date.fromordinal(int(rng.integers(_FIRST_DAY, _LAST_DAY + 1)))
        if belongs(day.isoformat(), split):
            break
    month = _MONTHS[day.month - 1]
    forms = (
        day.isoformat(),
        f"{day.day:02d}/{day.month:02d}/{day.year}",
        f"{day.day:02d}.{day.month:02d}.{day.year}",
        f"{day.day}.{day.month}.{day.year % 100:02d}",
        f"{day.day} {month} {day.year}",
        f"{month} {day.day}, {day.year}",
        f"{day.day} {month[:3]} {day.year}",
        f"{day.day:02d}-{month[:3].upper()}-{day.year}",
        f"{_DAYS[day.weekday()]}, {day.day} {month}",
        f"{month} {day.year}",
    )
    while not belongs(text := forms[rng.integers(len(forms))], split):
        pass
    return text


def draw_code(rng: np.random.Generator, split: Split) -> str:
    """Something like a serial number, a licence plate, a version, an address on the net, a phone number."""
    return _of_split(rng, split, (_serial, _serial, _grouped, _plate, _version, _network, _mail, _web, _phone))


def _pick(rng: np.random.Generator, letters: str, count: int) -> str:
    return "".join(letters[place] for place in rng.integers(len(letters), size=count))


def _whole(rng: np.random.Generator, split: Split) -> str:
    digits = int(rng.integers(1, 8))
    return str(rng.integers(10 ** (digits - 1), 10**digits))


def _separated(rng: np.random.Generator, split: Split) -> str:
    return f"{rng.integers(1_000, 10_000_000):,}"


def _decimal(rng: np.random.Generator, split: Split) -> str:
    places = int(rng.integers(1, 4))
    return f"{rng.integers(0, 1000)}.{_pick(rng, _DIGITS, places)}"


def _negative(rng: np.random.Generator, split: Split) -> str:
    return f"-{rng.integers(1, 1000)}"


def _percent(rng: np.random.Generator, split: Split) -> str:
    return f"{rng.integers(1, 100)}.{rng.integers(10)}%"


def _time(rng: np.random.Generator, split: Split) -> str:
    return f"{rng.integers(24):02d}:{rng.integers(60):02d}"


def _cents(rng: np.random.Generator) -> tuple[int, str]:
    whole = int(10 ** rng.uniform(0, 4))
    return whole, f"{rng.integers(100):02d}"


def _dollars(rng: np.random.Generator, split: Split) -> str:
    whole, cents = _cents(rng)
    return f"${whole:,}.{cents}" if rng.random() < 0.8 else f"${whole:,}"


def _pounds(rng: np.random.Generator, split: Split) -> str:
    whole, cents = _cents(rng)
    return f"£{whole:,}.{cents}"


def _euros(rng: np.random.Generator, split: Split) -> str:
    whole, cents = _cents(rng)
    return f"€{whole}.{cents}"


def _comma_euros(rng: np.random.Generator, split: Split) -> str:
    whole, cents = _cents(rng)
    return f"{whole},{cents} €"


def _coded_price(rng: np.random.Generator, split: Split) -> str:
    whole, cents = _cents(rng)
    return f"{('USD', 'EUR', 'CHF', 'GBP')[rng.integers(4)]} {whole}.{cents}"


def _serial(rng: np.random.Generator, split: Split) -> str:
    return f"{_pick(rng, _CAPITALS, int(rng.integers(2, 4)))}-{_pick(rng, _DIGITS, int(rng.integers(3, 7)))}"


def _grouped(rng: np.random.Generator, split: Split) -> str:
    groups = int(rng.integers(2, 4))
    return "-".join(_pick(rng, _CAPITALS + "23456789", 4) for _ in range(groups))


def _plate(rng: np.random.Generator, split: Split) -> str:
    return f"{_pick(rng, _CAPITALS, 2)} {_pick(rng, _DIGITS, 3)} {_pick(rng, _CAPITALS, 2)}"


def _version(rng: np.random.Generator, split: Split) -> str:
    return f"v{rng.integers(10)}.{rng.integers(30)}.{rng.integers(100)}"


def _network(rng: np.random.Generator, split: Split) -> str:
    return ".".join(str(part) for part in rng.integers(1, 255, 4))


def _mail(rng: np.random.Generator, split: Split) -> str:
    return f"{draw_word(rng, split)}@{draw_invented(rng, split)}.{_ENDINGS[rng.integers(len(_ENDINGS))]}"


def _web(rng: np.random.Generator, split: Split) -> str:
    return f"www.{draw_invented(rng, split)}.{_ENDINGS[rng.integers(len(_ENDINGS))]}/{draw_word(rng, split)}"


def _phone(rng: np.random.Generator, split: Split) -> str:
    return f"+{rng.integers(1, 99)} {_pick(rng, _DIGITS, 3)} {_pick(rng, _DIGITS, 4)}"
