"""How to tile, as recipes and flags say it: shared by the verbs that decide about pictures."""

from __future__ import annotations

from typing import Any, Self

from stages.artifacts.recipes import RecipeModel
from stages.device.imaging.presets import DEFAULT_PRESET, imaging_preset
from stages.device.imaging.spec import Alpha, Count, CuttingRule, GridSide, TileBudget, TilingSpec

_ALPHA_ZERO = (
    "alpha 0 is not LLaVA-NeXT's rule: a leaner canvas can then never win, so the first and largest candidate stays "
    "wherever it is large enough. Use --rule llava-next for that."
)


class TilingConfig(RecipeModel):
    """How pictures are decided about. What is None comes from the preset."""

    preset: str = DEFAULT_PRESET
    rule: CuttingRule | None = None
    alpha: Alpha | None = None
    max_cols: GridSide | None = None
    max_rows: GridSide | None = None
    max_tiles: TileBudget | None = None
    tile_size: Count | None = None
    tokens_per_tile: Count | None = None

    def usual(self) -> dict[str, Any]:
        """The preset's values of the fields.

        Raises:
            UsageError: there is no such preset.
        """
        preset = imaging_preset(self.preset)
        usual = preset.tiling.model_dump()
        if self.tile_size is not None:
            usual["tokens_per_tile"] = preset.tokens_for(self.tile_size)
        return usual

    def resolved(self) -> Self:
        """The same with every value in its place, as the manifest records it.

        Raises:
            UsageError: there is no such preset.
        """
        return self.model_copy(update={key: value for key, value in self.usual().items() if getattr(self, key) is None})

    def warnings(self, compare: bool) -> list[str]:
        """What a user of this configuration should know.

        Args:
            compare: whether every rule decides, not only the configured one.
        """
        relaxed = compare or self.resolved().rule == "relaxed"
        return [_ALPHA_ZERO] if relaxed and self.resolved().alpha == 0 else []

    @property
    def spec(self) -> TilingSpec:
        """The tiling it asks for."""
        resolved = self.resolved()
        return TilingSpec(**{key: getattr(resolved, key) for key in TilingSpec.model_fields})
