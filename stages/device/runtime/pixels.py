"""Tiles as a model's patch_embed.onnx takes them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.device.contract.device_config import VisionSpec
from stages.device.imaging.crop import normalize

Pixels = NDArray[np.uint8] | NDArray[np.float32]


def graph_pixels(tiles: NDArray[np.uint8], spec: VisionSpec, batch: int | None) -> Pixels:
    """[n, 3, S, S] as they are, or normalized where the graph does not do that itself (older exports).

    Args:
        tiles: as they were cut.
        spec: what the graph takes.
        batch: of a graph that takes no other number of tiles: filled up with empty ones.
    """
    pixels: Pixels = tiles if spec.pixels == "uint8" else normalize(tiles, spec.image_mean, spec.image_std)
    if batch is None or len(pixels) == batch:
        return pixels
    empty = np.zeros((batch - len(pixels), *pixels.shape[1:]), pixels.dtype)
    return np.concatenate([pixels, empty])
