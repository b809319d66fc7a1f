"""Receipts of shops, short ones and longer than a tile: total, date, shop, price of an item, how many items, change."""

from __future__ import annotations

import numpy as np

from stages.workshop.corpus.rendering.family import Family
from stages.workshop.corpus.rendering.figures import money
from stages.workshop.corpus.rendering.names import draw_distinct, draw_goods
from stages.workshop.corpus.rendering.page import Page, PageOverflowError
from stages.workshop.corpus.rendering.purchases import Receipt, draw_receipt
from stages.workshop.corpus.rendering.receipt_layouts import LAYOUTS, LEAST_LETTERS, markup
from stages.workshop.corpus.rendering.room import Room
from stages.workshop.corpus.rendering.scene import Exchange, Look, Split, not_there, word_question

TOTAL_QUESTIONS = (
    "What is the total?",
    "What is the total amount?",
    "How much is the total?",
    "What does everything cost together?",
    "Read the total from the receipt.",
)
DATE_QUESTIONS = (
    "What is the date?",
    "What is the date on the receipt?",
    "On which date was this bought?",
    "Read the date of the receipt.",
)
SHOP_QUESTIONS = (
    "Which shop is this receipt from?",
    "What is the name of the shop?",
    "Which company is named on the receipt?",
    "Who issued this receipt?",
)
PRICE_QUESTIONS = (
    "How much was paid for {item}?",
    "What was paid for {item}?",
    "What did {item} cost in all?",
    "How much did the customer pay for {item}?",
)
COUNT_QUESTIONS = (
    "How many different items are on the receipt?",
    "How many different items were bought?",
    "Count the different items on the receipt.",
)
CHANGE_QUESTIONS = ("How much change was given?", "What is the change?", "How much change did the customer get?")
TIP_QUESTIONS = ("How much was the tip?", "What is the phone number of the shop?", "Who served the customer?")
PAPERS = ("#ffffff", "#fdfcf7", "#f6f4ee", "#f4f7f8", "#fbf6e6")
INKS = ("#000000", "#202020", "#303048", "#3a3030")
# Letters a line varies by so many; lines that rules, paddings and gaps take.
_WIDER = 14
_RULES = 2


def _draw(rng: np.random.Generator, split: Split, look: Look) -> Page:
    layout = look.draw_layout(rng, split, "receipt", LAYOUTS)
    margin = max(3.0, 0.03 * min(look.size))
    room, least = Room.on(look.size, margin), look.heights[0]
    letters = min(room.letters(least), int(LEAST_LETTERS[layout] + rng.integers(0, _WIDER)))
    if letters < LEAST_LETTERS[layout]:
        raise PageOverflowError
    header, per_item = (1 if layout == "quantities" else 0), (2 if layout == "two-lines" else 1)
    extra = _RULES + header
    receipt = draw_receipt(rng, split, letters, room.lines(least) - extra, per_item)
    lines = receipt.lines(letters) + (per_item - 1) * len(receipt.items) + extra
    fitting = min(room.height_for(letters + 1, lines), look.heights[1])
    paper = str(rng.choice(PAPERS))
    on_desk = bool(rng.random() < 0.4)
    return Page(
        body=markup(rng, receipt, layout, letters, paper if on_desk else None),
        size=look.size,
        font=look.draw_font(rng, split),
        height=max(least, fitting * rng.uniform(0.8, 1.0)),
        smallest=least,
        exchanges=tuple(_exchanges(rng, receipt)),
        texts=_texts(receipt, layout),
        absent=(_absent(rng, split, receipt, letters),),
        margin=margin,
        paper=_desk(rng) if on_desk else paper,
        ink=str(rng.choice(INKS)),
        facts={"receipt": receipt, "layout": layout},
    )


def _desk(rng: np.random.Generator) -> str:
    """A colour that a slip of paper may lie on."""
    return "#" + "".join(f"{level:02x}" for level in rng.integers(60, 200, 3))


def _exchanges(rng: np.random.Generator, receipt: Receipt) -> list[Exchange]:
    item = receipt.items[rng.integers(len(receipt.items))]
    found = [
        Exchange("receipt-total", word_question(rng, TOTAL_QUESTIONS), receipt.written(receipt.total)),
        Exchange("receipt-date", word_question(rng, DATE_QUESTIONS), receipt.date),
        Exchange("receipt-shop", word_question(rng, SHOP_QUESTIONS), receipt.shop),
        Exchange("receipt-price", word_question(rng, PRICE_QUESTIONS, item=item.name), money(item.amount)),
        Exchange("receipt-count", word_question(rng, COUNT_QUESTIONS), str(len(receipt.items))),
    ]
    if receipt.change is not None:
        change = receipt.written(receipt.change)
        found.append(Exchange("receipt-change", word_question(rng, CHANGE_QUESTIONS), change))
    return found


def _absent(rng: np.random.Generator, split: Split, receipt: Receipt, letters: int) -> Exchange:
    """Asks for an item that was not bought, or for what no receipt of ours tells."""
    bought = [item.name for item in receipt.items]
    other = draw_distinct(1, lambda: draw_goods(rng, split, letters), bought)[0]
    wordings = PRICE_QUESTIONS if rng.random() < 0.7 else TIP_QUESTIONS
    return not_there(word_question(rng, wordings, item=other))


def _texts(receipt: Receipt, layout: str) -> tuple[str, ...]:
    """What belongs to one split; cash is a round sum, and labels are the same everywhere."""
    amounts = [money(item.amount) for item in receipt.items]
    amounts += [money(item.price) for item in receipt.items if layout == "two-lines"]
    sums = [receipt.total, *([] if receipt.rate is None else [receipt.subtotal, receipt.tax])]
    sums += [] if receipt.change is None else [receipt.change]
    names = [receipt.shop, *receipt.address, receipt.date, *([] if receipt.time is None else [receipt.time])]
    return (*names, *(item.name for item in receipt.items), *amounts, *map(money, sums))


RECEIPTS = Family(
    ("receipt-total", "receipt-date", "receipt-shop", "receipt-price", "receipt-count", "receipt-change"),
    _draw,
    LAYOUTS,
)
