"""Features on disk, by model and picture, so that a picture that was asked about yesterday need not be encoded today.

    FOLDER/<digest of the model>/<sha256 of the picture>.safetensors     image_features [tokens, H] float32

A file appears whole or not at all; one that is damaged costs only the time it would have saved. The folder is the
user's alone: features tell much of what a picture shows.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.atomic_file import atomic_file
from stages.device.contract.feature_files import DTYPE, KEY
from stages.device.runtime.session_cache import cache_folder

FOLDER = "features"
LIMIT_BYTES = 1_000_000_000


class FeatureDisk:
    """The features of one model in a folder that all models share.

    Args:
        folder: where they lie; made when the first ones are kept.
        model: digest of the exported model.
        limit: bytes of the files of all models; the longest unused go first.
    """

    def __init__(self, folder: Path, model: str, limit: int = LIMIT_BYTES) -> None:
        self.folder, self._model, self._limit = folder, model, limit

    def get(self, digest: str, shape: tuple[int, int]) -> NDArray[np.float32] | None:
        """Features of the picture with this digest; None where there are none of this shape [tokens, H]."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = self._path(digest)
        try:
            values = load_file(path).get(KEY)
            if values is not None and values.dtype == DTYPE and values.shape == shape and np.isfinite(values).all():
                os.utime(path)
                return values
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError):
            pass
        with contextlib.suppress(OSError):
            path.unlink()
        return None

    def put(self, digest: str, features: NDArray[np.float32]) -> None:
        """Keeps a picture's features; where the disk does not allow it, nothing is kept."""
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        path = self._path(digest)
        if features.nbytes > self._limit:
            return
        # A damaged file costs only time: it is not worth waiting for the disk. A full disk is no reason to complain.
        with contextlib.suppress(OSError, SafetensorError):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.parent.mkdir(exist_ok=True, mode=0o700)
            with atomic_file(path, private=True, durable=False) as part:
                save_file({KEY: np.ascontiguousarray(features, DTYPE)}, part)
            self._make_room()

    def _make_room(self) -> None:
        """Drops the longest unused files; another process may be doing the same."""
        found = []
        for path in self.folder.glob("*/*"):
            with contextlib.suppress(OSError):
                status = path.stat()
                found.append((status.st_mtime_ns, path, status.st_size))
        total = sum(size for _, _, size in found)
        for _, path, size in sorted(found):
            if total <= self._limit:
                return
            with contextlib.suppress(OSError):
                path.unlink()
            total -= size

    def _path(self, digest: str) -> Path:
        return self.folder / self._model / f"{digest}.safetensors"


def user_features(model: str) -> FeatureDisk | None:
    """The features of a model in the user's cache folder; None where there is no such folder."""
    folder = cache_folder()
    return None if folder is None else FeatureDisk(folder / FOLDER, model)
