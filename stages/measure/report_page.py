"""A report as one HTML file: figures first, tables behind, nothing beside it, no script, light or dark as is wanted.

`standalone` makes a file of its own of a figure: the same style travels inside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from stages.artifacts.atomic_file import write_atomically

REPORT_FILE = "report.html"
_PAGE, _STYLE = "report.html", "report.css"


def render_page(generator: str, title: str, facts: str, figures: Iterable[str], tables: Iterable[str]) -> str:
    """The whole page.

    Args:
        generator: the command that wrote it.
        title: its heading.
        facts: one paragraph below it.
        figures: sections, see `section`.
        tables: see `table`.
    """
    return Template(_read(_PAGE)).substitute(
        generator=escape(generator, quote=True),
        style=_read(_STYLE),
        title=escape(title),
        facts=escape(facts),
        figures="\n".join(figures),
        tables="\n".join(tables),
    )


def section(title: str, about: str, drawing: str) -> str:
    """A figure below its heading and a sentence or two about it."""
    return f"<h2>{escape(title)}</h2>\n<p>{escape(about)}</p>\n<figure>{drawing}</figure>"


def note(text: str, kind: str = "") -> str:
    """A paragraph that stands out: "finding" or "warning"."""
    return f'<p class="{escape(kind, quote=True)}">{escape(text)}</p>'


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    words: Iterable[str] = (),
    long: Iterable[str] = (),
) -> str:
    """A table; columns of words are set to the left, long ones may break."""
    left, wide = set(words), set(long)
    kinds = ["words long" if name in wide else "words" if name in left else "" for name in columns]
    head = "".join(f'<th class="{kind}">{escape(name)}</th>' for name, kind in zip(columns, kinds, strict=True))
    body = "\n".join(
        "<tr>" + "".join(f'<td class="{k}">{escape(cell)}</td>' for cell, k in zip(row, kinds, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="table"><table><caption>{escape(title)}</caption><tr>{head}</tr>\n{body}</table></div>'


def standalone(svg: str) -> str:
    """A figure as an SVG file that any viewer opens; it too follows light and dark."""
    opening, _, rest = svg.partition(">")
    attributes = opening.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    ground = "svg { background: var(--paper); padding: 16px; font: 13px system-ui, sans-serif; }"
    return f"{attributes}>\n<style>\n{_read(_STYLE)}{ground}\n</style>{rest}\n"


def write_page(file: Path, content: str) -> None:
    """Writes a file in one step: whoever looks sees the old one or the new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, content)


def _read(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")
