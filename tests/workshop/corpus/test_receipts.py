"""Receipts add up, and each answer stands where the question says."""

from __future__ import annotations

from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import pytest

from stages.device.imaging.geometry import Size
from stages.workshop.corpus.rendering import receipt_layouts
from stages.workshop.corpus.rendering.page import Page, PageOverflowError
from stages.workshop.corpus.rendering.purchases import Receipt, draw_receipt
from stages.workshop.corpus.rendering.scene import Look

Make = Callable[..., Look]
Some = Callable[..., list[Page]]
Written = Callable[[Page], list[str]]
LABELS = {
    "receipt-total": ("Total", "TOTAL", "Total due", "Amount due", "Grand total"),
    "receipt-change": ("Change", "CHANGE", "Change due"),
}


def receipts(
    some_pages: Some, look: Make, split: str = "train", count: int = 80
) -> list[tuple[Page, Receipt, dict[str, str]]]:
    found = []
    for page in some_pages("receipt", split, look(size=Size(384, 512)), count):
        receipt = page.facts["receipt"]
        assert isinstance(receipt, Receipt)
        found.append((page, receipt, {exchange.task: exchange.answer for exchange in page.exchanges}))
    return found


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_printed_amounts_add_up(look: Make, some_pages: Some, written: Written, split: str) -> None:
    """Sums of the printed decimals, in decimal arithmetic."""
    taxed = 0
    for page, receipt, answers in receipts(some_pages, look, split):
        shown = written(page)
        amounts = [Decimal(f"{item.amount / 100:.2f}") for item in receipt.items]
        assert all(str(amount) in shown for amount in amounts)
        subtotal = sum(amounts, Decimal(0))
        tax = Decimal(0)
        if receipt.rate is not None:
            taxed += 1
            tax = (subtotal * receipt.rate / 100).quantize(Decimal("0.01"), ROUND_HALF_UP)
            assert str(subtotal) in shown and str(tax) in shown
        total = f"{receipt.form[0]}{subtotal + tax}{receipt.form[1]}"
        assert answers["receipt-total"] == total
        if receipt.cash is not None:
            change = Decimal(receipt.cash) / 100 - subtotal - tax
            assert answers["receipt-change"] == f"{receipt.form[0]}{change:.2f}{receipt.form[1]}" and change > 0
    assert taxed > 15


def test_answers_stand_beside_their_labels(look: Make, some_pages: Some, written: Written) -> None:
    change = 0
    for page, receipt, answers in receipts(some_pages, look):
        shown = written(page)
        for task, labels in LABELS.items():
            if task in answers:
                (place,) = (index for index, text in enumerate(shown) if text in labels)
                assert shown[place + 1] == answers[task]
                change += task == "receipt-change"
        assert shown[0] == answers["receipt-shop"] == receipt.shop
        assert shown.count(answers["receipt-date"]) == 1
        question = next(exchange.question for exchange in page.exchanges if exchange.task == "receipt-price")
        (item,) = (item for item in receipt.items if item.name in question)
        line = next(index for index, text in enumerate(shown) if text.endswith(item.name))
        offsets = {"striped": -1, "two-lines": 2}
        assert shown[line + offsets.get(str(page.facts["layout"]), 1)] == answers["receipt-price"]
        assert answers["receipt-count"] == str(len(receipt.items))
    assert change > 30


def test_no_item_s_name_is_part_of_another_s(look: Make, some_pages: Some) -> None:
    for _, receipt, _ in receipts(some_pages, look):
        names = [item.name.lower() for item in receipt.items]
        assert all(one not in other for one in names for other in names if one is not other)


def test_long_receipts_are_longer_than_a_tile(look: Make, some_pages: Some) -> None:
    counts = [
        len(page.facts["receipt"].items)  # type: ignore[attr-defined]
        for page in some_pages("receipt", "train", look(size=Size(192, 768)), 30)
    ]
    assert max(counts) > 20 and np.mean(counts) > 9


def test_every_layout_prints_the_same_receipt() -> None:
    rng = np.random.default_rng(3)
    receipt = draw_receipt(rng, "train", 30, 30)
    for layout in receipt_layouts.LAYOUTS:
        body = receipt_layouts.markup(np.random.default_rng(1), receipt, layout, 30, None)
        for item in receipt.items:
            assert item.name in body and f"{item.amount / 100:.2f}" in body


def test_no_room_no_receipt() -> None:
    with pytest.raises(PageOverflowError):
        draw_receipt(np.random.default_rng(0), "train", 30, 6)
    with pytest.raises(PageOverflowError):
        draw_receipt(np.random.default_rng(0), "train", 10, 40)
