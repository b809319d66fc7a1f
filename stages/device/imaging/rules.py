"""The tiling rules by name: how each chooses a grid and whether it keeps the picture's aspect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from stages.device.imaging.candidates import descending_grids, internvl_grids
from stages.device.imaging.geometry import Grid, Size
from stages.device.imaging.internvl import choose_internvl
from stages.device.imaging.llava_next import choose_llava_next
from stages.device.imaging.relaxed import choose_relaxed
from stages.device.imaging.spec import RuleName, TilingSpec


@dataclass(frozen=True)
class Rule:
    """A way to choose a grid. `keeps_aspect`: scale and pad; otherwise the picture is stretched to the canvas."""

    choose: Callable[[Size, TilingSpec], Grid]
    keeps_aspect: bool


def _relaxed(size: Size, spec: TilingSpec) -> Grid:
    return choose_relaxed(size, descending_grids(spec), spec.tile_size, spec.alpha)


def _llava_next(size: Size, spec: TilingSpec) -> Grid:
    return choose_llava_next(size, descending_grids(spec), spec.tile_size)


def _internvl(size: Size, spec: TilingSpec) -> Grid:
    """InternVL bounds the number of tiles alone: a box counts as the tiles it holds (3×3 as 9, Sec. 5.1)."""
    return choose_internvl(size, internvl_grids(spec.tile_budget), spec.tile_size)


RULES: Mapping[RuleName, Rule] = MappingProxyType(
    {
        "relaxed": Rule(_relaxed, keeps_aspect=True),
        "llava-next": Rule(_llava_next, keeps_aspect=True),
        "internvl-1.5": Rule(_internvl, keeps_aspect=False),
    }
)
