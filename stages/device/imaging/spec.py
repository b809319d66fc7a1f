"""How a model wants its pictures tiled: the part of the configuration that every tiling function reads."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

RuleName = Literal["relaxed", "llava-next", "internvl-1.5"]
PAPER_ALPHA = 0.1


class TilingSpec(BaseModel):
    """Rule, threshold and candidate grids.

    Candidates are all grids up to `max_cols` × `max_rows` (Sec. 5.1: 3×3; the final model: 4×4), or, when
    `max_tiles` is set, all grids of at most that many tiles (InternVL 1.5's way).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: RuleName = "relaxed"
    alpha: float = Field(default=PAPER_ALPHA, ge=0, lt=1)
    max_cols: int = Field(default=4, ge=1, le=64)
    max_rows: int = Field(default=4, ge=1, le=64)
    max_tiles: int | None = Field(default=None, ge=1, le=4096)
    tile_size: int = Field(default=384, ge=1)
    tokens_per_tile: int = Field(default=196, ge=1)

    @model_validator(mode="after")
    def _finite(self) -> TilingSpec:
        if self.alpha != self.alpha:
            raise ValueError("alpha must be a number")
        return self

    @property
    def tile_budget(self) -> int:
        """The most local tiles a picture can get."""
        return self.max_tiles if self.max_tiles is not None else self.max_cols * self.max_rows
