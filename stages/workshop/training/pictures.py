"""Where a picture's tiles come from: cut when first asked for and kept while they fit, or read from a tiles folder.

Tiles stay uint8 [tiles, 3, S, S] until they are on the training device: a quarter of the memory, and of the transfer.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Protocol

import torch

from stages.artifacts.digest import digest_file
from stages.artifacts.errors import ArtifactError
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
        from safetensors import safe_open

        index = read_tiles_index(folder)
        if index.tiling.tile_size != spec.tile_size:
            raise ArtifactError(
                f"{folder} holds tiles of {index.tiling.tile_size} pixels, the model takes {spec.tile_size}.",
                "Scaling them again would not give the pictures' own tiles.",
                "Tile the pictures again with the model's preset, or leave --tiles away.",
            )
        self._spec = spec
        self._fallback = fallback
        self._entries = {entry.sha256: entry for entry in index.images}
        self._found: dict[Path, TiledImage | None] = {}
        self._file = safe_open(str(folder / TILES_FILE), framework="pt").get_slice(TENSOR)

    @property
    def cut_again(self) -> int:
        """Pictures asked for so far that the folder does not hold as this training wants them."""
        return sum(entry is None for entry in self._found.values())

    def tile_count(self, picture: Path) -> int:
        entry = self._entry(picture)
        return self._fallback.tile_count(picture) if entry is None else entry.tile_count

    def holds(self, picture: Path) -> bool:
        return self._entry(picture) is not None or self._fallback.holds(picture)

    def tiles_of(self, picture: Path) -> torch.Tensor:
        entry = self._entry(picture)
        if entry is None:
            return self._fallback.tiles_of(picture)
        tiles: torch.Tensor = self._file[entry.first_tile : entry.first_tile + entry.tile_count]  # [tiles, 3, S, S]
        return tiles

    def _entry(self, picture: Path) -> TiledImage | None:
        if picture not in self._found:
            self._found[picture] = self._find(picture)
        return self._found[picture]

    def _find(self, picture: Path) -> TiledImage | None:
        """The picture's entry, if its tiles are those that this training would cut."""
        entry = self._entries.get(digest_file(picture)) if picture.is_file() else None
        if entry is None:
            return None
        wanted = plan_tiling(Size(entry.width, entry.height), self._spec)
        return entry if (entry.grid, entry.picture) == (wanted.grid, wanted.picture) else None
