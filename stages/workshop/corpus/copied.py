"""Pictures that a corpus holds itself: copied out of folders and shards, each once, under the name of its content."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path, PurePosixPath

from stages.artifacts.atomic_file import write_atomically
from stages.device.imaging.sources import PICTURE_SUFFIXES
from stages.workshop.corpus.index import PictureRoots
from stages.workshop.corpus.llava import Refer
from stages.workshop.corpus.picture import Picture

IMAGES = "images"
# First bytes of the formats that cells of tables, which have no file name, mostly hold.
_MAGIC = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"GIF8": ".gif", b"RIFF": ".webp"}
_REMEMBERED = 4096


class CopiedPictures:
    """Copies pictures into a corpus, each once however often it comes, and names them there by their digest.

    Args:
        folder: the corpus. Copies that an earlier, stopped run left there are taken as they are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._copy = functools.lru_cache(_REMEMBERED)(self._make)

    def refer(self, picture: Picture) -> str:
        """The copy's name in the corpus.

        Raises:
            ImageError: the picture cannot be read.
        """
        return self._copy(picture)

    def _make(self, picture: Picture) -> str:
        data = picture.read()
        digest = hashlib.sha256(data).hexdigest()
        # A folder of millions of files is slow to use: 256 folders, as git has them.
        name = f"{IMAGES}/{digest[:2]}/{digest[2:34]}{_suffix(picture.name, data)}"
        path = self._folder / name
        # Where the power was cut, a file can have its name and nothing in it.
        if not path.exists() or path.stat().st_size != len(data):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, data, durable=False)
        return name


def _suffix(name: str, data: bytes) -> str:
    """The suffix that the picture has; where it has none, that of its format."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in PICTURE_SUFFIXES:
        return suffix
    return next((suffix for magic, suffix in _MAGIC.items() if data.startswith(magic)), "")


def roots_or_copies(folder: Path, copy: bool) -> tuple[Refer, PictureRoots]:
    """How a corpus in `folder` names pictures, and the roots that its index needs."""
    roots = PictureRoots()
    return (CopiedPictures(folder).refer if copy else roots.refer), roots
