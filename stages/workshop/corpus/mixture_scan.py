"""The first reading of a mixture's sources: how many rows each has, which cannot be used, and which are kept apart."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.errors import BluelmError, DataError, ImageError, raise_all
from stages.artifacts.events import Progress
from stages.workshop.corpus.mixture import Mixture, MixtureSource
from stages.workshop.corpus.mixture_split import NumberFile, PictureNumbers, Side, side, threshold_of
from stages.workshop.corpus.picture import Picture
from stages.workshop.corpus.readers.opening import open_rows, splits_of
from stages.workshop.corpus.readers.source import RowSource
from stages.workshop.corpus.row import BadRow, Row

_PROGRESS_EVERY = 1000
_REMEMBERED = 4096
HELDOUT = "heldout"


@dataclass(frozen=True)
class Scan:
    """What a source holds: rows to learn from, rows kept apart, rows between the two, rows that cannot be used."""

    train: int
    heldout: int
    between: int
    unusable: int
    numbers: NDArray[np.float64] | None = None

    @property
    def read(self) -> int:
        """All rows."""
        return self.train + self.heldout + self.between + self.unusable


def open_sources(given: Mapping[str, MixtureSource]) -> dict[str, RowSource]:
    """Opens all sources that have a place.

    Raises:
        BluelmError: those that cannot be opened, together.
    """
    sources: dict[str, RowSource] = {}
    problems: list[BluelmError] = []
    for name, source in given.items():
        assert source.place is not None
        try:
            sources[name] = open_rows(source.place, source.format, source.image_place, source.split)
        except BluelmError as error:
            problems += [DataError(f"{name}: {one.what}", one.why, one.fix) for one in error.problems]
    raise_all(problems)
    return sources


def heldout_of(given: Mapping[str, MixtureSource]) -> dict[str, RowSource]:
    """The held-out splits of the sources that have one."""
    found: dict[str, RowSource] = {}
    for name, source in given.items():
        assert source.place is not None
        if source.split != HELDOUT and HELDOUT in splits_of(source.place, source.format):
            found[name] = open_rows(source.place, source.format, source.image_place, HELDOUT)
    return found


class Scanner:
    """Reads all sources once. What cannot be used goes to `left_out.jsonl`, with its reason."""

    def __init__(self, mixture: Mixture, folder: Path, left_out: TextIO) -> None:
        """Args:
        mixture: what is asked for.
        folder: where numbers of pictures may be kept meanwhile.
        left_out: where rows are told that cannot be used.
        """
        self._heldout = mixture.drawn_apart
        self._folder = folder
        self._left_out = left_out
        self._numbers = None if self._heldout is None else PictureNumbers(mixture.seed, self._heldout.same)
        self._exists = lru_cache(_REMEMBERED)(_exists)
        self.scans: dict[str, Scan] = {}

    def run(self, sources: Mapping[str, RowSource]) -> Iterator[Progress]:
        """Fills `scans`.

        Raises:
            DataError: a source cannot be read, or none of its rows can be used.
        """
        numbers: dict[str, NDArray[np.float64]] = {}
        usable: dict[str, tuple[int, int]] = {}
        for index, (name, rows) in enumerate(sources.items()):
            file = NumberFile(self._folder / f"{index}.numbers") if self._numbers is not None else None
            good = bad = 0
            first: str | None = None
            for row in rows:
                reason = self._look(row, file)
                if reason is None:
                    good += 1
                else:
                    bad += 1
                    first = first or reason
                    self._tell(name, row, reason)
                if (good + bad) % _PROGRESS_EVERY == 0:
                    yield Progress(f"reading {name}", good + bad, rows.count, f"rows of {name}")
            yield Progress(f"reading {name}", good + bad, good + bad, f"rows of {name}")
            if not good:
                raise _useless(name, rows, first)
            usable[name] = good, bad
            if file is not None:
                numbers[name] = file.numbers()
        self._decide(usable, numbers)

    def _look(self, row: Row | BadRow, file: NumberFile | None) -> str | None:
        """Why a row cannot be used, if so; notes the numbers of its pictures."""
        reason, lowest, highest = self._reason(row), np.nan, np.nan
        if reason is None and self._numbers is not None and isinstance(row, Row):
            try:
                lowest, highest = self._numbers.of(row)
            except ImageError as error:
                reason = error.what
        if file is not None:
            file.append(lowest, highest)
        return reason

    def _reason(self, row: Row | BadRow) -> str | None:
        if isinstance(row, BadRow):
            return "; ".join(problem.text for problem in row.problems)
        missing = [picture for picture in row.pictures if not self._exists(picture)]
        return f"the picture {missing[0].root / missing[0].name} does not exist" if missing else None

    def _decide(self, usable: Mapping[str, tuple[int, int]], numbers: Mapping[str, NDArray[np.float64]]) -> None:
        """Where the threshold lies, and what that makes of each source."""
        if self._heldout is None:
            self.threshold = 0.0
            self.scans = {name: Scan(good, 0, 0, bad) for name, (good, bad) in usable.items()}
            return
        self.threshold = threshold_of(self._heldout, list(numbers.values()))
        for name, (good, bad) in usable.items():
            lowest, highest = numbers[name][:, 0], numbers[name][:, 1]
            # A comparison with NaN is false.
            heldout, train = int((highest < self.threshold).sum()), int((lowest >= self.threshold).sum())
            self.scans[name] = Scan(train, heldout, good - heldout - train, bad, numbers[name])

    def side_of(self, name: str, number: int, row: Row | BadRow) -> Side | None:
        """Where a row, number `number` of a source, belongs; None where it cannot be used."""
        numbers = self.scans[name].numbers
        if numbers is None:
            return "train" if self._reason(row) is None else None
        lowest, highest = numbers[number]
        return None if np.isnan(lowest) else side(lowest, highest, self.threshold)

    def usable_of(self, name: str, rows: RowSource) -> Iterator[Row]:
        """The rows of a split that is taken whole; those that cannot be used are told."""
        for row in rows:
            reason = self._reason(row)
            if reason is not None:
                self._tell(name, row, reason)
            elif isinstance(row, Row):
                yield row

    def _tell(self, name: str, row: Row | BadRow, reason: str) -> None:
        self._left_out.write(json.dumps(left_out(name, row, reason), ensure_ascii=False) + "\n")


def left_out(source: str, row: Row | BadRow, reason: str) -> dict[str, str | None]:
    """A line of `left_out.jsonl`: `{"source", "id", "place", "reason"}`."""
    return {"source": source, "id": row.name, "place": str(row.place), "reason": reason}


def _useless(name: str, rows: RowSource, reason: str | None) -> DataError:
    if reason is None:
        return DataError(f"{name}: {rows.path} holds no row.", "Nothing can be drawn of it.", "Leave the source out.")
    return DataError(
        f"{name}: not one row of {rows.path} can be used; the first: {reason}.",
        "Nothing can be drawn of it.",
        f"Say where its pictures lie with --images {name}=DIR, or look with bluelm data check.",
    )


def _exists(picture: Picture) -> bool:
    return picture.exists()
