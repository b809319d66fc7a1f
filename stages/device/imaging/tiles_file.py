"""The `tiles` artifact: `tiles.safetensors` (key `tiles`, uint8 [tiles, 3, S, S]) and its index `tiles.json`.

Of a corpus that is cut in shards, each shard is such a pair, `tiles-00000.safetensors` and `tiles-00000.json`, and
`tiles.json` lists the shards instead of pictures; `shards_of` reads both layouts alike.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from stages.artifacts.errors import ArtifactError
from stages.device.imaging.geometry import Box, Grid, Size
from stages.device.imaging.spec import RuleName, TilingSpec
from stages.device.imaging.tiling import Tiling

TILES_FILE = "tiles.safetensors"
INDEX_FILE = "tiles.json"
TENSOR = "tiles"
ShardFormat = Literal["safetensors", "tar"]
# Room for the header of a shard, whose number of tiles is known only when the last was cut.
_HEADER = 256


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


class BrokenImage(_Strict):
    """A picture that was left out, and why."""

    path: str
    problem: str


class TilesShard(_Strict):
    """One shard in `tiles.json`: the file of its tiles; its index has the same name and `.json` behind it."""

    file: str
    pictures: int
    tiles: int
    tokens: int
    broken: int = 0


class TilesIndex(_Strict):
    """The whole of `tiles.json`, or of a shard's index.

    Attributes:
        tiling: how the pictures were decided about.
        images: the pictures in the order of their tiles; none here where they are in shards.
        shards: of a corpus.
        broken: pictures of a shard that were left out.
    """

    tiling: TilingSpec
    images: tuple[TiledImage, ...]
    shards: tuple[TilesShard, ...] = ()
    broken: tuple[BrokenImage, ...] = ()

    def as_text(self) -> str:
        """JSON; what only corpora have is left out where there is none of it."""
        absent = {name for name in ("shards", "broken") if not getattr(self, name)}
        return self.model_dump_json(indent=1, exclude=absent) + "\n"

    def write(self, folder: Path) -> None:
        """Writes `tiles.json`."""
        (folder / INDEX_FILE).write_text(self.as_text(), encoding="utf-8")


class TilesWriter:
    """Writes `tiles.safetensors` picture by picture: its shape is known before, so memory does not grow with it.

    Args:
        stream: the file, opened for writing.
        count: tiles that will come.
        side: side of a tile in pixels.
    """

    def __init__(self, stream: BinaryIO, count: int, side: int) -> None:
        text = _header(count, side)
        text += b" " * (-len(text) % 8)  # the data begin at a multiple of 8 bytes
        stream.write(struct.pack("<Q", len(text)) + text)
        self._stream = stream

    def add(self, tiles: np.ndarray) -> None:
        """Appends the tiles of one picture, uint8 [n, 3, S, S]."""
        self._stream.write(np.ascontiguousarray(tiles, np.uint8).data)


class ShardTilesWriter:
    """Writes a shard's tiles picture by picture, however many there will be.

    Args:
        stream: the file, opened for writing.
        side: side of a tile in pixels.
    """

    def __init__(self, stream: BinaryIO, side: int) -> None:
        self._stream, self._side, self._tiles = stream, side, 0
        stream.write(bytes(_HEADER))

    def add(self, entry: TiledImage, tiles: np.ndarray) -> None:
        """Appends the tiles of one picture, uint8 [n, 3, S, S]."""
        self._stream.write(np.ascontiguousarray(tiles, np.uint8).data)
        self._tiles += len(tiles)

    def finish(self) -> None:
        """Writes the header, after the last picture."""
        self._stream.seek(0)
        text = _header(self._tiles, self._side).ljust(_HEADER - 8)
        self._stream.write(struct.pack("<Q", len(text)) + text)


def _header(count: int, side: int) -> bytes:
    shape = [count, 3, side, side]
    header: dict[str, Any] = {TENSOR: {"dtype": "U8", "shape": shape, "data_offsets": [0, count * 3 * side * side]}}
    return json.dumps(header, separators=(",", ":")).encode("ascii")


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
    return _read_index(folder / INDEX_FILE)


def shards_of(folder: Path) -> Iterator[tuple[Path, TilesIndex]]:
    """The files of tiles with what is in them, one after the other; a small artifact is one of them.

    Raises:
        ArtifactError: an index is missing or broken.
    """
    index = read_tiles_index(folder)
    if not index.shards:
        yield folder / TILES_FILE, index
    for shard in index.shards:
        yield folder / shard.file, _read_index((folder / shard.file).with_suffix(".json"))


def _read_index(path: Path) -> TilesIndex:
    try:
        return TilesIndex.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        detail = error.strerror if isinstance(error, OSError) else error.errors()[0]["msg"]
        raise ArtifactError(
            f"{path} cannot be read: {detail}.",
            "Without it nobody knows which tiles are whose.",
            "Make the tiles again: bluelm tile PICTURES --out FOLDER --force",
        ) from error
