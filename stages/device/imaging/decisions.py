"""The decisions about one picture file: by one rule or by several side by side, cut and drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from stages.artifacts.errors import ImageError
from stages.device.imaging.geometry import Size
from stages.device.imaging.loading import load_image
from stages.device.imaging.rules import COUNTED, counts, cuts
from stages.device.imaging.sources import Picture
from stages.device.imaging.spec import AnyRule, CountedName, RuleName, TilingSpec
from stages.device.imaging.tiling import Tiling, plan_tiling
from stages.device.imaging.token_count import TokenCount


@dataclass(frozen=True)
class Decision:
    """How a picture is tiled by each rule; `chosen` is the one it is cut by. `counts`: schemes only counted."""

    picture: Picture
    size: Size
    chosen: RuleName
    tilings: Mapping[RuleName, Tiling]
    previews: tuple[tuple[RuleName, Path], ...] = ()
    counts: Mapping[CountedName, TokenCount] = field(default_factory=dict)

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
        self.tiling_of(Size(*image.size))
        return image

    def tiling_of(self, size: Size) -> Tiling:
        """The decision of the chosen rule, for a picture that is still of this size.

        Raises:
            ImageError: it is not.
        """
        if size != self.size:
            raise ImageError(
                f"{self.picture.path} is {size.width}×{size.height}, not {self.size.width}×{self.size.height}.",
                "It changed while it was being tiled.",
                "Run the command again.",
            )
        return self.tiling

    def drawn(self, previews: Mapping[RuleName, Path]) -> Decision:
        """The same with the drawings that were made of it."""
        return replace(self, previews=tuple(previews.items()))

    def as_dict(self) -> dict[str, Any]:
        """path, width, height, and per rule: grid, canvas, tiles, tokens, enlargement, picture (its box), preview.

        A scheme that is only counted has grids, tiles, tokens and enlargement.
        """
        rules: dict[str, dict[str, Any]] = {rule: _as_dict(tiling) for rule, tiling in self.tilings.items()}
        for rule, path in self.previews:
            rules[rule]["preview"] = str(path)
        rules |= {scheme: _counted_dict(count) for scheme, count in self.counts.items()}
        return {"path": str(self.picture.path), "width": self.size.width, "height": self.size.height, "rules": rules}


def decide(picture: Picture, size: Size, spec: TilingSpec, compare: Sequence[AnyRule] = ()) -> Decision:
    """Decides by the specification's rule, and beside it by others with the same candidates and α.

    Args:
        picture: the file.
        size: of its upright pixels.
        spec: rule, α and candidates.
        compare: rules, and schemes to count, in the order they are shown; the chosen rule comes first where it is not
            among them.
    """
    rules: list[RuleName] = [rule for rule in compare if cuts(rule)]
    if spec.rule not in rules:
        rules.insert(0, spec.rule)
    tilings = {rule: plan_tiling(size, spec.model_copy(update={"rule": rule})) for rule in rules}
    counted = {scheme: COUNTED[scheme](size, spec) for scheme in compare if counts(scheme)}
    return Decision(picture, size, spec.rule, tilings, counts=counted)


def _as_dict(tiling: Tiling) -> dict[str, Any]:
    return {
        "grid": list(tiling.grid),
        "canvas": list(tiling.canvas),
        "tiles": tiling.tiles,
        "tokens": tiling.tokens,
        "enlargement": tiling.enlargement,
        "picture": list(tiling.picture),
    }


def _counted_dict(count: TokenCount) -> dict[str, Any]:
    return {
        "grids": [list(grid) for grid in count.grids],
        "tiles": count.tiles,
        "tokens": count.tokens,
        "enlargement": count.enlargement,
    }
