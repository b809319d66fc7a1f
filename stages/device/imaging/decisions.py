"""The decisions about one picture file: by one rule or by all side by side, cut and drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from stages.artifacts.errors import ImageError
from stages.device.imaging.geometry import Size
from stages.device.imaging.loading import load_image
from stages.device.imaging.rules import RULES
from stages.device.imaging.sources import Picture
from stages.device.imaging.spec import RuleName, TilingSpec
from stages.device.imaging.tiling import Tiling, plan_tiling


@dataclass(frozen=True)
class Decision:
    """How a picture is tiled by each rule; `chosen` is the one it is cut by."""

    picture: Picture
    size: Size
    chosen: RuleName
    tilings: Mapping[RuleName, Tiling]
    previews: tuple[tuple[RuleName, Path], ...] = ()

    @property
    def tiling(self) -> Tiling:
        """The decision of the chosen rule."""
        return self.tilings[self.chosen]

    def load(self) -> Image.Image:
        """The picture's pixels, upright RGB.

        Raises:
            ImageError: it is broken, or has another size than when it was decided about.
        """
        image = load_image(self.picture.path)
        if image.size != self.size:
            raise ImageError(
                f"{self.picture.path} is {image.width}×{image.height}, not {self.size.width}×{self.size.height}.",
                "It changed while it was being tiled.",
                "Run the command again.",
            )
        return image

    def drawn(self, previews: Mapping[RuleName, Path]) -> Decision:
        """The same with the drawings that were made of it."""
        return replace(self, previews=tuple(previews.items()))

    def as_dict(self) -> dict[str, Any]:
        """path, width, height, and per rule: grid, canvas, tiles, tokens, enlargement, picture (its box), preview."""
        rules: dict[str, dict[str, Any]] = {rule: _as_dict(tiling) for rule, tiling in self.tilings.items()}
        for rule, path in self.previews:
            rules[rule]["preview"] = str(path)
        return {"path": str(self.picture.path), "width": self.size.width, "height": self.size.height, "rules": rules}


def decide(picture: Picture, size: Size, spec: TilingSpec, compare: bool = False) -> Decision:
    """Decides by the specification's rule, or by every rule with the same candidates and α."""
    specs = [spec.model_copy(update={"rule": rule}) for rule in RULES] if compare else [spec]
    return Decision(picture, size, spec.rule, {each.rule: plan_tiling(size, each) for each in specs})


def _as_dict(tiling: Tiling) -> dict[str, Any]:
    return {
        "grid": list(tiling.grid),
        "canvas": list(tiling.canvas),
        "tiles": tiling.tiles,
        "tokens": tiling.tokens,
        "enlargement": tiling.enlargement,
        "picture": list(tiling.picture),
    }
