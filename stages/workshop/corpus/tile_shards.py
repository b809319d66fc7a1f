"""One shard of a corpus' tiles: what is to be cut, the cutting, what came of it. Runs in any process on any machine.

    tiles-00000.safetensors     `tiles`, uint8 [tiles of the shard, 3, S, S]    (or tiles-00000.tar, a WebDataset)
    tiles-00000.json            whose they are: `TilesIndex`

A shard counts once its index stands beside it, and that is put there last: a process that is killed leaves a whole
shard or none. Two processes that cut the same shard write the same bytes, so the last of them does no harm.
"""

from __future__ import annotations

import functools
import hashlib
import io
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

import numpy as np

from stages.artifacts.atomic_file import atomic_file, write_atomically
from stages.artifacts.errors import ImageError
from stages.device.imaging.crop import Colour, Scaler, pillow_scaled
from stages.device.imaging.cutting import CutPicture, cut_picture
from stages.device.imaging.spec import Resample, TilingSpec
from stages.device.imaging.tiles_file import (
    BrokenImage,
    ShardFormat,
    ShardTilesWriter,
    TiledImage,
    TilesIndex,
    TilesShard,
    indexed,
)
from stages.device.imaging.tiling import plan_tiling
from stages.workshop.corpus.picture import Picture

ScalerName = Literal["pillow", "torch"]


@dataclass(frozen=True)
class ShardCutting:
    """How a corpus is cut: the same for all shards.

    Attributes:
        folder: where shards go; every machine sees it under this path.
        spec: the tiling.
        pad: colour of the canvas around a picture.
        resample: Pillow's name of the filter.
        format: of a shard.
        skip_broken: leave broken pictures out and record them; otherwise their shard is not written.
        scaler: what scales.
    """

    folder: Path
    spec: TilingSpec
    pad: Colour
    resample: Resample
    format: ShardFormat
    skip_broken: bool
    scaler: ScalerName = "pillow"

    def file(self, number: int) -> Path:
        """The tiles of a shard."""
        return self.folder / f"tiles-{number:05d}.{self.format}"

    def index(self, number: int) -> Path:
        """Whose they are."""
        return self.file(number).with_suffix(".json")


@dataclass(frozen=True)
class ShardTask:
    """One shard to cut."""

    number: int
    pictures: tuple[Picture, ...]
    cutting: ShardCutting


@dataclass(frozen=True)
class ShardOutcome:
    """What came of it; a shard with problems was not written."""

    number: int
    pictures: int
    tiles: int = 0
    problems: tuple[ImageError, ...] = ()


def shard_tasks(pictures: Iterable[Picture], each: int, cutting: ShardCutting) -> Iterator[ShardTask]:
    """All shards in order; which picture is in which depends on nothing but the order of pictures."""
    stream, number = iter(pictures), 0
    while group := tuple(islice(stream, each)):
        yield ShardTask(number, group, cutting)
        number += 1


class _GivenUpError(Exception):
    """Pictures for which a shard is given up."""

    def __init__(self, problems: tuple[ImageError, ...]) -> None:
        self.problems = problems


def cut_shard(task: ShardTask) -> ShardOutcome:
    """Cuts a shard and puts it in its place."""
    try:
        return _cut_shard(task)
    except _GivenUpError as found:
        return ShardOutcome(task.number, len(task.pictures), problems=found.problems)


def _cut_shard(task: ShardTask) -> ShardOutcome:
    """Raises: _GivenUpError: there are some, and they are not to be left out."""
    cutting = task.cutting
    images: list[TiledImage] = []
    broken: list[BrokenImage] = []
    problems: list[ImageError] = []
    first = 0
    with atomic_file(cutting.file(task.number)) as part, part.open("wb") as stream:
        writer = _writer(stream, cutting, task.number)
        for picture in task.pictures:
            try:
                cut, digest = _cut(picture, cutting)
            except ImageError as error:
                problems.append(error)
                broken.append(BrokenImage(path=picture.name, problem=error.what))
                continue
            if problems and not cutting.skip_broken:
                continue  # only looked at, to tell all that are broken
            entry = indexed(picture.name, digest, cut.tiling, cutting.spec.alpha, first)
            writer.add(entry, cut.tiles)
            images.append(entry)
            first += cut.tiling.tiles
        if problems and not cutting.skip_broken:
            raise _GivenUpError(tuple(problems))
        writer.finish()
    index = TilesIndex(tiling=cutting.spec, images=tuple(images), broken=tuple(broken))
    write_atomically(cutting.index(task.number), index.as_text())
    return ShardOutcome(task.number, len(task.pictures), first)


def done_shard(number: int, cutting: ShardCutting) -> TilesShard | None:
    """A shard that is whole, as `tiles.json` lists it; None where it is still to be cut."""
    try:
        text = cutting.index(number).read_bytes()
    except FileNotFoundError:
        return None
    index = TilesIndex.model_validate_json(text)
    return TilesShard(
        file=cutting.file(number).name,
        pictures=len(index.images),
        tiles=sum(image.tile_count for image in index.images),
        tokens=sum(image.tokens for image in index.images),
        broken=len(index.broken),
    )


def _cut(picture: Picture, cutting: ShardCutting) -> tuple[CutPicture, str]:
    data = picture.read()
    name = str(picture.root / picture.name)
    plan, scaler = functools.partial(plan_tiling, spec=cutting.spec), _scaler(cutting.scaler)
    cut = cut_picture(data, name, plan, cutting.pad, cutting.resample, scaler=scaler)
    return cut, hashlib.sha256(data).hexdigest()


@functools.cache
def _scaler(name: ScalerName) -> Scaler:
    """torch is loaded where it is wanted, in the process that cuts, and takes one core there as Pillow does."""
    if name == "pillow":
        return pillow_scaled
    import torch

    from stages.workshop.corpus.torch_scaling import torch_scaled

    torch.set_num_threads(1)
    return torch_scaled


class _Writer(Protocol):
    def add(self, entry: TiledImage, tiles: np.ndarray) -> None: ...

    def finish(self) -> None: ...


def _writer(stream: BinaryIO, cutting: ShardCutting, number: int) -> _Writer:
    if cutting.format == "tar":
        return _TarWriter(stream, number)
    return ShardTilesWriter(stream, cutting.spec.tile_size)


class _TarWriter:
    """A WebDataset shard: of each picture KEY.npy, uint8 [tiles, 3, S, S], and KEY.json, its entry of the index."""

    def __init__(self, stream: BinaryIO, number: int) -> None:
        self._tar = tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        self._number, self._samples = number, 0

    def add(self, entry: TiledImage, tiles: np.ndarray) -> None:
        key = f"{self._number:05d}{self._samples:06d}"
        self._samples += 1
        array = io.BytesIO()
        np.save(array, tiles, allow_pickle=False)
        self._member(f"{key}.npy", array.getvalue())
        self._member(f"{key}.json", entry.model_dump_json().encode("utf-8"))

    def finish(self) -> None:
        self._tar.close()

    def _member(self, name: str, data: bytes) -> None:
        """Without owner and time: the same pictures give the same bytes."""
        member = tarfile.TarInfo(name)
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))
