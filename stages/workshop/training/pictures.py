"""Where a picture's tiles come from: cut when first asked for and kept while they fit, or read from a tiles folder.

Tiles stay uint8 [tiles, 3, S, S] until they are on the training device: a quarter of the memory, and of the transfer.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from stages.artifacts.errors import ArtifactError
from stages.device.imaging.crop import padding_colour
from stages.device.imaging.cutting import cut_picture
from stages.device.imaging.geometry import Size
from stages.device.imaging.spec import TilingSpec
from stages.device.imaging.tiles_file import TENSOR, TiledImage, read_tiles_index, shards_of
from stages.device.imaging.tiling import Tiling, plan_tiling
from stages.workshop.corpus.picture import Picture
from stages.workshop.model.image_processing import BlueLMVImageProcessor

# Sizes, and tiles of a folder, of so many pictures are remembered.
_REMEMBERED = 1 << 20
# Files of tiles that are mapped at a time.
_SHARDS_OPEN = 256


@dataclass(frozen=True)
class Tiled:
    """A picture, and the most local tiles it may have where its sample is too long; None: what the tiling allows."""

    picture: Picture
    most: int | None = None


class TileSource(Protocol):
    """Gives the tiles of a picture."""

    def tile_count(self, tiled: Tiled) -> int:
        """How many tiles a picture has, without reading its pixels."""

    def coarser(self, tiled: Tiled) -> Tiled | None:
        """The same picture in the next smaller grid; None where it is one tile already."""

    def holds(self, tiled: Tiled) -> bool:
        """Whether its tiles are at hand, so that loading them costs nothing."""

    def tiles_of(self, tiled: Tiled) -> torch.Tensor:
        """Its tiles, uint8 [tiles, 3, S, S]; or what a tower made of them, float16 [tiles, P, C] (see features.py)."""


def plan_tiled(size: Size, spec: TilingSpec, most: int | None) -> Tiling:
    """How a picture of this size is cut into at most so many local tiles."""
    return plan_tiling(size, spec if most is None else spec.model_copy(update={"max_tiles": most}))


def coarser_budget(size: Size, spec: TilingSpec, most: int | None) -> int | None:
    """The largest budget of local tiles below the picture's own whose grid lies in the tiling's box; None: one tile."""
    now = plan_tiled(size, spec, most).grid
    for budget in range(now.area - 1, 0, -1):
        grid = plan_tiled(size, spec, budget).grid
        if spec.max_tiles is not None or (grid.cols <= spec.max_cols and grid.rows <= spec.max_rows):
            return budget
    return None


class CutTiles:
    """Cuts pictures with the model's own image processor and keeps the tiles while they fit a budget.

    Args:
        processor: tile side, colours and filter.
        spec: the tiling of this training.
        budget: bytes of tiles kept in memory.
    """

    def __init__(self, processor: BlueLMVImageProcessor, spec: TilingSpec, budget: int) -> None:
        self._pad = padding_colour(processor.image_mean)
        self._resample = processor.resample
        self._spec = spec
        self._left = budget
        self._kept: dict[Tiled, torch.Tensor] = {}
        self._lock = threading.Lock()
        self._size: Callable[[Any], Size] = functools.lru_cache(maxsize=_REMEMBERED)(_size_of)

    def fits(self, tiles: int) -> bool:
        """Whether so many more tiles would all be kept."""
        return tiles * 3 * self._spec.tile_size**2 <= self._left

    def tile_count(self, tiled: Tiled) -> int:
        return plan_tiled(self._size(tiled.picture), self._spec, tiled.most).tiles

    def coarser(self, tiled: Tiled) -> Tiled | None:
        budget = coarser_budget(self._size(tiled.picture), self._spec, tiled.most)
        return None if budget is None else Tiled(tiled.picture, budget)

    def holds(self, tiled: Tiled) -> bool:
        return tiled in self._kept

    def tiles_of(self, tiled: Tiled) -> torch.Tensor:
        kept = self._kept.get(tiled)
        if kept is not None:
            return kept
        picture, most = tiled.picture, tiled.most
        name = str(picture.root / picture.name)
        plan = functools.partial(plan_tiled, spec=self._spec, most=most)
        cut = cut_picture(picture.read(), name, plan, self._pad, self._resample)
        tiles = torch.from_numpy(cut.tiles)  # [tiles, 3, S, S]
        with self._lock:
            if tiled not in self._kept and tiles.nbytes <= self._left:
                self._left -= tiles.nbytes
                self._kept[tiled] = tiles
        return tiles


class StoredTiles:
    """Tiles that `bluelm tile` wrote, read from the file as they are needed (it is mapped, not loaded).

    A picture is found by its content, wherever it lies. Where the folder lacks it, or holds it in another tiling than
    this training would choose (stage 1 has one tile a picture), it is cut again; `cut_again` counts those.

    Args:
        folder: a tiles artifact.
        spec: the tiling of this training.
        fallback: cuts pictures.

    Raises:
        ArtifactError: the folder's tiles are of another size.
    """

    def __init__(self, folder: Path, spec: TilingSpec, fallback: CutTiles) -> None:
        index = read_tiles_index(folder)
        if index.tiling.tile_size != spec.tile_size:
            raise ArtifactError(
                f"{folder} holds tiles of {index.tiling.tile_size} pixels, the model takes {spec.tile_size}.",
                "Scaling them again would not give the pictures' own tiles.",
                "Tile the pictures again with the model's preset, or leave --tiles away.",
            )
        if any(not shard.file.endswith(".safetensors") for shard in index.shards):
            raise ArtifactError(
                f"{folder} holds its tiles in tars.",
                "Training reads them where they lie, in any order.",
                "Tile the pictures again without shard_format=tar, or leave --tiles away.",
            )
        self._spec = spec
        self._fallback = fallback
        self._entries: dict[str, tuple[int, TiledImage]] = {}
        self._files: list[Path] = []
        for number, (file, shard) in enumerate(shards_of(folder)):
            self._files.append(file)
            self._entries |= {entry.sha256: (number, _slim(entry)) for entry in shard.images}
        self._open = functools.lru_cache(maxsize=_SHARDS_OPEN)(_slice_of)
        self._entry = functools.lru_cache(maxsize=_REMEMBERED)(self._find)
        self.cut_again = 0

    def tile_count(self, tiled: Tiled) -> int:
        entry = self._entry(tiled)
        return self._fallback.tile_count(tiled) if entry is None else entry[1].tile_count

    def coarser(self, tiled: Tiled) -> Tiled | None:
        return self._fallback.coarser(tiled)

    def holds(self, tiled: Tiled) -> bool:
        return self._entry(tiled) is not None or self._fallback.holds(tiled)

    def tiles_of(self, tiled: Tiled) -> torch.Tensor:
        found = self._entry(tiled)
        if found is None:
            return self._fallback.tiles_of(tiled)
        number, entry = found
        stored = self._open(self._files[number])
        tiles: torch.Tensor = stored[entry.first_tile : entry.first_tile + entry.tile_count]  # [tiles, 3, S, S]
        return tiles

    def _find(self, tiled: Tiled) -> tuple[int, TiledImage] | None:
        """The picture's entry, if its tiles are those that this training would cut."""
        found = self._entries.get(hashlib.sha256(tiled.picture.read()).hexdigest()) if tiled.picture.exists() else None
        if found is not None:
            entry = found[1]
            wanted = plan_tiled(Size(entry.width, entry.height), self._spec, tiled.most)
            if (entry.grid, entry.picture) == (wanted.grid, wanted.picture):
                return found
        self.cut_again += 1
        return None


def _slim(entry: TiledImage) -> TiledImage:
    """The entry without its boxes, which follow from its grid: an index of a corpus stays in memory."""
    return entry.model_copy(update={"boxes": ()})


def _slice_of(file: Path) -> Any:
    """The tiles of a file, mapped: [tiles, 3, S, S] that is read where it is sliced."""
    from safetensors import safe_open

    return safe_open(str(file), framework="pt").get_slice(TENSOR)


def _size_of(picture: Picture) -> Size:
    return picture.size()
