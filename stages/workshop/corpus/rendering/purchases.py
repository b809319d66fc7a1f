"""What was bought in a shop, and the sums of its receipt: every amount adds up and belongs to its split."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from stages.workshop.corpus.rendering.figures import MONEY_FORMS, draw_cents, draw_date, draw_time, money, owns
from stages.workshop.corpus.rendering.names import draw_address, draw_distinct, draw_goods, draw_shop, draw_town
from stages.workshop.corpus.rendering.page import PageOverflowError
from stages.workshop.corpus.rendering.split import Split

FEWEST_ITEMS, MOST_ITEMS = 2, 28
_RATES = (5, 6, 7, 8, 10, 12, 15, 19, 20, 21)
_MOST_QUANTITY = 6
_NOTES = (100, 200, 500, 1000, 2000, 5000, 10_000)
_MOST_PRICE = 6_000
_TRIES = 5000
# An amount with its gap, and as much of a line as a quantity before a name takes.
_AMOUNT, _QUANTITY = 8, 4
# Date, total, cash and change have a line each.
_FIXED_LINES = 4


@dataclass(frozen=True)
class Item:
    """What was bought, how many, and the price of one in hundredths."""

    name: str
    quantity: int
    price: int

    @property
    def amount(self) -> int:
        """What all of them cost, in hundredths."""
        return self.quantity * self.price


@dataclass(frozen=True)
class Receipt:
    """Everything on a receipt; amounts in hundredths.

    Attributes:
        shop, address, date, items: as printed; `address` may be empty.
        rate: tax in per cent that is added to the items, None where none is shown.
        cash: what was handed over, None where it was paid by card.
        form: what stands before and after the digits of the sums.
    """

    shop: str
    address: tuple[str, ...]
    date: str
    time: str | None
    items: tuple[Item, ...]
    rate: int | None
    cash: int | None
    form: tuple[str, str]

    @property
    def subtotal(self) -> int:
        """The sum of the items."""
        return sum(item.amount for item in self.items)

    @property
    def tax(self) -> int:
        """Tax on the subtotal, half a hundredth rounded up."""
        return (2 * self.subtotal * (self.rate or 0) + 100) // 200

    @property
    def total(self) -> int:
        """What was to be paid."""
        return self.subtotal + self.tax

    @property
    def change(self) -> int | None:
        """What was given back, None where it was not paid in cash."""
        return None if self.cash is None else self.cash - self.total

    def written(self, cents: int) -> str:
        """One of the sums with its currency."""
        return self.form[0] + money(cents) + self.form[1]

    def lines(self, letters: int) -> int:
        """Lines it takes at that many letters a line, with an item in one line each."""
        heading = sum(math.ceil(len(text) / letters) for text in (self.shop, *self.address))
        return heading + _FIXED_LINES + len(self.items) + (0 if self.rate is None else 2)


def draw_receipt(rng: np.random.Generator, split: Split, letters: int, lines: int, per_item: int = 1) -> Receipt:
    """A receipt that fits.

    Args:
        rng: where chance comes from.
        split: to which all texts and amounts belong.
        letters, lines: room on the paper.
        per_item: lines that an item takes.

    Raises:
        PageOverflowError: there is no room for two items.
    """
    shop = draw_shop(rng, split)
    left = lines - _FIXED_LINES - math.ceil(len(shop) / letters)
    if left < FEWEST_ITEMS * per_item or letters <= _AMOUNT + _QUANTITY:
        raise PageOverflowError
    rate: int | None = None
    address: tuple[str, ...] = ()
    if left - 2 >= FEWEST_ITEMS * per_item and rng.random() < 0.6:
        rate, left = int(_RATES[rng.integers(len(_RATES))]), left - 2
    if left - 3 >= FEWEST_ITEMS * per_item and rng.random() < 0.6:
        address = (draw_address(rng, split), draw_town(rng, split))[: int(rng.integers(1, 3))]
        left -= sum(math.ceil(len(text) / letters) for text in address)
    most = max(FEWEST_ITEMS, min(MOST_ITEMS, left // per_item))
    count = int(rng.integers(FEWEST_ITEMS, most + 1, 2).max())
    names = draw_distinct(count, lambda: draw_goods(rng, split, letters - _AMOUNT - _QUANTITY))
    items = tuple(_draw_item(rng, split, name) for name in names)
    date, time = draw_date(rng, split), draw_time(rng, split)
    form = MONEY_FORMS[rng.integers(len(MONEY_FORMS))]
    shown = time if len(date) + len(time) + 2 <= letters and rng.random() < 0.7 else None
    paid_in_cash = split == "heldout" or bool(rng.random() < 0.75)
    return _balance(rng, split, Receipt(shop, address, date, shown, items, rate, None, form), paid_in_cash)


def _draw_item(rng: np.random.Generator, split: Split, name: str) -> Item:
    while True:
        quantity = int(rng.integers(2, _MOST_QUANTITY + 1)) if rng.random() < 0.3 else 1
        item = Item(name, quantity, draw_cents(rng, split, _MOST_PRICE))
        if owns(item.amount, split):
            return item


def _balance(rng: np.random.Generator, split: Split, receipt: Receipt, paid_in_cash: bool) -> Receipt:
    """The receipt with another price of its last item, so that the sums too belong to the split."""
    last = receipt.items[-1].name
    for _ in range(_TRIES):
        item = Item(last, 1, draw_cents(rng, split, _MOST_PRICE))
        tried = replace(receipt, items=(*receipt.items[:-1], item))
        if not all(owns(cents, split) for cents in (tried.total, tried.subtotal, tried.tax) if cents):
            continue
        if not paid_in_cash:
            return tried
        notes = {note * math.ceil((tried.total + 1) / note) for note in _NOTES}
        fitting = sorted(note for note in notes if owns(note - tried.total, split))
        if fitting:
            return replace(tried, cash=fitting[rng.integers(len(fitting))])
    raise PageOverflowError
