"""From a picture file to the features the decoder reads: digest, tiling, tiles, encoding, or a stored result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.errors import ArtifactError, ImageError
from stages.device.contract.device_config import DeviceConfig
from stages.device.contract.feature_files import FeatureIndex, read_features, read_index
from stages.device.imaging.crop import padding_colour
from stages.device.imaging.cutting import CutPicture, cut_picture
from stages.device.imaging.tiling import Tiling, plan_tiling
from stages.device.runtime.album import OnTiles, PictureFeatures
from stages.device.runtime.encoder import ImageEncoder
from stages.device.runtime.feature_disk import FeatureDisk
from stages.device.runtime.timeline import Timeline


class FeatureStore(Protocol):
    """Features made before, by digest of the picture."""

    def get(self, digest: str) -> NDArray[np.float32] | None:
        """Features [tokens, H] of the picture with this digest; None where there are none."""


class StoredFeatures:
    """The features of a `features` artifact, for the model that made them.

    Args:
        folder: the artifact.
        model: digest of the exported model that will read them.

    Raises:
        ArtifactError: the artifact is broken, or another model's.
    """

    def __init__(self, folder: Path, model: str) -> None:
        self.folder = folder
        index: FeatureIndex = read_index(folder)
        if index.model != model:
            raise ArtifactError(
                f"{folder} was encoded by another model ({index.model[:12]}, not {model[:12]}).",
                "Its features mean nothing to this one.",
                "Encode the pictures with this model: bluelm encode MODEL PICTURES --out FOLDER",
            )
        self._entries = {entry.sha256: entry for entry in index.images}

    def get(self, digest: str) -> NDArray[np.float32] | None:
        """Features [tokens, H] of the picture with this digest; None where there are none.

        Raises:
            ArtifactError: its file is damaged.
        """
        if digest not in self._entries:
            return None
        return read_features(self.folder, digest)


class PictureReader:
    """Reads and encodes pictures for one model; what an album works with.

    Args:
        encoder: the model's image encoder.
        config: its `device.json`.
        stored: features that need not be computed.
        disk: where features are kept between runs; None for nowhere.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        config: DeviceConfig,
        stored: FeatureStore | None = None,
        disk: FeatureDisk | None = None,
    ) -> None:
        self._encoder, self._config, self._stored, self._disk = encoder, config, stored, disk

    def read(self, path: Path) -> bytes:
        """The picture's bytes. Raises ImageError where there are none."""
        return picture_bytes(path)

    def encode(self, path: Path, data: bytes, digest: str, on_tiles: OnTiles | None = None) -> PictureFeatures:
        """Tiles and encodes a picture, or takes its stored features.

        Args:
            path: stands for the picture in messages.
            data: its bytes.
            digest: their sha256.
            on_tiles: called with tiles done and tiles in all.

        Raises:
            ImageError: the picture is broken.
            ModelError: a graph fails.
            ArtifactError: stored features are damaged, or of another shape than the picture needs.
        """
        picture = tile_picture(data, str(path), self._config)
        wanted = (picture.tiling.tokens, self._config.decoder.hidden_size)
        stored = self._stored.get(digest) if self._stored is not None else None
        if stored is not None:
            if stored.shape != wanted:
                raise ArtifactError(
                    f"The stored features of {path} are {list(stored.shape)}, not {list(wanted)}.",
                    "They do not fill the picture's place in the prompt.",
                    "Encode it again: bluelm encode MODEL PICTURES --out FOLDER --force",
                )
            return self._made(path, digest, picture.tiling, stored, stored_already=True)
        kept = self._disk.get(digest, wanted) if self._disk is not None else None
        if kept is not None:
            return self._made(path, digest, picture.tiling, kept, stored_already=True)
        timeline = Timeline()
        watch = None if on_tiles is None else _counting(picture.tiling.tiles, on_tiles)
        encoded = next(self._encoder.encode([picture.tiles], timeline=timeline, on_tiles=watch))
        features = encoded.values.reshape(-1, encoded.values.shape[-1])  # [tiles·t, H]
        return self._made(path, digest, picture.tiling, features, timeline)

    def keep(self, made: PictureFeatures) -> None:
        """Keeps features on disk, where there is a place for them."""
        if self._disk is not None:
            self._disk.put(made.digest, made.features)

    def _made(
        self,
        path: Path,
        digest: str,
        tiling: Tiling,
        features: NDArray[np.float32],
        timeline: Timeline | None = None,
        stored_already: bool = False,
    ) -> PictureFeatures:
        return PictureFeatures(
            path=path,
            digest=digest,
            size=tiling.size,
            grid=tiling.grid,
            tiles=tiling.tiles,
            features=features,
            encode_s=0.0,
            reused=stored_already,
            spans=timeline.spans if timeline is not None else (),
        )


def _counting(total: int, on_tiles: OnTiles) -> Callable[[int], None]:
    """Adds up the tiles of each batch; says at once that none is done yet."""
    done = 0

    def count(tiles: int) -> None:
        nonlocal done
        done += tiles
        on_tiles(done, total)

    count(0)
    return count


def picture_bytes(path: Path) -> bytes:
    """A picture file's bytes.

    Raises:
        ImageError: absent, not a regular file, or unreadable.
    """
    if path.exists() and not path.is_file():
        raise ImageError(f"{path} is not a regular file.", "A picture is needed here.", "Name a picture file.")
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError(f"{path} does not exist.", "There is no picture to read.", "Check the path.") from error
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}.", "It is an input.", "Check its rights.") from error


def tile_picture(data: bytes, name: str, config: DeviceConfig) -> CutPicture:
    """Cuts a picture as this model wants it.

    Raises:
        ImageError: the bytes are no picture, or a broken one; `name` stands for it in the message.
    """
    pad = padding_colour(config.vision.image_mean)
    return cut_picture(data, name, lambda size: plan_tiling(size, config.tiling), pad, config.vision.resample)
