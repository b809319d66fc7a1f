"""A page of typst markup, its questions, and how it becomes a scene: whole, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from stages.device.imaging.geometry import Size
from stages.workshop.corpus.rendering.fonts import FontShelf
from stages.workshop.corpus.rendering.scene import Exchange, Scene
from stages.workshop.corpus.rendering.typeset import TOO_WIDE, quoted, typeset

# For markup: `whole(body)` refuses content that typst would let run out of its room or over its neighbour;
# `snug(body)` is a block as wide as its widest line; `flow(room, body)` breaks lines where they are wider than that.
PRELUDE = (
    "#let whole(body) = layout(room => { "
    f"if measure(body).width > room.width + 0.01pt {{ panic({quoted(TOO_WIDE)}) }}; body }})\n"
    "#let snug(body) = context block(width: measure(body).width, body)\n"
    "#let flow(room, body) = context if measure(body).width > room { block(width: room, body) } else { body }\n"
)
_SMALLER = 0.88
_DARK = 0.12
_ALIGNED = 0.4
# Scripts that are written from right to left, with a language that typst knows.
_RIGHT_TO_LEFT = {"arabic": "ar", "hebrew": "he"}


class PageOverflowError(Exception):
    """What a page should hold does not fit at a height that can be read; another is drawn instead."""


@dataclass(frozen=True)
class Page:
    """A page as markup, one point to the pixel.

    Markup gives sizes in `em`, so that the page can be set smaller where it does not fit.

    Attributes:
        body: typst markup; texts in it went through `typeset.quoted` or `shown`. `paper` and `ink` are the colours;
            `PRELUDE` has some functions.
        size: in pixels.
        font: name of a font on the shelf.
        height: of the text in pixels ("1em").
        smallest: height below which nobody could read it.
        exchanges: what can be asked, each with one right answer.
        texts: everything written that belongs to one split.
        absent: questions of the task "absent", about what such a page might hold and this one does not.
        place: where the body lies in the room that it leaves, (0, 0) top left and (1, 1) bottom right; it is then set
            alone, which takes half the time, and known to be whole by its size. None: it is laid out on the whole page.
        margin: in pixels on each side.
        paper, ink: colours, "#rrggbb".
        script: of the font; decides the direction.
        bleed: the page may be coloured up to its edges; otherwise its outermost pixels must be paper.
        facts: what tests want to know.
    """

    body: str
    size: Size
    font: str
    height: float
    smallest: float
    exchanges: tuple[Exchange, ...]
    texts: tuple[str, ...] = ()
    absent: tuple[Exchange, ...] = ()
    place: tuple[float, float] | None = None
    margin: float = 8.0
    paper: str = "#ffffff"
    ink: str = "#000000"
    script: str = "latin"
    bleed: bool = False
    facts: Mapping[str, object] = field(default_factory=dict)


def compose(page: Page, shelf: FontShelf) -> Scene:
    """Typesets a page; one that runs over is set smaller.

    Raises:
        PageOverflowError: it does not fit even at its smallest.
    """
    height = page.height
    while height >= page.smallest:
        picture = typeset(source(page, height), shelf.folders)
        if picture is not None and page.place is not None:
            picture = _placed(page, page.place, picture, _edge(height))
        elif picture is not None and not page.bleed and not has_clear_edges(picture, page.paper):
            picture = None
        if picture is not None:
            return Scene(picture, page.exchanges, page.texts, facts={**page.facts, "height": height})
        height *= _SMALLER
    raise PageOverflowError


def _edge(height: float) -> int:
    """Pixels of paper around a body that is set alone, for what hangs out of its letters' boxes."""
    return max(2, round(0.15 * height))


def _placed(page: Page, place: tuple[float, float], body: Image.Image, edge: int) -> Image.Image | None:
    """A body that was set alone, on its page; None where there is no room for it."""
    room = [size - 2 * page.margin - (taken - 2 * edge) for size, taken in zip(page.size, body.size, strict=True)]
    if min(room) < 0 or not has_clear_edges(body, page.paper):
        return None
    picture = Image.new("RGB", page.size, page.paper)
    across, down = (round(page.margin + share * free) - edge for share, free in zip(place, room, strict=True))
    picture.paste(body, (across, down))
    return picture


def source(page: Page, height: float) -> str:
    """The whole typst document of a page at one height of text."""
    language = _RIGHT_TO_LEFT.get(page.script)
    direction = f", lang: {quoted(language)}" if language else ""
    if page.place is not None:
        room = f"width: auto, height: auto, margin: {_edge(height)}pt"
    else:
        room = f"width: {page.size.width}pt, height: {page.size.height}pt, margin: {page.margin:.2f}pt"
    return (
        f"{PRELUDE}#let paper = rgb({quoted(page.paper)})\n#let ink = rgb({quoted(page.ink)})\n"
        f"#set page({room}, fill: paper)\n"
        # No fallback: a text stands in the font that the manifest names.
        f"#set text(size: {height:.2f}pt, fill: ink, font: {quoted(page.font)}, "
        f"hyphenate: false, fallback: false{direction})\n"
        # Without this a line ends at its baseline, and tails of letters hang out of the page.
        f'#set text(top-edge: "ascender", bottom-edge: "descender")\n'
        f"#set par(spacing: 0.5em, leading: 0.25em)\n{page.body}\n"
    )


def has_clear_edges(picture: Image.Image, paper: str) -> bool:
    """Whether the outermost pixels are all of the paper's colour, so that nothing can have been cut."""
    width, height = picture.size
    edges = ((0, 0, width, 1), (0, height - 1, width, height), (0, 0, 1, height), (width - 1, 0, width, height))
    plain = tuple(int(paper[at : at + 2], 16) for at in (1, 3, 5))
    return all((colours := picture.crop(edge).getcolors(1)) is not None and colours[0][1] == plain for edge in edges)


def draw_paper(rng: np.random.Generator) -> tuple[str, str]:
    """Colours of paper and ink, "#rrggbb" each: mostly a light paper and a dark ink, sometimes the reverse."""
    light, dark = rng.integers(205, 256, 3), rng.integers(0, 100, 3)
    if rng.random() < _DARK:
        return hexadecimal(dark // 2), hexadecimal(light)
    return hexadecimal(light), hexadecimal(dark)


def draw_place(rng: np.random.Generator) -> tuple[float, float]:
    """A place for a body on its page (see `Page.place`): anywhere, often at an edge or in the middle."""
    across, down = (round(2 * share) / 2 if rng.random() < _ALIGNED else float(share) for share in rng.random(2))
    return across, down


def hexadecimal(rgb: np.ndarray) -> str:
    """Three levels as "#rrggbb"."""
    return "#" + "".join(f"{int(level):02x}" for level in rgb)
