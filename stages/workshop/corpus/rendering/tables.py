"""A table of words and numbers: its cells, sums, extremes and headers, and the whole of it as Markdown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from stages.workshop.corpus.rendering.family import Family
from stages.workshop.corpus.rendering.page import Page, draw_paper, draw_place
from stages.workshop.corpus.rendering.scene import Exchange, Look, Split, not_there, word_question
from stages.workshop.corpus.rendering.typeset import shown
from stages.workshop.corpus.rendering.vocabulary import draw_number, draw_word

CELL_QUESTIONS = ("What is the {column} of {row}?", "Look up the {column} of {row}.", "Which {column} does {row} have?")
COLUMN_SUM_QUESTIONS = ("What is the sum of the column {column}?", "Add up the numbers under {column}.")
ROW_SUM_QUESTIONS = ("What is the sum of the row {row}?", "Add up the numbers of {row}.")
LARGEST_QUESTIONS = ("Which row has the largest {column}?", "Which {corner} has the largest {column}?")
SMALLEST_QUESTIONS = ("Which row has the smallest {column}?", "Which {corner} has the smallest {column}?")
HEADER_QUESTIONS = ("What is the name of column {number}?", "Which header has column {number}?")
ROWS_QUESTIONS = ("How many rows are below the header?", "How many rows of data does the table have?")
MARKDOWN_QUESTIONS = ("Write the table as Markdown.", "Turn the table into Markdown.", "Give the table in Markdown.")
LAYOUTS = ("grid", "rules", "zebra", "ledger", "header", "cards")
_ROWS, _COLUMNS = (2, 9), (1, 5)
# Height of a row and width of a letter and of what stands beside a text, over the height of the text.
_LINE, _LETTER, _BESIDE = 1.75, 0.6, 1.0


@dataclass(frozen=True)
class Table:
    """A corner word, names of columns and rows, and the numbers where they meet, all as they are printed."""

    corner: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]

    @property
    def lines(self) -> tuple[tuple[str, ...], ...]:
        """All texts, line by line, the header first."""
        body = ((name, *cells) for name, cells in zip(self.rows, self.cells, strict=True))
        return ((self.corner, *self.columns), *body)

    def column(self, index: int) -> list[int]:
        """The numbers of a column."""
        return [int(line[index]) for line in self.cells]

    def markdown(self) -> str:
        """The table as Markdown writes it."""
        rule = ("---",) * (len(self.columns) + 1)
        head, *body = self.lines
        return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *body))


def _draw(rng: np.random.Generator, split: Split, look: Look) -> Page:
    margin = 0.04 * min(look.size)
    height = look.draw_height(rng)
    table = _draw_table(rng, split, (look.size.width - 2 * margin) / height, (look.size.height - 2 * margin) / height)
    layout = look.draw_layout(rng, split, "table", LAYOUTS)
    paper, ink = draw_paper(rng)
    return Page(
        _markup(table, layout),
        look.size,
        font=look.draw_font(rng, split),
        height=height,
        smallest=look.heights[0],
        exchanges=tuple(_exchanges(rng, table)),
        texts=tuple(text for line in table.lines for text in line),
        absent=tuple(_absent(rng, split, table)),
        place=draw_place(rng),
        margin=margin,
        paper=paper,
        ink=ink,
        facts={"table": table, "layout": layout},
    )


def _draw_table(rng: np.random.Generator, split: Split, width: float, height: float) -> Table:
    """A table that may fit a page of that size, given in heights of its text; small ones where there is little room."""
    most_rows = int(np.clip(height / _LINE - 1, _ROWS[0], _ROWS[1]))
    most_columns = int(np.clip(width / (7 * _LETTER + _BESIDE) - 1, _COLUMNS[0], _COLUMNS[1]))
    rows, columns = int(rng.integers(_ROWS[0], most_rows + 1)), int(rng.integers(_COLUMNS[0], most_columns + 1))
    names = distinct(rows + columns + 1, lambda: draw_word(rng, split))
    if rng.random() < 0.5:
        names = [name.capitalize() for name in names]
    cells = tuple(tuple(draw_number(rng, split) for _ in range(columns)) for _ in range(rows))
    return Table(names[0], tuple(names[1 : columns + 1]), tuple(names[columns + 1 :]), cells)


def _exchanges(rng: np.random.Generator, table: Table) -> list[Exchange]:
    row, column = int(rng.integers(len(table.rows))), int(rng.integers(len(table.columns)))
    words = {"corner": table.corner, "column": table.columns[column], "row": table.rows[row]}
    found = [Exchange("table", word_question(rng, CELL_QUESTIONS, **words), table.cells[row][column])]
    if len(table.columns) > 1 and rng.random() < 0.5:
        total = sum(map(int, table.cells[row]))
        found.append(Exchange("table-sum", word_question(rng, ROW_SUM_QUESTIONS, **words), str(total)))
    else:
        question = word_question(rng, COLUMN_SUM_QUESTIONS, **words)
        found.append(Exchange("table-sum", question, str(sum(table.column(column)))))
    numbers = table.column(column)
    wordings, extreme = (LARGEST_QUESTIONS, max) if rng.random() < 0.5 else (SMALLEST_QUESTIONS, min)
    if numbers.count(extreme(numbers)) == 1:
        answer = table.rows[numbers.index(extreme(numbers))]
        found.append(Exchange("table-extreme", word_question(rng, wordings, **words), answer))
    number = int(rng.integers(len(table.columns) + 1))
    question = word_question(rng, HEADER_QUESTIONS, number=str(number + 1))
    found.append(Exchange("table-header", question, table.lines[0][number]))
    found.append(Exchange("table-rows", word_question(rng, ROWS_QUESTIONS), str(len(table.rows))))
    found.append(Exchange("table-markdown", word_question(rng, MARKDOWN_QUESTIONS), table.markdown()))
    return found


def _absent(rng: np.random.Generator, split: Split, table: Table) -> list[Exchange]:
    """Asks for a row and for a column that the table lacks."""
    names = {text.casefold() for line in table.lines for text in line}
    while (word := draw_word(rng, split)) in names:
        pass
    other = word.capitalize() if table.corner[0].isupper() else word
    row, column = table.rows[rng.integers(len(table.rows))], table.columns[rng.integers(len(table.columns))]
    pairs = ({"row": other, "column": column}, {"row": row, "column": other})
    return [not_there(word_question(rng, CELL_QUESTIONS, **pair)) for pair in pairs]


def distinct(count: int, draw: Callable[[], str]) -> list[str]:
    """That many texts that differ in more than their case."""
    found: dict[str, str] = {}
    while len(found) < count:
        text = draw()
        found.setdefault(text.casefold(), text)
    return list(found.values())


def _markup(table: Table, layout: str) -> str:
    """The table in one of its layouts; every text is a cell of its own."""
    columns = len(table.columns) + 1
    cells = ", ".join(f"[{shown(text)}]" for line in table.lines for text in line)
    head = 'table.cell(fill: ink, text(fill: paper, weight: "bold", {text}))'
    if layout in ("header", "cards"):
        texts = [head.format(text=shown(text).removeprefix("#")) for text in table.lines[0]]
        body = ", ".join(f"[{shown(text)}]" for line in table.lines[1:] for text in line)
        cells = f"{', '.join(texts)}, {body}"
    options = {
        "grid": "inset: 0.3em, stroke: 0.04em + ink",
        "rules": "inset: 0.3em, stroke: none, table.hline(y: 0, stroke: 0.08em + ink), "
        "table.hline(y: 1, stroke: 0.04em + ink), "
        f"table.hline(y: {len(table.rows) + 1}, stroke: 0.08em + ink)",
        "zebra": "inset: 0.3em, stroke: none, fill: (_, y) => if calc.odd(y) { color.mix((ink, 12%), (paper, 88%)) }",
        "ledger": "inset: (x: 0.5em, y: 0.3em), stroke: (x, y) => if y > 0 { (top: 0.03em + ink) }, "
        "align: (x, y) => if x == 0 { left } else { right }",
        "header": "inset: 0.35em, stroke: 0.03em + ink, align: center",
        "cards": "inset: 0.35em, stroke: none, gutter: 0.15em, "
        "fill: (x, y) => color.mix((ink, 8%), (paper, 92%)), align: (x, y) => if x == 0 { left } else { right }",
    }[layout]
    return f"#table(columns: {columns}, {options}, {cells})"


TABLE = Family(("table", "table-sum", "table-extreme", "table-header", "table-rows", "table-markdown"), _draw, LAYOUTS)
