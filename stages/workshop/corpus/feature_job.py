"""Pictures of any amount to shards of features: decoded ahead, encoded in order, each content once, resumable by shard.

    places ──> bytes, digest, tiles (threads, a few ahead) ──> the encoder ──> shard after shard

What is in memory is a few pictures and their batch, whatever the amount; a digest a picture is remembered. Batches
never reach across shards, so a resumed run computes what an uninterrupted one would have.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.errors import DataError, ImageError, ModelError
from stages.artifacts.events import Notice, Progress
from stages.device.contract.feature_shards import (
    FOLDER,
    BrokenPicture,
    EncoderRecord,
    FeatureCorpus,
    ShardIndex,
    ShardPicture,
    ShardWriter,
    read_shard_index,
    tile_bytes,
    whole_shards,
)
from stages.device.imaging.crop import padding_colour
from stages.device.imaging.cutting import cut_picture
from stages.device.imaging.reading import make_in_order
from stages.device.imaging.spec import Resample, TilingSpec
from stages.device.imaging.tiling import Tiling, plan_tiling
from stages.workshop.corpus.picture import Picture

Tiles = NDArray[np.uint8]
Encode = Callable[[Iterable[Tiles]], Iterator[NDArray[Any]]]
_WARNED = 20


@dataclass(frozen=True)
class FeatureSpec:
    """What is written.

    Attributes:
        encoder: whose features they are.
        tiling: how pictures are cut.
        mean: of the encoder's pixels: the colour of the padding.
        resample: Pillow's name of the filter.
        patches, width: of one tile's features.
        shard_bytes: most bytes of a shard; a picture with more has one of its own.
    """

    encoder: EncoderRecord
    tiling: TilingSpec
    mean: tuple[float, float, float]
    resample: Resample
    patches: int
    width: int
    shard_bytes: int

    @property
    def tile_bytes(self) -> int:
        """Bytes of one tile's features."""
        return tile_bytes(self.patches, self.width)

    @property
    def shard_tiles(self) -> int:
        """Most tiles of a shard of several pictures."""
        return max(1, self.shard_bytes // self.tile_bytes)


@dataclass
class FeatureTotals:
    """What a job came to; of a resumed one, all of it, but `seconds` and `encoded` of this run alone."""

    pictures: int = 0
    tiles: int = 0
    shards: int = 0
    duplicates: int = 0
    broken: list[BrokenPicture] = field(default_factory=list)
    encoded: int = 0
    seconds: float = 0.0

    def take(self, index: ShardIndex) -> None:
        """Adds a shard that is whole."""
        self.pictures += len(index.pictures)
        self.tiles += index.tiles
        self.shards += 1
        self.duplicates += index.duplicates
        self.broken += index.broken


@dataclass(frozen=True)
class _Drawn:
    """A picture as it was read: `tiles` is None where its content was seen before, or cannot be decoded."""

    name: str
    sha256: str = ""
    tiling: Tiling | None = None
    tiles: Tiles | None = None
    problem: str | None = None


@dataclass
class _Shard:
    """A shard while it is filled: what was drawn for it beside the tiles that went to the encoder."""

    waiting: deque[_Drawn] = field(default_factory=deque)
    drawn: int = 0
    duplicates: int = 0
    broken: list[BrokenPicture] = field(default_factory=list)


class FeatureJob:
    """Writes the features of pictures into a folder.

    Args:
        folder: where; what is whole there already is kept.
        spec: what is written.
        encode: features [tiles, P, C] of one picture after the other, from tiles uint8 [tiles, 3, S, S].
        threads: that decode pictures; a few when None.
    """

    def __init__(self, folder: Path, spec: FeatureSpec, encode: Encode, threads: int | None = None) -> None:
        self._folder, self._spec, self._encode, self._threads = folder, spec, encode, threads
        self._seen: set[bytes] = set()
        self._pad = padding_colour(spec.mean)
        self.totals = FeatureTotals()
        self._drawn = 0

    def run(
        self, pictures: Iterator[Picture], expected_tiles: int
    ) -> Generator[Progress | Notice, None, FeatureTotals]:
        """Encodes what is not there yet, and writes `features.json` last.

        Args:
            pictures: in an order that is the same in every run.
            expected_tiles: of all of them, for the progress.

        Raises:
            ModelError: the encoder fails, or a value is larger than float16 holds.
            DataError: every picture is broken.
        """
        yield from self._take_up()
        todo = max(1, expected_tiles - self.totals.tiles)
        started = time.monotonic()
        stream = _Stream(self._read(itertools.islice(pictures, self._drawn, None)))
        while stream.peek() is not None:
            shard = _Shard()
            with ShardWriter(self._folder, self.totals.shards, self._spec.patches, self._spec.width) as writer:
                entries: list[ShardPicture] = []
                for values in self._encode(self._fill(shard, stream)):
                    entries.append(self._write(writer, shard.waiting.popleft(), values))
                    self.totals.encoded += len(values)
                    yield _progress(self.totals.encoded, todo, time.monotonic() - started)
                yield from self._warn(shard)
                self._drawn += shard.drawn
                index = ShardIndex(
                    drawn=self._drawn,
                    pictures=tuple(entries),
                    duplicates=shard.duplicates,
                    broken=tuple(shard.broken),
                )
                writer.close(index)
            self.totals.take(index)
        self.totals.seconds = time.monotonic() - started
        if not self.totals.pictures:
            raise DataError(
                "No picture can be decoded.", "There is nothing to encode.", "The warnings above say what is wrong."
            )
        self._finish()
        return self.totals

    def _take_up(self) -> Iterator[Notice]:
        """What an earlier run left whole."""
        for number in range(whole_shards(self._folder)):
            index = read_shard_index(self._folder, number)
            self._seen.update(bytes.fromhex(picture.sha256) for picture in index.pictures)
            self._drawn = index.drawn
            self.totals.take(index)
        if self.totals.shards:
            yield Notice(
                f"{self.totals.shards} shards with {self.totals.tiles:,} tiles were written before; going on from there"
            )

    def _read(self, pictures: Iterator[Picture]) -> Iterator[_Drawn]:
        def read(picture: Picture) -> _Drawn:
            try:
                data = picture.read()
                sha256 = hashlib.sha256(data).hexdigest()
                if bytes.fromhex(sha256) in self._seen:
                    return _Drawn(picture.name, sha256)
                plan = functools.partial(plan_tiling, spec=self._spec.tiling)
                cut = cut_picture(data, picture.name, plan, self._pad, self._spec.resample)
            except ImageError as error:
                return _Drawn(picture.name, problem=error.what)
            return _Drawn(picture.name, sha256, cut.tiling, cut.tiles)

        for drawn in make_in_order(read, pictures, self._threads):
            assert isinstance(drawn, _Drawn)
            yield drawn

    def _fill(self, shard: _Shard, stream: _Stream) -> Iterator[Tiles]:
        """The tiles of one shard, picture by picture; whoever asks for them may do so in a thread of its own."""
        tiles = 0
        while (drawn := stream.peek()) is not None:
            new = drawn.tiles is not None and bytes.fromhex(drawn.sha256) not in self._seen
            if new and drawn.tiles is not None:
                if tiles and tiles + len(drawn.tiles) > self._spec.shard_tiles:
                    return
                tiles += len(drawn.tiles)
                self._seen.add(bytes.fromhex(drawn.sha256))
                shard.waiting.append(drawn)
            elif drawn.problem is not None:
                shard.broken.append(BrokenPicture(name=drawn.name, problem=drawn.problem))
            else:
                shard.duplicates += 1
            shard.drawn += 1
            stream.take()
            if new and drawn.tiles is not None:
                yield drawn.tiles

    def _write(self, writer: ShardWriter, drawn: _Drawn, values: NDArray[Any]) -> ShardPicture:
        assert drawn.tiling is not None
        first = writer.tiles
        try:
            writer.add(values)
        except OverflowError as error:
            raise ModelError(
                f"{drawn.name}: a feature of {error} is more than float16 holds (65504), or no number.",
                "Stored, it would be infinite.",
                "Train from the pictures themselves, without features; or check the tower's weights.",
            ) from error
        return ShardPicture(
            sha256=drawn.sha256,
            name=drawn.name,
            size=drawn.tiling.size,
            grid=drawn.tiling.grid,
            first_tile=first,
            tiles=drawn.tiling.tiles,
        )

    def _warn(self, shard: _Shard) -> Iterator[Notice]:
        room = max(0, _WARNED - len(self.totals.broken))
        for broken in shard.broken[:room]:
            yield Notice(f"{broken.name} is left out: {broken.problem}", "warning")
        if len(shard.broken) > room > 0:
            yield Notice("More broken pictures follow; features.json lists all of them.", "warning")

    def _finish(self) -> None:
        for left in (self._folder / FOLDER).glob("*.safetensors"):
            if not left.with_suffix(".json").is_file():
                left.unlink()
        spec, totals = self._spec, self.totals
        FeatureCorpus(
            encoder=spec.encoder,
            tiling=spec.tiling,
            patches=spec.patches,
            width=spec.width,
            pictures=totals.pictures,
            tiles=totals.tiles,
            shards=totals.shards,
            broken=tuple(totals.broken),
        ).write(self._folder)


class _Stream:
    """What is drawn, with a look at the next one."""

    def __init__(self, items: Iterator[_Drawn]) -> None:
        self._items = items
        self._next: _Drawn | None = next(items, None)

    def peek(self) -> _Drawn | None:
        """The next one, left where it is; None at the end."""
        return self._next

    def take(self) -> None:
        """Steps over it."""
        self._next = next(self._items, None)


def _progress(done: int, total: int, seconds: float) -> Progress:
    rate = done / max(seconds, 1e-9)
    left = max(0, total - done) / max(rate, 1e-9)
    return Progress(f"encoding, {rate:.1f} tiles/s, {_duration(left)} left", done, max(total, done), "tiles")


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 48 * 60 else f"{minutes / 1440:.1f} days"
