"""Encoded pictures on disk: the `features` artifact (`vit-features`: see feature_shards.py).

    features.json                     what is there, from which model
    features/<sha256>.safetensors     one file per picture, named by the digest of the picture's bytes

A file holds `image_features` [tokens, H] float32, what the decoder reads in a picture's place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from stages.artifacts.atomic_file import atomic_file
from stages.artifacts.errors import ArtifactError
from stages.artifacts.typed_json import read_typed_json
from stages.device.imaging.geometry import Grid, Size
from stages.device.imaging.tiling import Tiling

INDEX_FILE = "features.json"
FOLDER = "features"
KIND: Literal["features"] = "features"
FeatureKey = Literal["image_features", "vit_features"]
# As the output of vision.onnx (`names`).
KEY: FeatureKey = "image_features"
DTYPE = np.dtype(np.float32)
_REMAKE = "Encode the pictures again: bluelm encode MODEL PICTURES --out FOLDER --force"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FeatureEntry(_Strict):
    """One picture: its names inside the inputs that named it, its digest, size and tiling."""

    names: tuple[str, ...]
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size: Size
    grid: Grid
    tiles: int
    tokens: int

    @property
    def file(self) -> str:
        """Where its features are, relative to the artifact."""
        return feature_file(self.sha256)

    @classmethod
    def of(cls, names: tuple[str, ...], sha256: str, tiling: Tiling) -> FeatureEntry:
        """The entry of a picture with this tiling."""
        return cls(
            names=names, sha256=sha256, size=tiling.size, grid=tiling.grid, tiles=tiling.tiles, tokens=tiling.tokens
        )


class FeatureIndex(_Strict):
    """The whole of `features.json`: the kind, the digest of the exported model, and the pictures."""

    kind: Literal["features"] = KIND
    model: str
    images: tuple[FeatureEntry, ...]

    def write(self, folder: Path) -> None:
        """Writes `features.json` into an artifact."""
        (folder / INDEX_FILE).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def feature_file(sha256: str) -> str:
    """Where the features of the picture with this digest are, relative to the artifact."""
    return f"{FOLDER}/{sha256}.safetensors"


def read_index(folder: Path) -> FeatureIndex:
    """Reads `features.json`.

    Raises:
        ArtifactError: it is missing or broken.
    """
    why = "It says which features are whose."
    return read_typed_json(folder / INDEX_FILE, FeatureIndex, ArtifactError, unreadable=why, broken=why, fix=_REMAKE)


def write_features(folder: Path, sha256: str, values: NDArray[Any]) -> None:
    """Writes one picture's features; the file appears whole or not at all."""
    from safetensors.numpy import save_file

    path = folder / feature_file(sha256)
    path.parent.mkdir(exist_ok=True)
    with atomic_file(path) as part:
        save_file({KEY: np.ascontiguousarray(values, dtype=DTYPE)}, part)


def read_features(folder: Path, sha256: str) -> NDArray[Any]:
    """Reads one picture's features.

    Raises:
        ArtifactError: the file is missing, broken, or holds something else.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / feature_file(sha256)
    try:
        values = load_file(path).get(KEY)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}.", "It holds a picture's features.", _REMAKE) from error
    if values is None or values.dtype != DTYPE:
        raise ArtifactError(f"{path} holds no {KEY} of {DTYPE}.", "It is another artifact's.", _REMAKE)
    return values
