"""`bluelm tile CORPUS --out FOLDER` for more pictures than one file should hold: shards of tiles, by many processes.

Which picture is in which shard depends on the inputs alone, and a shard is there whole or not at all. So a run that was
killed goes on with the shards that lack, and the artifact is the same to the byte, whoever cut it and however often it
was stopped. Memory is bounded by the pictures that are being cut; of each picture of the input 100 bytes are kept.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from stages.artifacts.errors import BluelmError, DataError, ImageError, raise_all
from stages.artifacts.events import Events, Finished, Notice, Progress
from stages.artifacts.folder import ArtifactSpec, Draft, create, up_to_date
from stages.artifacts.manifest import Manifest
from stages.device.imaging.config import TilingConfig
from stages.device.imaging.crop import padding_colour
from stages.device.imaging.presets import imaging_preset
from stages.device.imaging.reading import LISTED_PROBLEMS
from stages.device.imaging.spec import Resample
from stages.device.imaging.tiles_file import ShardFormat, TilesIndex, TilesShard
from stages.workshop.corpus.picture_listing import ListedPictures, list_corpus
from stages.workshop.corpus.tile_engines import Engine, cut_shards
from stages.workshop.corpus.tile_shards import ScalerName, ShardCutting, ShardTask, done_shard, shard_tasks

Steps = Generator[Progress | Notice, None, None]


class TileCorpusConfig(TilingConfig):
    """How to tile a corpus. What is None comes from the preset.

    Attributes:
        pictures_per_shard: what a killed process loses at most; 256 pictures of 9 tiles are 1 GB.
        shard_format: safetensors, which training reads, or WebDataset tars.
        skip_broken: leave out pictures that cannot be decoded, and record them; otherwise they are an error.
        scaler: pillow, as on a device, or torch: faster, and other values by 1/255 here and there.
    """

    image_mean: tuple[float, float, float] | None = None
    resample: Resample | None = None
    pictures_per_shard: int = Field(default=256, ge=1)
    shard_format: ShardFormat = "safetensors"
    skip_broken: bool = False
    scaler: ScalerName = "pillow"

    def usual(self) -> dict[str, Any]:
        preset = imaging_preset(self.preset)
        return {**super().usual(), "image_mean": preset.image_mean, "resample": preset.resample}


@dataclass(frozen=True)
class TileCorpusResult:
    """What was written; of a plan, what would be: then nothing is known of tiles."""

    out: Path
    config: TileCorpusConfig
    pictures: int
    shards: int
    tiles: int | None = None
    tokens: int | None = None
    broken: int = 0
    cut_now: int = 0
    seconds: float = 0.0

    @property
    def bytes(self) -> int | None:
        """Of the tiles as uint8."""
        return None if self.tiles is None else self.tiles * 3 * self.config.spec.tile_size**2

    def as_dict(self) -> dict[str, Any]:
        """`{"out", "pictures", "shards", "tiles", "tokens", "bytes", "broken", "tiles_per_second", "config"}`.

        The rate is that of this run's own tiles, None where it cut none.
        """
        rate = round(self.cut_now / self.seconds, 1) if self.cut_now and self.seconds else None
        return {
            "out": str(self.out),
            "pictures": self.pictures,
            "shards": self.shards,
            "tiles": self.tiles,
            "tokens": self.tokens,
            "bytes": self.bytes,
            "broken": self.broken,
            "tiles_per_second": rate,
            "config": self.config.model_dump(mode="json"),
        }


def plan(config: TileCorpusConfig, inputs: Sequence[Path], *, out: Path) -> TileCorpusResult:
    """How many pictures and shards there are; no picture is opened.

    Raises:
        BluelmError: inputs that cannot be used.
    """
    config = config.resolved()
    listed = list_corpus(inputs, config.skip_broken)
    return TileCorpusResult(out, config, listed.count, -(-listed.count // config.pictures_per_shard))


def run(
    config: TileCorpusConfig,
    inputs: Sequence[Path],
    *,
    out: Path,
    force: bool = False,
    engine: Engine = "local",
    processes: int | None = None,
) -> Events[TileCorpusResult]:
    """Writes a `tiles` artifact in shards; goes on where an earlier run of the same was stopped.

    Args:
        config: how to tile.
        inputs: whatever holds pictures: files, folders, LLaVA JSON, conversations, parquet, WebDataset tars, corpora.
        out: the artifact folder; with Ray on several machines, on a disk that all of them see under this path.
        force: replace an artifact that differs.
        engine: who cuts.
        processes: how many cut at a time; one per core when None.

    Raises:
        BluelmError: inputs or pictures that cannot be used (all broken pictures together, the first of them by name);
            something else lies at `out`; Ray is not installed.
    """
    config = config.resolved()
    listed = list_corpus(inputs, config.skip_broken)
    if listed.unusable:
        yield Notice(f"{listed.unusable} rows or members name no picture; they are left out", "warning")
    yield Progress("reading the inputs", 0, listed.count, "pictures")
    spec = ArtifactSpec("tiles", "tile", config.model_dump(mode="json"), parents=listed.parents())
    manifest = up_to_date(out, spec, force=force)
    if manifest is not None:
        yield Notice(f"{out} is up to date")
        yield Finished(_result(out, config, manifest))
        return
    started = time.monotonic()
    with create(out, spec, force=force, resumable=True) as draft:
        pad = padding_colour(config.image_mean or ())
        cutting = ShardCutting(
            folder=draft.path,
            spec=config.spec,
            pad=pad,
            resample=config.resample or "bicubic",
            format=config.shard_format,
            skip_broken=config.skip_broken,
            scaler=config.scaler,
        )
        job = _Job(config, listed, cutting)
        yield from job.cut(engine, processes)
        shards = job.write_index()
        _count(draft, shards)
        seconds = time.monotonic() - started
        draft.run.update(tiles_cut=job.cut_tiles, cutting_seconds=round(seconds, 3))
        made = _summed(out, config, shards)
    yield Finished(TileCorpusResult(**{**made.__dict__, "cut_now": job.cut_tiles, "seconds": seconds}))


class _Job:
    """The shards of one artifact, those that are there and those that lack."""

    def __init__(self, config: TileCorpusConfig, listed: ListedPictures, cutting: ShardCutting) -> None:
        self._config, self._listed, self._cutting = config, listed, cutting
        self._total = -(-listed.count // config.pictures_per_shard)
        self._done = {number for number in range(self._total) if done_shard(number, cutting) is not None}
        self.cut_tiles = 0

    def cut(self, engine: Engine, processes: int | None) -> Steps:
        """Cuts what lacks.

        Raises:
            BluelmError: broken pictures, together.
        """
        each, total = self._config.pictures_per_shard, self._listed.count
        seen = min(len(self._done) * each, total)
        if self._done:
            yield Notice(f"going on: {len(self._done)} of {self._total} shards are there")
        started, before, problems, wrong = time.monotonic(), seen, list[BluelmError](), 0
        for outcome in cut_shards(self._lacking(), engine, processes):
            seen += outcome.pictures
            self.cut_tiles += outcome.tiles
            wrong += len(outcome.problems)
            problems += outcome.problems[: max(0, LISTED_PROBLEMS - len(problems))]
            seconds = time.monotonic() - started
            label = _label(self.cut_tiles / seconds, (total - seen) * seconds / (seen - before))
            yield Progress(label, seen, total, "pictures")
        if wrong > len(problems):
            more = f"{wrong - len(problems)} more pictures cannot be read."
            problems.append(ImageError(more, "They are not listed here.", "Leave all out: --set skip_broken=true"))
        raise_all(problems)

    def _lacking(self) -> Iterator[ShardTask]:
        tasks = shard_tasks(self._listed, self._config.pictures_per_shard, self._cutting)
        return (task for task in tasks if task.number not in self._done)

    def write_index(self) -> tuple[TilesShard, ...]:
        """`tiles.json`.

        Raises:
            DataError: the inputs gave fewer pictures than were counted.
        """
        shards = [done_shard(number, self._cutting) for number in range(self._total)]
        found = tuple(shard for shard in shards if shard is not None)
        if sum(shard.pictures + shard.broken for shard in found) != self._listed.count:
            raise DataError(
                f"The inputs no longer hold the {self._listed.count} pictures that were counted.",
                "They changed while they were being tiled.",
                "Run the command again.",
            )
        TilesIndex(tiling=self._config.spec, images=(), shards=found).write(self._cutting.folder)
        return found


def _label(rate: float, seconds_left: float) -> str:
    hours, rest = divmod(round(seconds_left), 3600)
    return f"tiling, {rate:,.0f} tiles/s, {hours}:{rest // 60:02d}:{rest % 60:02d} left"


def _count(draft: Draft, shards: Sequence[TilesShard]) -> None:
    for key in ("pictures", "tiles", "tokens", "broken"):
        draft.metrics[key] = sum(getattr(shard, key) for shard in shards)
    draft.metrics["shards"] = len(shards)


def _summed(out: Path, config: TileCorpusConfig, shards: Sequence[TilesShard]) -> TileCorpusResult:
    sums = {key: sum(getattr(shard, key) for shard in shards) for key in ("pictures", "tiles", "tokens", "broken")}
    return TileCorpusResult(out, config, shards=len(shards), **sums)


def _result(out: Path, config: TileCorpusConfig, manifest: Manifest) -> TileCorpusResult:
    keys = ("pictures", "shards", "tiles", "tokens", "broken")
    return TileCorpusResult(out, config, **{key: int(manifest.metrics[key]) for key in keys})
