"""A small table of words and numbers: what stands in one of its cells."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stages.workshop.corpus.rendering.family import Family
from stages.workshop.corpus.rendering.page import Page, draw_paper
from stages.workshop.corpus.rendering.scene import Exchange, Look, Split, word_question
from stages.workshop.corpus.rendering.typeset import quoted
from stages.workshop.corpus.rendering.vocabulary import draw_number, draw_word

QUESTIONS = ("What is the {column} of {row}?", "Look up the {column} of {row}.")
_ROWS = (2, 4)
_COLUMNS = (1, 2)
# Height of a row over that of its text.
_LINE = 1.9


def _draw(rng: np.random.Generator, split: Split, look: Look) -> Page:
    rows, columns = int(rng.integers(_ROWS[0], _ROWS[1] + 1)), int(rng.integers(_COLUMNS[0], _COLUMNS[1] + 1))
    # A corner word, names of columns and names of rows, all different.
    names = _distinct(rows + columns + 1, lambda: draw_word(rng, split))
    corner, across, down = names[0], names[1 : columns + 1], names[columns + 1 :]
    cells = [[draw_number(rng, split) for _ in across] for _ in down]
    row, column = int(rng.integers(rows)), int(rng.integers(columns))
    table = [[corner, *across], *([name, *numbers] for name, numbers in zip(down, cells, strict=True))]
    paper, ink = draw_paper(rng)
    side = min(look.size)
    question = word_question(rng, QUESTIONS, column=across[column], row=down[row])
    return Page(
        _markup(table),
        look.size,
        font=look.draw_font(rng, split),
        height=look.draw_height(rng, _height(table, look, side)),
        smallest=look.heights[0],
        exchanges=(Exchange("table", question, cells[row][column]),),
        texts=tuple(text for line in table for text in line),
        margin=0.04 * side,
        paper=paper,
        ink=ink,
        facts={"table": table},
    )


def _distinct(count: int, draw: Callable[[], str]) -> list[str]:
    """That many different texts."""
    found: dict[str, None] = {}
    while len(found) < count:
        found.setdefault(draw())
    return list(found)


def _markup(table: list[list[str]]) -> str:
    cells = ", ".join(f"text({quoted(text)})" for line in table for text in line)
    return f"#align(center + horizon, table(columns: {len(table[0])}, inset: 0.3em, stroke: 0.04em, {cells}))"


def _height(table: list[list[str]], look: Look, side: int) -> float:
    """Height of the text with which the table fits: its longest words in each column, its lines."""
    letters = sum(max(len(line[column]) for line in table) + 1 for column in range(len(table[0])))
    across = 0.92 * look.size.width / (0.66 * letters)
    return min(across, 0.92 * look.size.height / (_LINE * len(table)), 0.2 * side)


TABLE = Family(("table",), _draw)
