"""What another model's scheme would make of a picture: counts to set beside our tiles, never cut by."""

from __future__ import annotations

from dataclasses import dataclass

from stages.device.imaging.geometry import Grid, Size
from stages.device.imaging.spec import CountedName


@dataclass(frozen=True)
class TokenCount:
    """The counts of one picture.

    `grids`: how its parts are cut, one grid for each scale. `tiles`: pictures that the encoder sees, the overview
    included. `canvas_area`: pixels of all grids together, without the overview.
    """

    size: Size
    rule: CountedName
    grids: tuple[Grid, ...]
    tiles: int
    tokens: int
    canvas_area: int

    @property
    def enlargement(self) -> float:
        """Pixels of the grids over the picture's own."""
        return self.canvas_area / self.size.area
