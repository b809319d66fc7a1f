"""How much text a page has room for, told generously before it is typeset, in letters and lines."""

from __future__ import annotations

from dataclasses import dataclass

from stages.device.imaging.geometry import Size

# Of the height of the text: a letter's width (DejaVu Sans Mono's, the widest of typst's fonts) and a line with its gap.
LETTER = 0.605
LINE = 1.45


@dataclass(frozen=True)
class Room:
    """Width and height inside a page's margins, in pixels."""

    width: float
    height: float

    @classmethod
    def on(cls, size: Size, margin: float) -> Room:
        """What a page of that size has inside margins of that many pixels."""
        return cls(size.width - 2 * margin, size.height - 2 * margin)

    def letters(self, height: float) -> int:
        """Letters of text of that height in a line."""
        return max(0, int(self.width / (LETTER * height)))

    def lines(self, height: float) -> int:
        """Lines of text of that height."""
        return max(0, int(self.height / (LINE * height)))

    def height_for(self, letters: float, lines: float) -> float:
        """The greatest height with which that many letters and lines fit."""
        return min(self.width / (LETTER * letters), self.height / (LINE * lines))
