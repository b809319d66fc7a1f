"""Sizes of many pictures, counted: what statistics need of a corpus, however large it is.

Memory is bounded: of each distinct size there is a count and the name of the first picture that has it, and of distinct
sizes at most `MOST_SIZES` until the block is taken out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from stages.artifacts.errors import DataError, raise_all
from stages.device.imaging.geometry import Size

MOST_SIZES = 2**17
# Sides beyond are no picture's; with as many pictures, sums of tokens still fit into 64 bits.
MAX_SIDE, MAX_COUNT = 10**6, 10**12
_LONGEST_LINE = 4096
_SHOWN = 60
_TOLD = 20
_HEADERS = {"width": "width", "w": "width", "height": "height", "h": "height", "count": "count", "n": "count"}
_USUAL = ("width", "height", "count")
_NUMBER = re.compile(r"[0-9]{1,15}", re.ASCII)
_WHY = "It lists the sizes of pictures, one on each line."
_FIX = "Write lines like 640,480 or 640,480,1061: width, height and, if there are several, how many have that size."


@dataclass(frozen=True)
class SizedPicture:
    """Pictures of one size: how many, and what the first of them is called."""

    size: Size
    name: str
    count: int = 1


@dataclass(frozen=True)
class SizeBlock:
    """N distinct sizes, sorted.

    `widths`, `heights`: pixels, int64 [N]. `counts`: pictures, int64 [N]. `names`: of the first picture of each size.
    """

    widths: np.ndarray
    heights: np.ndarray
    counts: np.ndarray
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.names)


class SizeCounter:
    """Counts pictures by size."""

    def __init__(self) -> None:
        self._counts: dict[Size, int] = {}
        self._names: dict[Size, str] = {}

    def add(self, pictures: SizedPicture) -> None:
        """Counts pictures of one size."""
        self._counts[pictures.size] = self._counts.get(pictures.size, 0) + pictures.count
        self._names.setdefault(pictures.size, pictures.name)

    @property
    def is_full(self) -> bool:
        """Whether it is time to take the block out."""
        return len(self._counts) >= MOST_SIZES

    def take(self) -> SizeBlock:
        """What was counted; counting then begins anew."""
        sizes = sorted(self._counts)
        block = SizeBlock(
            np.array([size.width for size in sizes], np.int64),
            np.array([size.height for size in sizes], np.int64),
            np.array([self._counts[size] for size in sizes], np.int64),
            [self._names[size] for size in sizes],
        )
        self._counts, self._names = {}, {}
        return block


def is_size_list(path: Path) -> bool:
    """Whether an input is a list of sizes, by its name."""
    return path.suffix.lower() == ".csv"


def read_size_list(path: Path) -> Iterator[SizedPicture]:
    """The lines of a CSV `width,height[,count]`; names of columns above them are optional, and give their order.

    Raises:
        DataError: it cannot be read, lists no size, or lines are wrong: the first of them together, each with its
            number and what stands there.
    """
    problems: list[DataError] = []
    columns: Sequence[str] | None = None
    total, first = 0, True
    for number, line in _lines(path):
        fields = [field.strip() for field in line.split(",")]
        if first and any(field.isalpha() for field in fields):
            columns = _columns(path, number, fields)
            first = False
            continue
        first = False
        read = _read(path, number, fields, columns)
        if isinstance(read, DataError):
            problems.append(read)
            if len(problems) >= _TOLD:
                break
        else:
            total += read.count
            if read.count and not problems:
                yield read
    raise_all(problems)
    if not 1 <= total <= MAX_COUNT:
        what = f"lists {total:,} pictures, more than {MAX_COUNT:,}" if total else "lists no size"
        raise DataError(f"{path} {what}.", _WHY, _FIX)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that hold something, with their numbers from 1."""
    number = 1
    try:
        with path.open(encoding="utf-8-sig", newline=None) as file:
            while line := file.readline(_LONGEST_LINE):
                if len(line) == _LONGEST_LINE:
                    raise DataError(f"{path}, line {number} is longer than {_LONGEST_LINE:,} characters.", _WHY, _FIX)
                if line.strip():
                    yield number, line.rstrip("\n")
                number += 1
    except UnicodeDecodeError as error:
        what = f"{path}, line {number} or a little further: it is not UTF-8 ({error.reason})."
        raise DataError(what, _WHY, "Save it as UTF-8.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.", _WHY, "Check its path and rights.") from error


def _columns(path: Path, number: int, fields: Sequence[str]) -> tuple[str, ...]:
    """The order of columns that a header gives."""
    names = tuple(_HEADERS.get(field.lower(), "") for field in fields)
    if len(set(names)) == len(names) and {"width", "height"} <= set(names) <= set(_USUAL):
        return names
    raise DataError(
        f"{path}, line {number}: {_printed(','.join(fields))} is no header of sizes.",
        "Which column is which cannot be told.",
        "Name the columns width,height or width,height,count; no other column is read.",
    )


def _read(path: Path, number: int, fields: Sequence[str], header: Sequence[str] | None) -> SizedPicture | DataError:
    """A line; without a header its count may be left out."""
    columns = header or _USUAL[: max(2, len(fields))]
    if len(fields) != len(columns):
        right = len(header) if header else "2 or 3"
        what = f"{path}, line {number}: {_printed(','.join(fields))} has {len(fields)} values, not {right}."
        return DataError(what, _WHY, _FIX)
    values: Mapping[str, str] = dict(zip(columns, fields, strict=True))
    numbers = {}
    for name, text in values.items():
        least, most = (0, MAX_COUNT) if name == "count" else (1, MAX_SIDE)
        if not _NUMBER.fullmatch(text) or not least <= int(text) <= most:
            what = f"{path}, line {number}: the {name} {_printed(text)} is no whole number from {least} to {most:,}."
            return DataError(what, _WHY, _FIX)
        numbers[name] = int(text)
    size = Size(numbers["width"], numbers["height"])
    return SizedPicture(size, f"{path.name}, line {number}", numbers.get("count", 1))


def _printed(text: str) -> str:
    shown = "".join(islice(text, _SHOWN)) + ("…" if len(text) > _SHOWN else "")
    return repr(shown)
