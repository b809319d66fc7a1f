"""The decision about one picture: grid, canvas, where the picture lies on it, tiles and image tokens.

    picture ──rule──> grid cols×rows ──× tile side──> canvas ──cut──> local tiles, row by row
       └───────────────────────── squeezed into one square ─────────> thumbnail, before them

A 1:1 grid is one tile, the whole picture, and has no thumbnail. Only sizes are needed: no pixel is read here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from stages.device.imaging.geometry import Box, Grid, Size
from stages.device.imaging.rules import RULES
from stages.device.imaging.spec import RuleName, TilingSpec


@dataclass(frozen=True)
class Tiling:
    """How one picture is cut.

    `picture` is the part of the canvas that shows the picture; the rest is padding.
    """

    size: Size
    rule: RuleName
    grid: Grid
    tile_size: int
    tokens_per_tile: int
    picture: Box

    @property
    def canvas(self) -> Size:
        """Pixels that the local tiles cover together."""
        return self.grid.canvas(self.tile_size)

    @property
    def scaled(self) -> Size:
        """The picture's size on the canvas."""
        return self.picture.size

    @property
    def has_thumbnail(self) -> bool:
        """Whether a tile of the whole picture goes before the local ones."""
        return self.grid.area > 1

    @property
    def tiles(self) -> int:
        """Local tiles and thumbnail."""
        return self.grid.area + self.has_thumbnail

    @property
    def tokens(self) -> int:
        """Image tokens of all tiles."""
        return self.tiles * self.tokens_per_tile

    @property
    def enlargement(self) -> float:
        """Canvas area over the picture's own (394×390 on 768×768: 3.8)."""
        return self.canvas.area / self.size.area

    @property
    def boxes(self) -> tuple[Box, ...]:
        """The local tiles on the canvas, row by row."""
        side = self.tile_size
        return tuple(
            Box(col * side, row * side, (col + 1) * side, (row + 1) * side)
            for row in range(self.grid.rows)
            for col in range(self.grid.cols)
        )


def plan_tiling(size: Size, spec: TilingSpec) -> Tiling:
    """Chooses the grid by the specification's rule and places the picture on its canvas.

    Raises:
        ValueError: a side of the picture is not positive.
    """
    if size.width < 1 or size.height < 1:
        raise ValueError(f"a picture has positive sides, not {size.width}×{size.height}")
    rule = RULES[spec.rule]
    grid = rule.choose(size, spec)
    canvas = grid.canvas(spec.tile_size)
    scaled = fit_inside(size, canvas) if rule.keeps_aspect else canvas
    return Tiling(
        size=size,
        rule=spec.rule,
        grid=grid,
        tile_size=spec.tile_size,
        tokens_per_tile=spec.tokens_per_tile,
        picture=centred(scaled, canvas),
    )


def fit_inside(size: Size, canvas: Size) -> Size:
    """The largest size of the same aspect inside the canvas, up or down (LLaVA-NeXT's `get_patch_output_size`)."""
    across, down = canvas.width / size.width, canvas.height / size.height
    if across < down:
        return Size(canvas.width, min(math.ceil(size.height * across), canvas.height))
    return Size(min(math.ceil(size.width * down), canvas.width), canvas.height)


def centred(size: Size, canvas: Size) -> Box:
    """A box of this size in the middle of the canvas; an odd pixel of padding goes right and below."""
    left, top = (canvas.width - size.width) // 2, (canvas.height - size.height) // 2
    return Box(left, top, left + size.width, top + size.height)
