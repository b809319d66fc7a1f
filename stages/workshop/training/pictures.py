"""Where a picture's tiles come from: cut when first asked for and kept while they fit, or read from a tiles folder.

Tiles stay uint8 [tiles, 3, S, S] until they are on the training device: a quarter of the memory, and of the transfer.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Protocol

import torch

from stages.artifacts.digest import digest_file
from stages.artifacts.errors import ArtifactError, DataError
from stages.device.imaging.crop import crop_tiles, padding_colour
from stages.device.imaging.geometry import Size
from stages.device.imaging.loading import load_image, read_size
from stages.device.imaging.spec import TilingSpec
from stages.device.imaging.tiles_file import TENSOR, TILES_FILE, TiledImage, read_tiles_index
from stages.device.imaging.tiling import plan_tiling
from stages.workshop.model.image_processing import BlueLMVImageProcessor


class TileSource(Protocol):
    """Gives the tiles of a picture."""

    def tile_count(self, picture: Path) -> int:
        """How many tiles a picture has, without reading its pixels."""

    def holds(self, picture: Path) -> bool:
        """Whether its tiles are at hand, so that loading them costs nothing."""

    def tiles_of(self, picture: Path) -> torch.Tensor:
        """Its tiles, uint8 [tiles, 3, S, S]."""


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
        self._kept: dict[Path, torch.Tensor] = {}
        self._lock = threading.Lock()

    def fits(self, tiles: int) -> bool:
        """Whether so many more tiles would all be kept."""
        return tiles * 3 * self._spec.tile_size**2 <= self._left

    def tile_count(self, picture: Path) -> int:
        return plan_tiling(read_size(picture), self._spec).tiles

    def holds(self, picture: Path) -> bool:
        return picture in self._kept

    def tiles_of(self, picture: Path) -> torch.Tensor:
        kept = self._kept.get(picture)
        if kept is not None:
            return kept
        image = load_image(picture)
        tiling = plan_tiling(Size(*image.size), self._spec)
        tiles = torch.from_numpy(crop_tiles(image, tiling, self._pad, self._resample))  # [tiles, 3, S, S]
        with self._lock:
            if picture not in self._kept and tiles.nbytes <= self._left:
                self._left -= tiles.nbytes
                self._kept[picture] = tiles
        return tiles


class StoredTiles:
    """Tiles that `bluelm tile` wrote, read from the file as they are needed (it is mapped, not loaded).

    A picture is found by its content, wherever it lies; its grid must be the one this training would choose.

    Args:
        folder: a tiles artifact.
        spec: the tiling of this training.

    Raises:
        ArtifactError: the folder's tiles are of another size.
    """

    def __init__(self, folder: Path, spec: TilingSpec) -> None:
        from safetensors import safe_open

        index = read_tiles_index(folder)
        if index.tiling.tile_size != spec.tile_size:
            raise ArtifactError(
                f"{folder} holds tiles of {index.tiling.tile_size} pixels, the model takes {spec.tile_size}.",
                "Scaling them again would not give the pictures' own tiles.",
                "Tile the pictures again with the model's preset, or leave --tiles away.",
            )
        self._folder = folder
        self._spec = spec
        self._entries = {entry.sha256: entry for entry in index.images}
        self._found: dict[Path, TiledImage] = {}
        self._file = safe_open(str(folder / TILES_FILE), framework="pt").get_slice(TENSOR)

    def tile_count(self, picture: Path) -> int:
        return self._entry(picture).tile_count

    def holds(self, picture: Path) -> bool:
        return True

    def tiles_of(self, picture: Path) -> torch.Tensor:
        entry = self._entry(picture)
        tiles: torch.Tensor = self._file[entry.first_tile : entry.first_tile + entry.tile_count]  # [tiles, 3, S, S]
        return tiles

    def _entry(self, picture: Path) -> TiledImage:
        if picture not in self._found:
            self._found[picture] = self._find(picture)
        return self._found[picture]

    def _find(self, picture: Path) -> TiledImage:
        fix = "Tile the corpus again with the recipe's settings, or leave --tiles away."
        entry = self._entries.get(digest_file(picture))
        if entry is None:
            raise DataError(
                f"{self._folder} has no tiles of {picture}.", "Every picture of the data must be there.", fix
            )
        wanted = plan_tiling(Size(entry.width, entry.height), self._spec)
        if (entry.grid, entry.picture) != (wanted.grid, wanted.picture):
            raise DataError(
                f"{picture} is tiled {entry.grid.cols}:{entry.grid.rows} in {self._folder} ({entry.rule}), the recipe "
                f"says {wanted.grid.cols}:{wanted.grid.rows} ({wanted.rule}).",
                "The model would see other tiles than it is meant to.",
                fix,
            )
        return entry
