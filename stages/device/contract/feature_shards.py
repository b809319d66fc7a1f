"""A corpus of pictures as a vision tower sees them, on disk: the `vit-features` artifact.

    features.json                       which encoder, which tiling, which shards
    shards/00000.safetensors            `vit_features` [tiles of the shard, P, C] float16, before the connector
    shards/00000.json                   whose tiles they are, by digest of the picture's bytes

A shard counts once its index stands beside it, and that is written last: what a killed run left behind is either a
whole shard or is written again. P patches of a tile, C width of the tower.
"""

from __future__ import annotations

import json
import struct
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from stages.artifacts.atomic_file import atomic_file, write_atomically
from stages.artifacts.errors import ArtifactError
from stages.artifacts.kinds import MADE_BY
from stages.artifacts.typed_json import read_typed_json
from stages.device.imaging.geometry import Grid, Size
from stages.device.imaging.spec import TilingSpec

KIND = "vit-features"
INDEX_FILE = "features.json"
FOLDER = "shards"
TENSOR = "vit_features"
DTYPE = np.dtype(np.float16)
# The header names its length first; its own length is not known before the last tile is, so that room is kept.
_HEADER = 256
_WHY = "It says which features are whose."
_FIX = f"Encode the pictures again: {MADE_BY[KIND]} --force"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EncoderRecord(_Strict):
    """Who made the features.

    Attributes:
        kind: a tower computed as in training, or the graphs of an exported model, which may round.
        digest: of the tower's weights and of how pixels become its input; of the exported model.
        made_of: of an exported model, the digests of what it was exported from.
    """

    kind: Literal["tower", "onnx"]
    digest: str
    made_of: tuple[str, ...] = ()


class ShardPicture(_Strict):
    """One picture of a shard: its tiles are `vit_features[first_tile : first_tile + tiles]`, the thumbnail first."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    name: str
    size: Size
    grid: Grid
    first_tile: int
    tiles: int


class BrokenPicture(_Strict):
    """A picture whose pixels cannot be decoded: it has no features."""

    name: str
    problem: str


class ShardIndex(_Strict):
    """The whole of a shard's index.

    Attributes:
        drawn: pictures of the inputs that were looked at until this shard was full, those of earlier shards included.
        pictures: in the order of their tiles.
        duplicates: pictures that were there before, under another name.
        broken: pictures that are left out.
    """

    drawn: int
    pictures: tuple[ShardPicture, ...]
    duplicates: int = 0
    broken: tuple[BrokenPicture, ...] = ()

    @property
    def tiles(self) -> int:
        """Tiles of all its pictures."""
        return sum(picture.tiles for picture in self.pictures)


class FeatureCorpus(_Strict):
    """The whole of `features.json`.

    Attributes:
        encoder: who made the features.
        tiling: how pictures were cut.
        patches, width: of one tile's features, [P, C].
        pictures, tiles: of all shards.
        shards: how many there are.
        broken: pictures without features.
    """

    kind: Literal["vit-features"] = "vit-features"
    encoder: EncoderRecord
    tiling: TilingSpec
    patches: int
    width: int
    pictures: int
    tiles: int
    shards: int
    broken: tuple[BrokenPicture, ...] = ()

    def write(self, folder: Path) -> None:
        """Writes `features.json` into an artifact."""
        (folder / INDEX_FILE).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def tile_bytes(patches: int, width: int) -> int:
    """Bytes of one tile's features (729 × 1152: 1.68 MB)."""
    return patches * width * DTYPE.itemsize


def shard_file(folder: Path, number: int) -> Path:
    """Where the features of a shard are."""
    return folder / FOLDER / f"{number:05d}.safetensors"


def read_feature_corpus(folder: Path) -> FeatureCorpus:
    """Reads `features.json`.

    Raises:
        ArtifactError: it is missing or broken.
    """
    return read_typed_json(folder / INDEX_FILE, FeatureCorpus, ArtifactError, unreadable=_WHY, broken=_WHY, fix=_FIX)


def read_shard_index(folder: Path, number: int) -> ShardIndex:
    """Reads the index of a shard.

    Raises:
        ArtifactError: it is missing or broken.
    """
    path = shard_file(folder, number).with_suffix(".json")
    return read_typed_json(path, ShardIndex, ArtifactError, unreadable=_WHY, broken=_WHY, fix=_FIX)


def whole_shards(folder: Path) -> int:
    """How many shards, from the first on, are whole."""
    number = 0
    while shard_file(folder, number).with_suffix(".json").is_file():
        number += 1
    return number


class ShardWriter:
    """Writes one shard tile by tile, so that memory does not grow with it; it appears whole or not at all.

    Args:
        folder: the artifact.
        number: of the shard, from 0.
        patches, width: of one tile's features.
    """

    def __init__(self, folder: Path, number: int, patches: int, width: int) -> None:
        self._path = shard_file(folder, number)
        self._path.parent.mkdir(exist_ok=True)
        self._shape = (patches, width)
        self._open = ExitStack()
        self._stream = self._open.enter_context(self._open.enter_context(atomic_file(self._path)).open("wb"))
        self._stream.write(b"\0" * _HEADER)
        self.tiles = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Closed, nothing is open any more; left in another way, the shard is not whole and goes.
        self._open.__exit__(kind or GeneratorExit, error or GeneratorExit(), trace)

    def add(self, values: NDArray[Any]) -> None:
        """Appends the features of one picture, [tiles, P, C].

        Raises:
            OverflowError: a value that float16 does not hold.
        """
        with np.errstate(over="ignore"):
            halves = np.ascontiguousarray(values, dtype=DTYPE)
        if halves.shape[1:] != self._shape:
            raise ValueError(f"features of {halves.shape}, not of [tiles, {self._shape[0]}, {self._shape[1]}]")
        if not np.isfinite(halves).all():
            raise OverflowError(f"{float(np.abs(values).max()):g}")
        self._stream.write(halves.data)
        self.tiles += len(halves)

    def close(self, index: ShardIndex) -> None:
        """Puts the shard in its place, and its index beside it."""
        shape = [self.tiles, *self._shape]
        offsets = [0, self.tiles * tile_bytes(*self._shape)]
        header = json.dumps({TENSOR: {"dtype": "F16", "shape": shape, "data_offsets": offsets}}, separators=(",", ":"))
        room = _HEADER - 8
        self._stream.seek(0)
        self._stream.write(struct.pack("<Q", room) + header.encode("ascii").ljust(room))
        self._open.close()
        write_atomically(self._path.with_suffix(".json"), index.model_dump_json() + "\n")
