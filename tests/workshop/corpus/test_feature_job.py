"""The job that writes shards of features: bounded shards, the same bytes wherever it was left, values that fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file

from stages.artifacts.errors import DataError, ModelError
from stages.artifacts.events import Progress
from stages.device.contract.feature_shards import (
    TENSOR,
    EncoderRecord,
    read_feature_corpus,
    read_shard_index,
    shard_file,
    whole_shards,
)
from stages.device.imaging.spec import TilingSpec
from stages.workshop.corpus.feature_job import FeatureJob, FeatureSpec
from stages.workshop.corpus.picture import PictureFile

SIZES = ((30, 20), (90, 60), (100, 100), (35, 90), (20, 20), (150, 32))
PATCHES, WIDTH = 5, 6
TILE = PATCHES * WIDTH * 2


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures, one of them there twice, and a broken one."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number, (width, height) in enumerate(SIZES):
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    (folder / "3again.png").write_bytes((folder / "1.png").read_bytes())
    (folder / "4cut.png").write_bytes((folder / "2.png").read_bytes()[:900])
    return folder


def means(pictures: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
    """An encoder that gives the mean of each tile."""
    for tiles in pictures:
        mean = tiles.mean(axis=(1, 2, 3), dtype=np.float32)
        yield np.broadcast_to(mean[:, None, None], (len(tiles), PATCHES, WIDTH))


def job_in(folder: Path, shard_tiles: int = 1) -> FeatureJob:
    folder.mkdir(exist_ok=True)
    record = EncoderRecord(kind="tower", digest="x")
    tiling = TilingSpec(tile_size=32, tokens_per_tile=4)
    spec = FeatureSpec(record, tiling, (0.5, 0.5, 0.5), "bicubic", PATCHES, WIDTH, shard_tiles * TILE)
    return FeatureJob(folder, spec, means, threads=1)


def run(job: FeatureJob, photos: Path, pictures: int | None = None) -> None:
    """Runs a job; after so many pictures it is left."""
    events, seen = job.run((PictureFile(photos, path.name) for path in sorted(photos.iterdir())), 10), 0
    for event in events:
        seen += isinstance(event, Progress)
        if seen == pictures:
            events.close()
            return


@pytest.mark.parametrize("shard_tiles", [1, 8, 1000])
def test_shards_are_bounded_and_hold_every_content_once(shard_tiles: int, photos: Path, tmp_path: Path) -> None:
    job = job_in(tmp_path / "f", shard_tiles)
    run(job, photos)
    corpus = read_feature_corpus(tmp_path / "f")
    assert (corpus.pictures, job.totals.duplicates, [each.name for each in corpus.broken]) == (6, 1, ["4cut.png"])
    assert corpus.shards == {1: 6, 8: corpus.shards, 1000: 1}[shard_tiles]
    names = []
    for number in range(corpus.shards):
        index, values = read_shard_index(tmp_path / "f", number), load_file(shard_file(tmp_path / "f", number))[TENSOR]
        assert values.shape == (index.tiles, PATCHES, WIDTH) and values.dtype == np.float16
        assert index.tiles <= shard_tiles or len(index.pictures) == 1
        assert [picture.first_tile for picture in index.pictures] == list(
            np.cumsum([0, *(picture.tiles for picture in index.pictures)])[:-1]
        )
        names += [picture.name for picture in index.pictures]
    assert names == [f"{number}.png" for number in range(6)]
    assert index.drawn == 8


@pytest.mark.parametrize("shard_tiles", [1, 8])
@pytest.mark.parametrize("pictures", range(1, 7))
def test_left_anywhere_it_goes_on_to_the_same_bytes(
    pictures: int, shard_tiles: int, photos: Path, tmp_path: Path
) -> None:
    run(job_in(tmp_path / "whole", shard_tiles), photos)
    run(job_in(tmp_path / "left", shard_tiles), photos, pictures)
    done = whole_shards(tmp_path / "left")
    assert done == pictures - 1 or shard_tiles > 1
    again = job_in(tmp_path / "left", shard_tiles)
    run(again, photos)
    kept = sum(read_shard_index(tmp_path / "left", number).tiles for number in range(done))
    assert again.totals.encoded == again.totals.tiles - kept
    contents = [
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "whole", tmp_path / "left")
    ]
    assert contents[0] == contents[1]


@pytest.mark.parametrize("value", [1e5, float("nan")])
def test_values_that_float16_does_not_hold_are_refused(value: float, photos: Path, tmp_path: Path) -> None:
    job = job_in(tmp_path)
    job._encode = lambda pictures: (np.full((len(tiles), PATCHES, WIDTH), value, np.float32) for tiles in pictures)
    with pytest.raises(ModelError, match=r"1\.png: a feature of (100000|nan) is more than float16 holds"):
        list(job.run(iter([PictureFile(photos, "1.png")]), 1))


def test_nothing_but_broken_pictures_is_an_error(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No picture can be decoded"):
        list(job_in(tmp_path).run(iter([PictureFile(photos, "4cut.png")]), 1))
