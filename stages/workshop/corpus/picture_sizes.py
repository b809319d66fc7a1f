"""Sizes of all pictures of an input, from their headers: nothing is decoded, and a few pictures are held at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from stages.artifacts.errors import ImageError
from stages.device.imaging.geometry import Size
from stages.device.imaging.reading import make_in_order
from stages.device.imaging.sizes import SizedPicture, is_size_list, read_size_list
from stages.workshop.corpus.picture import Picture, PictureBytes
from stages.workshop.corpus.picture_streams import Found, Unusable, open_pictures

# A header takes a tenth of a millisecond: less than handing it to a thread.
_TOGETHER = 64
_Item = TypeVar("_Item")


class Measured(NamedTuple):
    """Pictures with a size; `picture` is the picture itself, where there is one and its bytes need not be held."""

    sized: SizedPicture
    picture: Picture | None = None


def picture_sizes(
    path: Path, images: Path | None = None, threads: int | None = None
) -> Iterator[Sequence[Measured | Unusable]]:
    """Every picture with its upright size, a few at a time, in the order of the input; a CSV of sizes has them already.

    Args:
        path: what `open_pictures` opens, or a list of sizes.
        images: where pictures lie that the data names, if not beside it.
        threads: of reading files; the usual number when None.

    Raises:
        BluelmError: the input itself cannot be used.
    """
    if is_size_list(path):
        yield from _batched(Measured(sized) for sized in read_size_list(path))
        return
    found = _batched(_with_bytes_measured(open_pictures(path, images)))
    for measured in make_in_order(_measure_all, found, threads):
        if isinstance(measured, ImageError):
            raise measured
        yield measured


def _batched(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    stream = iter(items)
    while batch := list(itertools.islice(stream, _TOGETHER)):
        yield batch


def _with_bytes_measured(found: Iterable[Found]) -> Iterator[Picture | Measured | Unusable]:
    """Pictures whose bytes are there are measured at once, so that no batch holds their bytes."""
    for item in found:
        yield _measure(item) if isinstance(item, PictureBytes) else item


def _measure_all(batch: list[Picture | Measured | Unusable]) -> list[Measured | Unusable]:
    """Sizes of a batch; a picture that several of its rows name is opened once."""
    known: dict[Picture, Measured | Unusable] = {}
    measured: list[Measured | Unusable] = []
    for item in batch:
        if isinstance(item, Measured | Unusable):
            measured.append(item)
            continue
        if item not in known:
            known[item] = _measure(item)
        measured.append(known[item])
    return measured


def _measure(picture: Picture) -> Measured | Unusable:
    try:
        size: Size = picture.size()
    except ImageError as error:
        return Unusable(error.what.rstrip("."))
    return Measured(SizedPicture(size, picture.name), None if isinstance(picture, PictureBytes) else picture)
