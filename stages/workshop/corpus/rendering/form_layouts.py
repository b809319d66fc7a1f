"""How forms are laid out: typst markup of fields, boxes and tables, in `em`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from stages.workshop.corpus.rendering.entries import Choice, Field, Table
from stages.workshop.corpus.rendering.typeset import quoted


@dataclass(frozen=True)
class FieldStyle:
    """How fields are set: lines that one takes, fields side by side, whether the value stands beside its label."""

    lines: float
    across: int
    beside: bool
    set: Callable[[Sequence[Field]], str]


def _inline(fields: Sequence[Field]) -> str:
    rows = [
        f'{{ text(weight: "bold", {quoted(field.label + ":")}); h(0.4em); {_text(field.value)} }}' for field in fields
    ]
    return f"stack(spacing: 0.35em, {', '.join(rows)})"


def _lines(fields: Sequence[Field]) -> str:
    rule = "(bottom: 0.05em + luma(110))"
    cells = ", ".join(
        f"{_text(field.label)}, box(width: 100%, stroke: {rule}, {_text(field.value)})" for field in fields
    )
    return f"grid(columns: (auto, 1fr), column-gutter: 0.6em, row-gutter: 0.35em, {cells})"


def _ruled(fields: Sequence[Field]) -> str:
    cells = ", ".join(f"{_text(field.label)}, {_text(field.value)}" for field in fields)
    fill = "(column, _) => if column == 0 { luma(60%).transparentize(75%) } else { none }"
    return f"table(columns: (auto, 1fr), inset: 0.22em, stroke: 0.05em + luma(110), fill: {fill}, {cells})"


def _boxed(field: Field) -> str:
    value = f"box(width: 100%, inset: 0.2em, stroke: 0.05em + luma(110), {_text(field.value)})"
    return f"stack(spacing: 0.15em, text(size: 0.9em, {quoted(field.label)}), {value})"


def _below(fields: Sequence[Field]) -> str:
    return f"stack(spacing: 0.4em, {', '.join(map(_boxed, fields))})"


def _two_columns(fields: Sequence[Field]) -> str:
    cells = ", ".join(map(_boxed, fields))
    return f"grid(columns: (1fr, 1fr), column-gutter: 0.8em, row-gutter: 0.4em, {cells})"


def _right(fields: Sequence[Field]) -> str:
    cells = ", ".join(f"{_text(field.label)}, {_text(field.value)}" for field in fields)
    return f"grid(columns: (1fr, auto), align: (left, right), column-gutter: 0.6em, row-gutter: 0.35em, {cells})"


STYLES: Mapping[str, FieldStyle] = MappingProxyType(
    {
        "inline": FieldStyle(1.05, 1, True, _inline),
        "lines": FieldStyle(1.1, 1, True, _lines),
        "ruled": FieldStyle(1.15, 1, True, _ruled),
        "below": FieldStyle(2.3, 1, False, _below),
        "two-columns": FieldStyle(2.3, 2, False, _two_columns),
        "right": FieldStyle(1.05, 1, True, _right),
    }
)
LAYOUTS = tuple(STYLES)


def markup(
    rng: np.random.Generator,
    title: str,
    fields: Sequence[Field],
    choices: Sequence[Choice],
    table: Table | None,
    layout: str,
) -> str:
    """A form as typst markup; its parts after the title stand in any order."""
    side = str(rng.choice(["left", "center"]))
    mark, place = str(rng.choice(list(_MARKS))), str(rng.choice(["before", "after"]))
    parts = [STYLES[layout].set(fields), *(_choice(choice, mark, place) for choice in choices)]
    if table is not None:
        parts.append(_table(rng, table))
    order = rng.permutation(len(parts))
    heading = f'align({side}, text(weight: "bold", size: 1.1em, {quoted(title)}))'
    content = ", ".join([heading, *(parts[index] for index in order)])
    down = str(rng.choice(["top", "horizon"]))
    return f"#align({down}, whole(block(width: 100%, breakable: false, stack(spacing: 0.55em, {content}))))"


_BOX = "box(width: 0.85em, height: 0.85em, baseline: 0.1em, stroke: 0.06em + text.fill, {radius}{inside})"
# What a tick looks like in its box, drawn rather than printed: few fonts have one.
_MARKS: Mapping[str, str] = MappingProxyType(
    {
        "cross": "{{ place(line(start: (12%, 12%), end: (88%, 88%), stroke: 0.1em + text.fill)); "
        "place(line(start: (88%, 12%), end: (12%, 88%), stroke: 0.1em + text.fill)) }}",
        "tick": "{{ place(line(start: (12%, 50%), end: (42%, 85%), stroke: 0.12em + text.fill)); "
        "place(line(start: (42%, 85%), end: (95%, 8%), stroke: 0.12em + text.fill)) }}",
        "square": "align(center + horizon, square(size: 0.5em, stroke: none, fill: {ink}))",
    }
)


def _choice(choice: Choice, mark: str, place: str) -> str:
    round_box = choice.single and mark == "square"
    radius = "radius: 50%, " if round_box else ""
    inside = "align(center + horizon, circle(radius: 0.25em, stroke: none, fill: {ink}))" if round_box else _MARKS[mark]
    ticked = _BOX.format(radius=radius, inside=inside.format(ink="text.fill"))
    empty = _BOX.format(radius=radius, inside="none")
    boxes = []
    for index, option in enumerate(choice.options):
        parts = [ticked if index in choice.ticked else empty, "h(0.3em)", _text(option)]
        parts = parts if place == "before" else parts[::-1]
        boxes.append(f"box({{ {'; '.join(parts)} }})")
    content = "; h(1em, weak: true); sym.zws; ".join(boxes)
    return f"context {{ {_text(choice.label + ':')}; h(0.6em); {content} }}"


def _table(rng: np.random.Generator, table: Table) -> str:
    across = len(table.columns)
    head = [f'text(weight: "bold", {quoted(text)})' for text in (table.corner, *table.columns)]
    cells = ", ".join([*head, *(_text(text) for row in table.rows for text in row)])
    stroke = str(rng.choice(["0.05em + luma(110)", "(bottom: 0.05em + luma(110))"]))
    columns = f"({', '.join(['1fr', *['auto'] * across])})"
    return (
        f"table(columns: {columns}, align: (column, _) => if column == 0 {{ left }} else {{ right }}, "
        f"inset: 0.22em, stroke: {stroke}, {cells})"
    )


def _text(text: str) -> str:
    return f"text({quoted(text)})"
