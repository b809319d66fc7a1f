"""The tiles that encoding is measured with: of a picture, or noise in the shape of a phone's screen.

Axes: N tiles, S tile side in pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.device.contract.device_config import DeviceConfig
from stages.device.imaging.geometry import Size
from stages.device.imaging.spec import TilingSpec
from stages.device.imaging.tiling import Tiling, plan_tiling

# The paper measures encoding on 768×1536, grid 2:4, the grid of a phone's screen; this is a common one (Sec. 5.3).
SCREEN = Size(1080, 2400)


def tiling_of(picture: Path | None, spec: TilingSpec) -> Tiling:
    """How the picture, or the screen where there is none, is tiled.

    Raises:
        ImageError: the picture cannot be read.
    """
    if picture is None:
        return plan_tiling(SCREEN, spec)
    from stages.device.imaging.loading import read_size

    return plan_tiling(read_size(picture), spec)


def tiles_of(picture: Path | None, config: DeviceConfig, seed: int) -> NDArray[np.uint8]:
    """Tiles [N, 3, S, S] as the encoder takes them.

    Noise where there is no picture: what a picture shows does not change what it costs.

    Raises:
        ImageError: the picture cannot be read.
    """
    if picture is not None:
        from stages.device.runtime.pictures import picture_bytes, tile_picture

        return tile_picture(picture_bytes(picture), str(picture), config).tiles
    return noise_tiles(tiling_of(None, config.tiling).tiles, config, seed)


def noise_tiles(count: int, config: DeviceConfig, seed: int) -> NDArray[np.uint8]:
    """Tiles of noise, [N, 3, S, S]."""
    shape = (count, 3, config.tiling.tile_size, config.tiling.tile_size)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
