"""What the model presets want of their pictures: plain data, so that tiling needs no model and no torch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from stages.artifacts.errors import UsageError
from stages.device.imaging.spec import Resample, TilingSpec

DEFAULT_PRESET = "bluelm-v-3b"


@dataclass(frozen=True)
class ImagingPreset:
    """Pictures as one model takes them.

    Mean and deviation are per RGB channel, of values in 0…1; `resample` is Pillow's name of the filter.
    """

    tiling: TilingSpec
    patch_size: int
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    resample: Resample = "bicubic"

    def tokens_for(self, side: int) -> int:
        """Image tokens of a tile of this side: (side // patch)² patches, one token for each 2×2, odd sides padded."""
        return ((side // self.patch_size + 1) // 2) ** 2


IMAGING_PRESETS: Mapping[str, ImagingPreset] = MappingProxyType(
    {
        # SigLIP so400m/14 at 384: 27×27 patches, padded to 28×28 -> 14×14 tokens (Sec. 3.3).
        "bluelm-v-3b": ImagingPreset(TilingSpec(tile_size=384, tokens_per_tile=196), patch_size=14),
        # 14×14 patches -> 7×7 tokens, as many patches as the paper has tokens: letters of 10 pixels can be read.
        "demo": ImagingPreset(TilingSpec(tile_size=112, tokens_per_tile=49), patch_size=8),
        # 6×6 patches -> 3×3 tokens: as small as shapes can be told apart, for training on a CPU in minutes.
        "tiny": ImagingPreset(TilingSpec(tile_size=24, tokens_per_tile=9), patch_size=4),
    }
)


def imaging_preset(name: str) -> ImagingPreset:
    """A preset by name.

    Raises:
        UsageError: there is none of that name; the message names the nearest.
    """
    if name in IMAGING_PRESETS:
        return IMAGING_PRESETS[name]
    near = difflib.get_close_matches(name, IMAGING_PRESETS, n=1)
    hint = f"Did you mean {near[0]}? " if near else ""
    raise UsageError(
        f"There is no preset {name!r}.",
        "The preset gives the side of a tile and its image tokens.",
        f"{hint}Presets: {', '.join(IMAGING_PRESETS)}.",
    )
