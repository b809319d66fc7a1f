"""Tokens and effective resolution of the relaxed rule for many values of its threshold α."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stages.device.imaging.many import decide_many
from stages.device.imaging.sizes import SizeBlock
from stages.device.imaging.spec import TilingSpec
from stages.device.imaging.statistics import REFERENCE, RuleStatistics

# The paper's 0.1 among them, denser where tokens still change.
USUAL_ALPHAS = (0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)


class AlphaSweep:
    """What the relaxed rule makes of all pictures, for each α.

    Args:
        spec: candidates, side and tokens of a tile; its own α is not looked at.
        alphas: the thresholds; each is tried once, the smallest first.
    """

    def __init__(self, spec: TilingSpec, alphas: Sequence[float] = USUAL_ALPHAS) -> None:
        self._spec = spec
        self.points = {alpha: RuleStatistics(REFERENCE) for alpha in sorted(set(alphas))}

    def add(self, block: SizeBlock) -> None:
        """Adds a block of sizes."""
        for alpha, statistics in self.points.items():
            spec = self._spec.model_copy(update={"alpha": alpha})
            statistics.add(block, decide_many(REFERENCE, block.widths, block.heights, spec))

    def as_rows(self) -> list[dict[str, Any]]:
        """alpha, tiles, tokens, mean_tokens, mean_kept, mean_enlargement for each α."""
        return [
            {
                "alpha": alpha,
                "tiles": point.tiles,
                "tokens": point.tokens,
                "mean_tokens": point.tokens / point.images,
                "mean_kept": point.mean_kept,
                "mean_enlargement": point.mean_enlargement,
            }
            for alpha, point in self.points.items()
        ]
