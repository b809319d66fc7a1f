"""Features of pictures that were asked about before, by digest, bounded in bytes: the longest unused go first."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stages.device.runtime.album import PictureFeatures


class FeatureMemory:
    """Keeps features; used by one thread.

    Args:
        limit: most bytes.
        most: most pictures; None for any number.
    """

    def __init__(self, limit: int, most: int | None = None) -> None:
        self._limit, self._most = limit, most
        self._kept: OrderedDict[str, PictureFeatures] = OrderedDict()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, digest: str) -> PictureFeatures | None:
        """What is kept of the picture with this digest."""
        found = self._kept.get(digest)
        if found is not None:
            self._kept.move_to_end(digest)
        return found

    def put(self, picture: PictureFeatures) -> None:
        """Keeps a picture's features, unless they alone are too large."""
        size = picture.features.nbytes
        if size > self._limit or self._most == 0 or picture.digest in self._kept:
            return
        self._kept[picture.digest] = picture
        self.nbytes += size
        while self.nbytes > self._limit or (self._most is not None and len(self) > self._most):
            _, dropped = self._kept.popitem(last=False)
            self.nbytes -= dropped.features.nbytes
