"""A formula or some labelled ones: read as LaTeX or as plain text."""

from __future__ import annotations

import numpy as np

from stages.workshop.corpus.rendering.expressions import Formula, draw_formula
from stages.workshop.corpus.rendering.family import Family
from stages.workshop.corpus.rendering.page import Page, PageOverflowError, draw_paper, draw_place
from stages.workshop.corpus.rendering.scene import Exchange, Look, Split, not_there, word_question
from stages.workshop.corpus.rendering.split import belongs

LATEX_QUESTIONS = ("Write {which} in LaTeX.", "Give {which} as LaTeX.", "What is {which} in LaTeX?")
PLAIN_QUESTIONS = ("Write {which} as plain text.", "Read {which} as plain text.", "Type {which} on one line.")
LAYOUTS = ("display", "boxed", "numbered", "labelled", "tinted")
_LABELS = "abcd"
# Indices are set at this part of the text's height.
_INDEX = 0.7
_DEEPEST = 3
_LETTERS = 60
# Width of a sign, of what stands beside a formula and height of one, over the text's height.
_LETTER, _BESIDE, _LINE = 0.36, 2.0, 2.8
_MARKUP = {
    "display": "{formula}",
    "boxed": "#box(stroke: 0.05em + ink, inset: 0.5em)[{formula}]",
    "numbered": "{formula} #h(1.5em) ({number})",
    "tinted": "#box(fill: color.mix((ink, 8%), (paper, 92%)), inset: 0.5em, radius: 0.2em)[{formula}]",
}


def _draw(rng: np.random.Generator, split: Split, look: Look) -> Page:
    layout = look.draw_layout(rng, split, "formula", LAYOUTS)
    count = int(rng.integers(2, len(_LABELS) + 1)) if layout == "labelled" else 1
    deepest = int(rng.integers(1, _DEEPEST + 1)) if count == 1 else int(rng.integers(1, _DEEPEST))
    formulas = [_draw_own(rng, split, deepest) for _ in range(count)]
    asked = int(rng.integers(count))
    which = f"formula ({_LABELS[asked]})" if count > 1 else "the formula"
    latex, plain = word_question(rng, LATEX_QUESTIONS, which=which), word_question(rng, PLAIN_QUESTIONS, which=which)
    smallest, margin = look.heights[0] / _INDEX, 0.05 * min(look.size)
    longest = max(len(formula.plain) for formula in formulas)
    wide, high = (length - 2 * margin for length in look.size)
    highest = min(wide / (_LETTER * longest + _BESIDE), high / (_LINE * count))
    if highest < 0.85 * smallest:
        raise PageOverflowError
    paper, ink = draw_paper(rng)
    return Page(
        # Typst lets formulas in a line hang out of it by part of the leading.
        f"#set par(leading: 0em)\n{_markup(rng, formulas, layout)}",
        look.size,
        font=look.draw_font(rng, split),
        height=max(smallest, look.draw_height(rng, highest)),
        smallest=smallest,
        exchanges=(
            Exchange("formula-latex", latex, formulas[asked].latex),
            Exchange("formula-plain", plain, formulas[asked].plain),
        ),
        texts=tuple(formula.latex for formula in formulas),
        absent=_absent(rng, count),
        place=draw_place(rng),
        margin=margin,
        paper=paper,
        ink=ink,
        facts={"layout": layout, "formulas": formulas},
    )


def _draw_own(rng: np.random.Generator, split: Split, deepest: int) -> Formula:
    """A formula of this split that is more than one sign and not too long."""
    for _ in range(100):
        formula = draw_formula(rng, deepest)
        if 3 < len(formula.plain) <= _LETTERS and belongs(formula.latex, split):
            return formula
    raise PageOverflowError


def _absent(rng: np.random.Generator, count: int) -> tuple[Exchange, ...]:
    """Asks for a label that no formula has."""
    if count == 1:
        return ()
    which = f"formula ({'efgh'[rng.integers(4)]})"
    return (not_there(word_question(rng, LATEX_QUESTIONS + PLAIN_QUESTIONS, which=which)),)


def _markup(rng: np.random.Generator, formulas: list[Formula], layout: str) -> str:
    if layout == "labelled":
        cells = ", ".join(
            f"[({label})], [${_display(formula)}$]" for label, formula in zip(_LABELS, formulas, strict=False)
        )
        return f"#grid(columns: 2, column-gutter: 0.8em, row-gutter: 1em, align: left + horizon, {cells})"
    return _MARKUP[layout].format(formula=f"${_display(formulas[0])}$", number=rng.integers(1, 30))


def _display(formula: Formula) -> str:
    return f"display({formula.typst})"


FORMULA = Family(("formula-latex", "formula-plain"), _draw, LAYOUTS)
