"""Problems in words or figures that are worked out: the answer alone, and the way to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from stages.workshop.corpus.rendering.documents import broken
from stages.workshop.corpus.rendering.family import Family
from stages.workshop.corpus.rendering.page import Page, PageOverflowError, draw_paper, draw_place
from stages.workshop.corpus.rendering.scene import Exchange, Look, Split, word_question
from stages.workshop.corpus.rendering.split import belongs
from stages.workshop.corpus.rendering.typeset import shown
from stages.workshop.corpus.rendering.vocabulary import draw_invented, draw_word

ANSWER_QUESTIONS = (
    "What is the answer to the problem?",
    "Solve the problem. Give only the number.",
    "Which number is the answer?",
)
STEPS_QUESTIONS = ("Solve the problem step by step.", "Work the problem out.", "Show how the problem is solved.")
LAYOUTS = ("plain", "titled", "boxed", "card")
_LETTER, _LINE = 0.56, 1.35
_SHORTEST, _LONGEST = 14, 60
_MARKUP = {
    "plain": "{body}",
    "titled": "#strong[Problem {number}]\n\n{body}",
    "boxed": "#box(stroke: 0.05em + ink, inset: 0.6em)[{body}]",
    "card": "#box(fill: color.mix((ink, 8%), (paper, 92%)), inset: 0.7em, radius: 0.4em)[{body}]",
}


@dataclass(frozen=True)
class Problem:
    """What is printed, as lines that may be broken, the steps, and the answer; `column`: figures one below another."""

    lines: tuple[str, ...]
    steps: tuple[str, ...]
    answer: int
    column: bool = False

    @property
    def worked(self) -> str:
        """The steps and the answer as one text."""
        return " ".join((*self.steps, f"The answer is {self.answer}."))


def _draw(rng: np.random.Generator, split: Split, look: Look) -> Page:
    margin = 0.05 * min(look.size)
    height = look.draw_height(rng)
    letters = min(_LONGEST, int((look.size.width - 2 * margin) / (height * _LETTER)) - 3)
    problem = _draw_own(rng, split)
    lines = [part for line in problem.lines for part in broken(line, letters)]
    if letters < _SHORTEST or (len(lines) + 3) * _LINE * height > look.size.height:
        raise PageOverflowError
    layout = look.draw_layout(rng, split, "problem", LAYOUTS)
    body = _column(problem) if problem.column else _stacked(lines)
    paper, ink = draw_paper(rng)
    return Page(
        _MARKUP[layout].format(body=body, number=rng.integers(1, 40)),
        look.size,
        font=look.draw_font(rng, split),
        height=height,
        smallest=look.heights[0],
        exchanges=(
            Exchange("problem", word_question(rng, ANSWER_QUESTIONS), str(problem.answer)),
            Exchange("problem-steps", word_question(rng, STEPS_QUESTIONS), problem.worked),
        ),
        texts=(" ".join(problem.lines),),
        place=draw_place(rng),
        margin=margin,
        paper=paper,
        ink=ink,
        facts={"layout": layout, "problem": problem},
    )


def _draw_own(rng: np.random.Generator, split: Split) -> Problem:
    """A problem whose text belongs to this split."""
    make = _KINDS[rng.integers(len(_KINDS))]
    while True:
        problem = make(rng, split)
        if belongs(" ".join(problem.lines), split):
            return problem


def _stacked(lines: list[str]) -> str:
    return "#align(left, stack(spacing: 0.35em, " + ", ".join(shown(line).removeprefix("#") for line in lines) + "))"


def _column(problem: Problem) -> str:
    """Figures one below another, with a line under them."""
    *above, last = problem.lines
    cells = ", ".join(f"[{shown(line)}]" for line in (*above, last))
    rule = f"grid.hline(y: {len(problem.lines)}, stroke: 0.06em + ink)"
    return f"#grid(columns: 1, align: right, row-gutter: 0.35em, inset: (y: 0.15em), {cells}, {rule}, [?])"


def _shopping(rng: np.random.Generator, split: Split) -> Problem:
    name, thing = draw_invented(rng, split).capitalize(), _plural(draw_word(rng, split))
    count, price, paid = int(rng.integers(2, 13)), int(rng.integers(2, 20)), int(rng.integers(1, 60))
    total = count * price
    return Problem(
        (f"{name} buys {count} {thing} for {price} coins each and pays with {total + paid} coins. "
         "How many coins come back?",),
        (f"{count} * {price} = {total}.", f"{total + paid} - {total} = {paid}."),
        paid,
    )  # fmt: skip


def _sharing(rng: np.random.Generator, split: Split) -> Problem:
    thing, people, each = _plural(draw_word(rng, split)), int(rng.integers(2, 10)), int(rng.integers(2, 13))
    left = int(rng.integers(1, 30))
    total = people * each
    return Problem(
        (f"There are {total + left} {thing}. {left} of them are broken. {people} people share the others equally. "
         f"How many does each get?",),
        (f"{total + left} - {left} = {total}.", f"{total} / {people} = {each}."),
        each,
    )  # fmt: skip


def _travel(rng: np.random.Generator, split: Split) -> Problem:
    place = draw_invented(rng, split).capitalize()
    speed, hours, more = 10 * int(rng.integers(3, 13)), int(rng.integers(2, 7)), int(rng.integers(5, 90))
    way = speed * hours
    return Problem(
        (f"A train drives {hours} hours at {speed} km an hour, then {more} km more to {place}. "
         "How many km is that in all?",),
        (f"{hours} * {speed} = {way}.", f"{way} + {more} = {way + more}."),
        way + more,
    )  # fmt: skip


def _boxes(rng: np.random.Generator, split: Split) -> Problem:
    thing = _plural(draw_word(rng, split))
    boxes, each, gone = int(rng.integers(2, 13)), int(rng.integers(3, 13)), int(rng.integers(1, 6))
    total = boxes * each
    return Problem(
        (f"{boxes} boxes hold {each} {thing} each. {gone} {thing} are sold. How many are left?",),
        (f"{boxes} * {each} = {total}.", f"{total} - {gone} = {total - gone}."),
        total - gone,
    )


def _chain(rng: np.random.Generator, split: Split) -> Problem:
    one, two, three = int(rng.integers(2, 100)), int(rng.integers(2, 13)), int(rng.integers(2, 13))
    product = two * three
    return Problem(
        (f"{one} + {two} * {three} = ?",),
        (f"{two} * {three} = {product}.", f"{one} + {product} = {one + product}."),
        one + product,
    )


def _unknown(rng: np.random.Generator, split: Split) -> Problem:
    factor, root, more = int(rng.integers(2, 13)), int(rng.integers(2, 21)), int(rng.integers(1, 60))
    total = factor * root + more
    return Problem(
        (f"{factor}x + {more} = {total}", "What is x?"),
        (f"{total} - {more} = {factor * root}.", f"{factor * root} / {factor} = {root}."),
        root,
    )


def _addition(rng: np.random.Generator, split: Split) -> Problem:
    numbers = [int(number) for number in rng.integers(10, 1000, int(rng.integers(2, 4)))]
    steps, total = [], numbers[0]
    for number in numbers[1:]:
        steps.append(f"{total} + {number} = {total + number}.")
        total += number
    first, *others = numbers
    return Problem((str(first), *(f"+ {number}" for number in others)), tuple(steps), total, column=True)


def _plural(noun: str) -> str:
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


_KINDS: tuple[Callable[[np.random.Generator, Split], Problem], ...] = (
    *(_shopping, _sharing, _travel, _boxes),
    *(_chain, _unknown, _addition),
)
PROBLEM = Family(("problem", "problem-steps"), _draw, LAYOUTS)
