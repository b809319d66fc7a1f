"""How receipts are laid out: typst markup of six kinds, in `em`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from stages.workshop.corpus.rendering.figures import money
from stages.workshop.corpus.rendering.purchases import Item, Receipt
from stages.workshop.corpus.rendering.room import LETTER
from stages.workshop.corpus.rendering.typeset import quoted

_DATES = ("Date", "Date:", "", "")
_SUBTOTALS = ("Subtotal", "Sub-total", "Net")
_TAXES = ("Tax", "VAT", "GST")
_TOTALS = ("Total", "TOTAL", "Total due", "Amount due", "Grand total")
_CASH = ("Cash", "Paid cash", "Cash given")
_CARDS = ("Card", "Paid by card")
_CHANGES = ("Change", "CHANGE", "Change due")
_GAP = "0.25em"


@dataclass(frozen=True)
class Words:
    """The labels of one receipt."""

    date: str
    subtotal: str
    tax: str
    total: str
    cash: str
    card: str
    change: str


def draw_words(rng: np.random.Generator, receipt: Receipt, letters: int) -> Words:
    """One of the usual labels for each line, short enough to stand beside its amount."""
    beside = letters - len(receipt.written(max(receipt.total, receipt.cash or 0))) - 1
    sums = (_SUBTOTALS, _TAXES, _TOTALS, _CASH, _CARDS, _CHANGES)
    date = _DATES if letters > len(receipt.date) + len(_DATES[1]) else ("",)
    return Words(str(rng.choice(date)), *(_short(rng, options, beside) for options in sums))


def _short(rng: np.random.Generator, options: tuple[str, ...], letters: int) -> str:
    fitting = [option for option in options if len(option) <= letters]
    return str(rng.choice(fitting or [min(options, key=len)]))


def _columns(items: tuple[Item, ...]) -> str:
    cells = [cell for item in items for cell in (_counted(item), _text(money(item.amount)))]
    return _grid("(1fr, auto)", cells)


def _dotted(items: tuple[Item, ...]) -> str:
    dots = "box(width: 1fr, repeat(gap: 0.15em)[.])"
    rows = [f"{{ {_counted(item)}; h(0.4em); {dots}; h(0.4em); {_text(money(item.amount))} }}" for item in items]
    return _grid("(1fr,)", rows)


def _quantities(items: tuple[Item, ...]) -> str:
    rows = [[_text(str(item.quantity)), _text(item.name), _text(money(item.amount))] for item in items]
    cells = [_strong("Qty"), _strong("Item"), _strong("Amount"), *(cell for row in rows for cell in row)]
    return _grid("(auto, 1fr, auto)", cells, align="(right, left, right)")


def _two_lines(items: tuple[Item, ...]) -> str:
    cells = []
    for item in items:
        each = f"pad(left: 1em, {_text(f'{item.quantity} x {money(item.price)}')})"
        cells += [f"grid.cell(colspan: 2, {_text(item.name)})", each, _text(money(item.amount))]
    return _grid("(1fr, auto)", cells)


def _ruled(items: tuple[Item, ...]) -> str:
    rows = [[_counted(item), _text(money(item.amount))] for item in items]
    cells = ", ".join(cell for row in rows for cell in row)
    return f"table(columns: (1fr, auto), align: (left, right), inset: 0.18em, stroke: 0.05em + luma(120), {cells})"


def _striped(items: tuple[Item, ...]) -> str:
    fills = "(_, row) => if calc.odd(row) { luma(225) } else { none }"
    cells = ", ".join(cell for item in items for cell in (_text(money(item.amount)), _counted(item)))
    return (
        f"table(columns: (auto, 1fr), align: (right, left), inset: (x: 0.3em, y: 0.16em), stroke: none, "
        f"fill: {fills}, {cells})"
    )


_ITEMS: Mapping[str, Callable[[tuple[Item, ...]], str]] = MappingProxyType(
    {
        "columns": _columns,
        "dotted": _dotted,
        "quantities": _quantities,
        "two-lines": _two_lines,
        "ruled": _ruled,
        "striped": _striped,
    }
)
LAYOUTS = tuple(_ITEMS)
# Fewest letters a line with which a layout looks like one.
LEAST_LETTERS: Mapping[str, int] = MappingProxyType(
    {"columns": 16, "dotted": 18, "quantities": 20, "two-lines": 17, "ruled": 18, "striped": 18}
)


def markup(rng: np.random.Generator, receipt: Receipt, layout: str, letters: int, paper: str | None) -> str:
    """A receipt as typst markup, as wide as that many letters.

    Args:
        rng: chooses labels and rules.
        receipt: what stands on it.
        layout: one of `LAYOUTS`.
        letters: in a line.
        paper: colour of a slip that lies on the page, "#rrggbb"; None where the page is the paper.
    """
    words = draw_words(rng, receipt, letters)
    parts = [_heading(rng, receipt, words), _rule(rng), _ITEMS[layout](receipt.items), _rule(rng)]
    content = " ".join(f"#{part}" for part in (*parts, _sums(rng, receipt, words, letters)))
    slip = f"block(width: {letters * LETTER:.2f}em, breakable: false, [#set block(spacing: 0.4em)\n{content}])"
    if paper is not None:
        slip = f"block(fill: rgb({quoted(paper)}), inset: 0.5em, breakable: false, {slip})"
    return f"#align(center + {rng.choice(['top', 'horizon'])}, whole({slip}))"


def _heading(rng: np.random.Generator, receipt: Receipt, words: Words) -> str:
    side = str(rng.choice(["center", "center", "left"]))
    shop = f"text(weight: {quoted(str(rng.choice(['bold', 'regular'])))}, {quoted(receipt.shop)})"
    dates = [*([_text(words.date)] if words.date else []), _text(receipt.date)]
    if receipt.time is not None:
        dates = [dates[-1], _text(receipt.time)]
    below = (
        f"grid(columns: (1fr, auto), column-gutter: 0.4em, align: (left, right), {', '.join(dates)})"
        if len(dates) > 1
        else dates[0]
    )
    lines = [f"align({side}, {line})" for line in (shop, *map(_text, receipt.address))]
    return f"stack(spacing: {_GAP}, {', '.join([*lines, f'align({side}, {below})'])})"


def _sums(rng: np.random.Generator, receipt: Receipt, words: Words, letters: int) -> str:
    rows: list[tuple[str, str]] = []
    if receipt.rate is not None:
        rate = f"{words.tax} {receipt.rate}%"
        fits = len(rate) + len(money(receipt.tax)) < letters and rng.random() < 0.7
        rows += [(words.subtotal, money(receipt.subtotal)), (rate if fits else words.tax, money(receipt.tax))]
    written = receipt.written(receipt.total)
    total = (words.total, written)
    rows.append(total)
    if receipt.cash is None or receipt.change is None:
        rows.append((words.card, written))
    else:
        rows += [(words.cash, receipt.written(receipt.cash)), (words.change, receipt.written(receipt.change))]
    bold = bool(rng.random() < 0.6)
    cells = [(_strong if bold and row == total else _text)(text) for row in rows for text in row]
    return _grid("(1fr, auto)", cells)


def _counted(item: Item) -> str:
    return _text(item.name if item.quantity == 1 else f"{item.quantity} x {item.name}")


def _grid(columns: str, cells: list[str], align: str = "(left, right)") -> str:
    aligned = "left" if columns == "(1fr,)" else align
    return f"grid(columns: {columns}, align: {aligned}, column-gutter: 0.6em, row-gutter: {_GAP}, {', '.join(cells)})"


def _rule(rng: np.random.Generator) -> str:
    kind = str(rng.choice(["solid", "dashed", "dotted", "none"]))
    if kind == "none":
        return "v(0.2em, weak: true)"
    return f"line(length: 100%, stroke: (thickness: 0.06em, dash: {quoted(kind)}))"


def _text(text: str) -> str:
    return f"text({quoted(text)})"


def _strong(text: str) -> str:
    return f'text(weight: "bold", {quoted(text)})'
