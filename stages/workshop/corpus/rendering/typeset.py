"""Typst pages as pictures, with the fonts that typst carries, so that they look the same on every machine."""

from __future__ import annotations

import functools
import io

import typst
from PIL import Image

from stages.device.imaging.geometry import Size

FONTS = ("Libertinus Serif", "New Computer Modern", "DejaVu Sans Mono")


@functools.cache
def _compiler() -> typst.Compiler:
    # Loading the fonts takes ten times as long as a page.
    return typst.Compiler(ignore_system_fonts=True)


def typeset(body: str, size: Size, *, margin: float, paper: str, ink: str, font: str, height: float) -> Image.Image:
    """Sets one page.

    Args:
        body: typst markup; text from outside goes through `quoted` first.
        size: of the page in pixels.
        margin: in pixels on each side.
        paper: colour of the page, "#rrggbb".
        ink: colour of the text, "#rrggbb".
        font: one of `FONTS`.
        height: of the text in pixels.
    """
    source = (
        f"#set page(width: {size.width}pt, height: {size.height}pt, margin: {margin:.2f}pt)\n"
        f"#set page(fill: rgb({quoted(paper)}))\n"
        f"#set text(size: {height:.2f}pt, fill: rgb({quoted(ink)}), font: {quoted(font)}, hyphenate: false)\n"
        # Without this a line ends at its baseline, and tails of letters hang out of the page.
        f'#set text(top-edge: "ascender", bottom-edge: "descender")\n{body}\n'
    )
    # One point is one pixel at 72 points an inch.
    pages = _compiler().compile(source.encode(), format="png", ppi=72.0)
    page = pages if isinstance(pages, bytes) else (pages or [b""])[0]
    return Image.open(io.BytesIO(page)).convert("RGB").crop((0, 0, size.width, size.height))


def quoted(text: str) -> str:
    """Text as a typst string literal."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
