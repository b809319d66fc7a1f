"""Where a tensor lies in an exported folder: a file, an offset, a shape. The runtime maps it into memory from there."""

from __future__ import annotations

import math
import mmap
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from stages.artifacts.errors import ModelError

Dtype = Literal["float32", "float16", "int8", "uint8", "int32", "int64"]
_MOST_AXES = 8


def bare(file: str) -> str:
    """The name of a file in the folder itself, as it is.

    Raises:
        ValueError: it could lead elsewhere.
    """
    if not file or file in (".", "..") or Path(file).name != file or "\\" in file or "\0" in file:
        raise ValueError(f"{file!r} is not the bare name of a file")
    return file


class TensorRef(BaseModel):
    """A tensor in a file of the folder, row-major.

    Attributes:
        file: a bare name, so that nothing outside the folder is read.
        offset: bytes before it, a multiple of an item's.
        shape: its dimensions, at most 8, each at least 1.
        dtype: numpy's name of its type.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    offset: int = Field(ge=0, lt=2**63)
    shape: tuple[int, ...]
    dtype: Dtype

    @field_validator("file")
    @classmethod
    def _stays_inside(cls, file: str) -> str:
        return bare(file)

    @field_validator("shape")
    @classmethod
    def _countable(cls, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) > _MOST_AXES or any(not 1 <= size < 2**63 for size in shape):
            raise ValueError(f"{list(shape[: _MOST_AXES + 1])} is no shape")
        return shape

    @model_validator(mode="after")
    def _aligned(self) -> TensorRef:
        if self.offset % np.dtype(self.dtype).itemsize:
            raise ValueError(f"no {self.dtype} begins at byte {self.offset}")
        return self

    @property
    def nbytes(self) -> int:
        """Bytes it takes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class MappedFile:
    """A file of weights, mapped read-only; pages come when they are touched and can be let go of again.

    Args:
        path: the file.

    Raises:
        ModelError: it is missing or cannot be mapped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as stream:
                self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise ModelError(
                f"{path} cannot be read: {error}.",
                "It holds the model's weights.",
                "Export the model again: bluelm export CHECKPOINT --out FOLDER --force",
            ) from error

    def array(self, ref: TensorRef) -> NDArray[Any]:
        """A read-only view of a tensor in this file.

        Raises:
            ModelError: the file is too short for it.
        """
        if ref.offset + ref.nbytes > len(self._map):
            raise ModelError(
                f"{self.path} has {len(self._map)} bytes; a weight lies at {ref.offset} to {ref.offset + ref.nbytes}.",
                "The file was cut short, or belongs to another export.",
                "Copy the folder again, or export the model again: bluelm export CHECKPOINT --out FOLDER --force",
            )
        count = math.prod(ref.shape)
        return np.frombuffer(self._map, ref.dtype, count, ref.offset).reshape(ref.shape)

    def release(self, ref: TensorRef) -> None:
        """Lets go of the pages of a tensor: they no longer count as this process's memory; a later touch reads again.

        The pages at both ends, which a neighbour may share, go too; nothing is lost, they are only read again.
        """
        page = mmap.PAGESIZE
        start = ref.offset // page * page
        self._release(start, min(ref.offset + ref.nbytes, len(self._map)))

    def release_all(self) -> None:
        """Lets go of all pages; the system maps some around each one that is touched."""
        self._release(0, len(self._map))

    def _release(self, start: int, end: int) -> None:
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, start, end - start)


def map_files(folder: Path, refs: list[TensorRef]) -> dict[str, MappedFile]:
    """Maps every file that some tensors lie in, by name.

    Raises:
        ModelError: a file is missing.
    """
    return {name: MappedFile(folder / name) for name in sorted({ref.file for ref in refs})}
