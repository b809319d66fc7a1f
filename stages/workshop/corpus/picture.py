"""A picture of a row: a file, or a part of a shard. Named by the row, read only when it is asked for.

    for picture in row.pictures:
        picture.name            # "images/1.png", "00.tar/a.jpg", "0.parquet[3].image": the same on every machine
        picture.read()          # the bytes of the encoded picture
        picture.load()          # upright 8-bit RGB, as `load_image`
        picture.size()          # upright size from the header alone
        picture.check()         # decodes it and throws the pixels away

Pictures are equal where they lie at the same place; they can be keys of a dict and be sent to other processes. Whatever
is wrong with one (missing, broken, its shard replaced by another) is an ImageError that names it.
"""

from __future__ import annotations

import hashlib
import io
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from stages.artifacts.digest import digest_file
from stages.artifacts.errors import ImageError
from stages.device.imaging.geometry import Size
from stages.device.imaging.loading import (
    check_image,
    check_image_bytes,
    load_image,
    load_image_bytes,
    read_size,
    read_size_bytes,
    read_size_stream,
)
from stages.workshop.corpus.tables import cell_bytes

if TYPE_CHECKING:
    from PIL.Image import Image


class Picture(Protocol):
    """What every picture of a row can do."""

    def __hash__(self) -> int:
        """Pictures are keys of dicts."""

    @property
    def root(self) -> Path:
        """The folder that `name` is relative to."""

    @property
    def name(self) -> str:
        """What messages and reports call it."""

    def exists(self) -> bool:
        """Whether there is something to read, without reading it."""

    def read(self) -> bytes:
        """The encoded picture."""

    def load(self) -> Image:
        """The picture as upright 8-bit RGB."""

    def size(self) -> Size:
        """Its upright size."""

    def check(self) -> Size:
        """Its upright size, after its pixels were decoded."""

    def digest(self) -> str:
        """sha256 of its bytes, in hex."""


@dataclass(frozen=True)
class PictureFile:
    """A picture file.

    Attributes:
        root: the folder that its name is relative to.
        name: its path inside the root, with forward slashes.
    """

    root: Path
    name: str

    @classmethod
    def at(cls, path: Path) -> PictureFile:
        """A file by its path alone."""
        return cls(path.parent, path.name)

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.root / self.name

    def exists(self) -> bool:
        try:
            return self.path.is_file()
        except (OSError, ValueError):
            return False

    def read(self) -> bytes:
        """Raises: ImageError: it cannot be read."""
        return _read(self.path)

    def load(self) -> Image:
        """Raises: ImageError: it cannot be read or decoded."""
        return load_image(self.path)

    def size(self) -> Size:
        """Raises: ImageError: its header cannot be read."""
        return read_size(self.path)

    def check(self) -> Size:
        """Raises: ImageError: it cannot be read or decoded."""
        return check_image(self.path)

    def digest(self) -> str:
        """Raises: ImageError: it cannot be read."""
        # Its header first: what is no plain file, a pipe say, is never read to its end.
        read_size(self.path)
        try:
            return digest_file(self.path)
        except OSError as error:
            raise _unreadable(self.path, error) from error


class _FromBytes(ABC):
    """What follows from `name` and `read`."""

    @property
    @abstractmethod
    def name(self) -> str: ...

    @abstractmethod
    def read(self) -> bytes: ...

    def load(self) -> Image:
        """Raises: ImageError: it cannot be read or decoded."""
        return load_image_bytes(self.read(), self.name)

    def size(self) -> Size:
        """Raises: ImageError: its header cannot be read."""
        return read_size_bytes(self.read(), self.name)

    def check(self) -> Size:
        """Raises: ImageError: it cannot be read or decoded."""
        return check_image_bytes(self.read(), self.name)

    def digest(self) -> str:
        """Raises: ImageError: it cannot be read."""
        return hashlib.sha256(self.read()).hexdigest()


@dataclass(frozen=True)
class PictureInTar(_FromBytes):
    """A member of a tar file, found by where its bytes lie; nothing is ever extracted.

    Attributes:
        root: the folder that the shard's name is relative to.
        shard: the tar file inside the root.
        member: its name in the tar; only told, never opened.
        offset, length: where its content lies in the tar file.
    """

    root: Path
    shard: str
    member: str
    offset: int
    length: int

    @property
    def name(self) -> str:
        """The shard's name with the member's behind it."""
        return f"{self.shard}/{self.member}"

    def exists(self) -> bool:
        return (self.root / self.shard).is_file()

    def read(self) -> bytes:
        """Raises: ImageError: the shard is missing, or is another one than it was."""
        path = self.root / self.shard
        try:
            with path.open("rb") as stream:
                stream.seek(self.offset)
                data = stream.read(self.length)
        except OSError as error:
            raise _unreadable(path, error) from error
        if len(data) < self.length:
            raise _changed(path, self.name)
        return data

    def size(self) -> Size:
        """Raises: ImageError: the shard is missing, or the picture's header cannot be read."""
        path = self.root / self.shard
        try:
            stream = path.open("rb")
        except OSError as error:
            raise _unreadable(path, error) from error
        with stream:
            return read_size_stream(io.BufferedReader(_Window(stream, self.offset, self.length)), self.name)


class _Window(io.RawIOBase):
    """A part of a file as a file."""

    def __init__(self, stream: BinaryIO, first: int, length: int) -> None:
        self._stream, self._first, self._length, self._at = stream, first, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._stream.seek(self._first + self._at)
        data = self._stream.read(max(0, min(len(buffer), self._length - self._at)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


@dataclass(frozen=True)
class PictureInTable(_FromBytes):
    """A cell of a parquet or Arrow file: `{bytes, path}`, plain bytes, or one of a list of them.

    Attributes:
        root: the folder that the shard's name is relative to.
        shard: the file inside the root.
        column: the cell's column.
        row: the cell's row, counted from 0 in the file.
        item: its place in the cell's list; 0 where the cell is no list.
    """

    root: Path
    shard: str
    column: str
    row: int
    item: int = 0

    @property
    def name(self) -> str:
        """`FILE[ROW].COLUMN`, with the place in a list behind it."""
        place = f"[{self.item}]" if self.item else ""
        return f"{self.shard}[{self.row}].{self.column}{place}"

    def exists(self) -> bool:
        return (self.root / self.shard).is_file()

    def read(self) -> bytes:
        """Raises: ImageError: the shard is missing, or is another one than it was."""
        path = self.root / self.shard
        try:
            data = cell_bytes(path, self.column, self.row, self.item)
        except OSError as error:
            raise _unreadable(path, error) from error
        if data is None:
            raise _changed(path, self.name)
        return data


@dataclass(frozen=True)
class PictureBytes(_FromBytes):
    """A picture whose bytes were read with its row.

    Attributes:
        root: the folder that its shard's name is relative to.
        place: its name, as `PictureInTable` is named.
        data: the encoded picture.
    """

    root: Path
    place: str
    data: bytes = field(repr=False)

    @property
    def name(self) -> str:
        """Where it was read."""
        return self.place

    def exists(self) -> bool:
        return True

    def read(self) -> bytes:
        return self.data


PictureInShard = PictureInTar | PictureInTable


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ImageError:
    why = getattr(error, "strerror", None) or str(error)
    return ImageError(f"{path} cannot be read: {why}.", "A row needs its picture.", "Check its path and rights.")


def _changed(path: Path, name: str) -> ImageError:
    return ImageError(
        f"{path} holds no picture {name} where its row saw it.",
        "The file was replaced after the corpus was made.",
        "Make the corpus again from the file as it is now.",
    )
