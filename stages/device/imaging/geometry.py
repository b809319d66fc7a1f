"""Named sizes, grids and boxes: a bare (w, h) or (h, w) tuple never crosses a function boundary."""

from __future__ import annotations

from typing import NamedTuple


class Size(NamedTuple):
    """Width and height in pixels."""

    width: int
    height: int

    @property
    def area(self) -> int:
        return self.width * self.height


class Grid(NamedTuple):
    """Columns and rows of tiles, the paper's m:n (width first)."""

    cols: int
    rows: int

    @property
    def area(self) -> int:
        return self.cols * self.rows

    def canvas(self, tile: int) -> Size:
        """The picture size this grid covers, in pixels, for tiles of `tile` × `tile`."""
        return Size(self.cols * tile, self.rows * tile)


class Box(NamedTuple):
    """A rectangle in pixels: left and top inclusive, right and bottom exclusive."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def size(self) -> Size:
        return Size(self.right - self.left, self.bottom - self.top)
