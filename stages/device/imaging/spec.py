"""How a model wants its pictures tiled: the part of the configuration that every tiling function reads."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

# Rules that cut a picture into the tiles of a model.
RuleName = Literal["relaxed", "llava-next", "internvl-1.5", "ferret-ui-2", "xcomposer2-4khd"]
# Schemes that are counted beside them: more than one grid, or slices of a size of their own.
CountedName = Literal["mini-monkey", "minicpm-v", "qwen2-vl"]
AnyRule = Literal[RuleName, CountedName]
Resample = Literal["bicubic", "bilinear", "lanczos", "nearest"]
Alpha = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
GridSide = Annotated[int, Field(ge=1, le=64)]
TileBudget = Annotated[int, Field(ge=1, le=4096)]
Count = Annotated[int, Field(ge=1)]
PAPER_ALPHA = 0.1


def refuse_counted(rule: Any) -> Any:
    """Lets through what may be a rule to cut by.

    Raises:
        ValueError: it is a scheme that is only counted.
    """
    if rule in get_args(CountedName):
        cutting = ", ".join(get_args(RuleName))
        raise ValueError(f"{rule} is only counted, beside rules that cut one grid of tiles; cut by one of {cutting}")
    return rule


CuttingRule = Annotated[RuleName, BeforeValidator(refuse_counted)]


class TilingSpec(BaseModel):
    """Rule, threshold and candidate grids.

    Candidates are all grids up to `max_cols` × `max_rows` (Sec. 5.1: 3×3; the final model: 4×4), or, when
    `max_tiles` is set, all grids of at most that many tiles. The rules of InternVL 1.5, Ferret-UI 2 and
    XComposer2-4KHD know only the latter: for them a box counts as the tiles it holds (3×3 as 9, as in Sec. 5.1).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: CuttingRule = "relaxed"
    alpha: Alpha = PAPER_ALPHA
    max_cols: GridSide = 4
    max_rows: GridSide = 4
    max_tiles: TileBudget | None = None
    tile_size: Count = 384
    tokens_per_tile: Count = 196

    @property
    def tile_budget(self) -> int:
        """The most local tiles a picture can get."""
        return self.max_tiles if self.max_tiles is not None else self.max_cols * self.max_rows
