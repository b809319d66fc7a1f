"""The text layer of a PDF page as lines with boxes, and runs of lines that can be cut out whole.

Coordinates are points on the page as it is shown (turned as the PDF says), x to the right, y downwards from the top.
"""

from __future__ import annotations

import ctypes
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pypdfium2 import PdfPage, PdfTextPage

# A page with more characters is no page that anyone reads.
MOST_CHARACTERS = 60_000
# Of a line's height: a gap that parts columns, a gap that parts paragraphs, how far two heights may differ.
_COLUMN_GAP, _LINE_GAP, _HEIGHTS = 1.3, 1.0, 1.4
# Boxes hold whole fonts, so those of tightly set lines overlap by as much of the height.
_LEAST_GAP = -0.4
# Of the narrower line: how much of it must lie below the other for both to be of one run.
_OVERLAP = 0.3
_HYPHEN = "\x02"
# Shares of a margin that are tried, from the whole to a little of it.
_SHARES = (1.0, 0.6, 0.3, 0.1)


class Area(NamedTuple):
    """A rectangle in points."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    def meets(self, other: Area) -> bool:
        """Whether both share more than an edge."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def joined(self, other: Area) -> Area:
        """The smallest area that holds both."""
        return Area(
            min(self.left, other.left),
            min(self.top, other.top),
            max(self.right, other.right),
            max(self.bottom, other.bottom),
        )

    def widened(self, by: float) -> Area:
        """Larger by so much on each side."""
        return Area(self.left - by, self.top - by, self.right + by, self.bottom + by)

    def free(self, by: float, others: Sequence[Area]) -> Area | None:
        """Larger by up to so much on each side, as far as it meets none of the others; None where it does already."""
        steps = (Area(-1, 0, 0, 0), Area(0, -1, 0, 0), Area(0, 0, 1, 0), Area(0, 0, 0, 1))
        found = self
        if any(found.meets(other) for other in others):
            return None
        for step in steps:
            tries = (
                Area(*(edge + by * share * way for edge, way in zip(found, step, strict=True))) for share in _SHARES
            )
            clear = (area for area in tries if not any(area.meets(other) for other in others))
            found = next(clear, found)
        return found


@dataclass(frozen=True)
class Line:
    """Text that stands side by side; empty where the PDF does not say which letters they are.

    `area` is as high as the font, `ink` no larger than what is painted.
    """

    text: str
    area: Area
    ink: Area


@dataclass(frozen=True)
class _Letter:
    text: str
    area: Area
    ink: Area
    known: bool


def read_lines(page: PdfPage) -> list[Line]:
    """All lines of a page, those that do not run from left to right as unknown ones.

    Raises:
        OverflowError: the page has more than `MOST_CHARACTERS`.
    """
    import pypdfium2.raw as pdfium

    textpage = page.get_textpage()
    try:
        count = textpage.count_chars()
        if count > MOST_CHARACTERS:
            raise OverflowError(count)
        left, bottom, right, top = page.get_bbox()
        shown = _Shown(left, bottom, right - left, top - bottom, page.get_rotation())
        box = pdfium.FS_RECTF()
        runs: list[list[_Letter]] = [[]]
        for index in range(count):
            text = chr(pdfium.FPDFText_GetUnicode(textpage, index))
            if text in "\r\n":
                runs.append([])
            elif pdfium.FPDFText_GetLooseCharBox(textpage, index, ctypes.byref(box)):
                area = shown.area(box.left, box.bottom, box.right, box.top)
                ink = shown.area(*_ink(pdfium.FPDFText_GetCharBox, textpage, index))
                known = not pdfium.FPDFText_HasUnicodeMapError(textpage, index) and _is_plain(text)
                runs[-1].append(_Letter("-" if text == _HYPHEN else text, area, ink, known))
    finally:
        textpage.close()
    return [line for run in runs for line in _lines(run)]


def _ink(box_of: Callable[..., int], textpage: PdfTextPage, index: int) -> tuple[float, float, float, float]:
    """What a letter paints: left, bottom, right, top."""
    left, right, bottom, top = (ctypes.c_double() for _ in range(4))
    box_of(textpage, index, left, right, bottom, top)
    return left.value, bottom.value, right.value, top.value


class _Shown(NamedTuple):
    """How a page's own coordinates (y upwards) become those of the page as it is shown."""

    left: float
    bottom: float
    width: float
    height: float
    turned: int

    def area(self, left: float, bottom: float, right: float, top: float) -> Area:
        one, other = self._point(left, bottom), self._point(right, top)
        across, down = sorted((one[0], other[0])), sorted((one[1], other[1]))
        return Area(across[0], down[0], across[1], down[1])

    def _point(self, x: float, y: float) -> tuple[float, float]:
        x, y = x - self.left, y - self.bottom
        turns = {
            0: (x, self.height - y),
            90: (y, x),
            180: (self.width - x, y),
            270: (self.height - y, self.width - x),
        }
        return turns[self.turned]


def _is_plain(text: str) -> bool:
    return text == _HYPHEN or unicodedata.category(text) not in ("Cc", "Cf", "Co", "Cn", "Cs")


def _lines(letters: Sequence[_Letter]) -> list[Line]:
    """Parts of what the PDF calls a line: columns stand apart, and so does what is set higher or lower."""
    parts: list[list[_Letter]] = []
    for letter in letters:
        if letter.text.isspace() or letter.area.width <= 0 or letter.area.height <= 0:
            if parts and letter.text.isspace():
                parts[-1].append(replace(letter, text=" "))
            continue
        last = next((one for one in reversed(parts[-1]) if one.text != " "), None) if parts else None
        if last is None or not _follows(last.area, letter.area):
            parts.append([])
        parts[-1].append(letter)
    return [line for part in parts if (line := _line(part)) is not None]


def _follows(one: Area, other: Area) -> bool:
    """Whether a letter stands after another one in the same line."""
    height = max(one.height, other.height)
    common = min(one.bottom, other.bottom) - max(one.top, other.top)
    return (
        common > 0.5 * min(one.height, other.height) and -0.5 * height < other.left - one.right < _COLUMN_GAP * height
    )


def _line(letters: Sequence[_Letter]) -> Line | None:
    shown = [letter for letter in letters if letter.text != " "]
    if not shown:
        return None
    area, ink = shown[0].area, shown[0].ink
    for letter in shown[1:]:
        area, ink = area.joined(letter.area), ink.joined(letter.ink)
    known = all(letter.known for letter in shown) and (len(shown) < 3 or area.width > area.height)
    return Line(" ".join("".join(letter.text for letter in letters).split()) if known else "", area, ink)


def runs_of(lines: Sequence[Line]) -> list[tuple[Line, ...]]:
    """Lines that stand below one another as those of a paragraph or a column do, in chains; each line is in one.

    Two lines are neighbours where each is the other's nearest, above and below.
    """
    areas = np.array([line.area for line in lines]).reshape(-1, 4)  # [line, left top right bottom]
    below = [_nearest(areas, index, 1) for index in range(len(lines))]
    above = [_nearest(areas, index, -1) for index in range(len(lines))]
    following = {index: other for index, other in enumerate(below) if other is not None and above[other] == index}
    starts = sorted(set(range(len(lines))) - set(following.values()))
    runs = []
    for start in starts:
        run = [start]
        while run[-1] in following:
            run.append(following[run[-1]])
        runs.append(tuple(lines[index] for index in run))
    return runs


def _nearest(areas: NDArray[np.float64], index: int, side: int) -> int | None:
    """The nearest line below (side 1) or above (-1) that may be of the same run."""
    left, top, right, bottom = areas.T
    one = Area(*areas[index])
    gaps = top - one.bottom if side > 0 else one.top - bottom
    common = np.minimum(right, one.right) - np.maximum(left, one.left)
    heights = bottom - top
    smaller, larger = np.minimum(heights, one.height), np.maximum(heights, one.height)
    near = (gaps >= _LEAST_GAP * smaller) & (gaps <= _LINE_GAP * smaller) & (larger <= _HEIGHTS * smaller)
    near &= common >= _OVERLAP * np.minimum(right - left, one.width)
    near[index] = False
    return int(np.argmin(np.where(near, gaps, np.inf))) if near.any() else None
