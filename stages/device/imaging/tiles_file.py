"""The `tiles` artifact: `tiles.safetensors` (key `tiles`, uint8 [tiles, 3, S, S]) and its index `tiles.json`."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from stages.artifacts.errors import ArtifactError
from stages.device.imaging.geometry import Box, Grid, Size
from stages.device.imaging.spec import RuleName, TilingSpec
from stages.device.imaging.tiling import Tiling

TILES_FILE = "tiles.safetensors"
INDEX_FILE = "tiles.json"
TENSOR = "tiles"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TiledImage(_Strict):
    """One picture of the index.

    Its tiles are `tiles[first_tile : first_tile + tile_count]`, the thumbnail first. `boxes` are the local tiles on the
    canvas, `picture` the part of it that is not padding, each as left, top, right, bottom.
    """

    path: str
    sha256: str
    width: int
    height: int
    rule: RuleName
    alpha: float
    grid: Grid
    canvas: Size
    picture: Box
    boxes: tuple[Box, ...]
    tokens: int
    first_tile: int
    tile_count: int


class TilesIndex(_Strict):
    """The whole of `tiles.json`."""

    tiling: TilingSpec
    images: tuple[TiledImage, ...]

    def write(self, folder: Path) -> None:
        """Writes `tiles.json`."""
        (folder / INDEX_FILE).write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")


class TilesWriter:
    """Writes `tiles.safetensors` picture by picture: its shape is known before, so memory does not grow with it.

    Args:
        stream: the file, opened for writing.
        count: tiles that will come.
        side: side of a tile in pixels.
    """

    def __init__(self, stream: BinaryIO, count: int, side: int) -> None:
        shape = [count, 3, side, side]
        header = {TENSOR: {"dtype": "U8", "shape": shape, "data_offsets": [0, count * 3 * side * side]}}
        text = json.dumps(header, separators=(",", ":")).encode("ascii")
        text += b" " * (-len(text) % 8)  # the data begin at a multiple of 8 bytes
        stream.write(struct.pack("<Q", len(text)) + text)
        self._stream = stream

    def add(self, tiles: np.ndarray) -> None:
        """Appends the tiles of one picture, uint8 [n, 3, S, S]."""
        self._stream.write(np.ascontiguousarray(tiles, np.uint8).data)


def indexed(name: str, sha256: str, tiling: Tiling, alpha: float, first_tile: int) -> TiledImage:
    """The index entry of a picture whose tiles begin at `first_tile`."""
    return TiledImage(
        path=name,
        sha256=sha256,
        width=tiling.size.width,
        height=tiling.size.height,
        rule=tiling.rule,
        alpha=alpha,
        grid=tiling.grid,
        canvas=tiling.canvas,
        picture=tiling.picture,
        boxes=tiling.boxes,
        tokens=tiling.tokens,
        first_tile=first_tile,
        tile_count=tiling.tiles,
    )


def read_tiles_index(folder: Path) -> TilesIndex:
    """Reads `tiles.json`.

    Raises:
        ArtifactError: missing or broken.
    """
    path = folder / INDEX_FILE
    try:
        return TilesIndex.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        detail = error.strerror if isinstance(error, OSError) else error.errors()[0]["msg"]
        raise ArtifactError(
            f"{path} cannot be read: {detail}.",
            "Without it nobody knows which tiles are whose.",
            "Make the tiles again: bluelm tile PICTURES --out FOLDER --force",
        ) from error
