"""`bluelm encode`: pictures to the features that a model reads in their place, ahead of time.

Tiles go through the exported vision graphs in batches, patch embedding overlapped with the ViT blocks (Sec. 3.2). Every
picture is encoded once, whatever it is called, and kept by the digest of its bytes; `chat --features` reuses it. A run
that was stopped continues where it was.

`encode_corpus` does it before the connector: the pictures of a whole corpus become shards, for `pretrain --features`.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field

from stages.artifacts.digest import digest_file
from stages.artifacts.events import Events, Finished, Notice, Progress
from stages.artifacts.folder import ArtifactSpec, Draft, create, open_artifact, up_to_date
from stages.artifacts.manifest import parent_of
from stages.artifacts.recipes import RecipeModel
from stages.device.contract.device_config import DeviceConfig, read_device_config
from stages.device.contract.feature_files import (
    DTYPE,
    KEY,
    KIND,
    FeatureEntry,
    FeatureIndex,
    feature_file,
    write_features,
)
from stages.device.imaging.geometry import Size
from stages.device.imaging.loading import check_image, read_size
from stages.device.imaging.reading import completed, make_all
from stages.device.imaging.sources import Picture, list_pictures, parent_of_pictures
from stages.device.imaging.tiling import Tiling, plan_tiling
from stages.device.runtime.encoder import DEFAULT_BATCH, ImageEncoder, Tiles
from stages.device.runtime.pictures import picture_bytes, tile_picture
from stages.device.runtime.timeline import Span, Timeline, hidden_seconds

Made = TypeVar("Made")
Steps = Generator[Progress | Notice, None, Made]


class EncodeConfig(RecipeModel):
    """How to encode.

    Attributes:
        batch: tiles per batch (fastest: 1 on a CPU, 4 on the paper's phone, Fig. 7), unless the model has a fixed one.
        pipeline: overlap patch embedding with the ViT blocks; changes no value.
        threads: of the ViT blocks, all cores when None; changes no value.
    """

    batch: int = Field(default=DEFAULT_BATCH, ge=1)
    pipeline: bool = True
    threads: int | None = Field(default=None, ge=1)


@dataclass(frozen=True)
class EncodedImage:
    """One picture.

    Attributes:
        picture: as it was first named.
        tiling: how it is cut.
        bytes: of its features.
        sha256: of its bytes; None in a plan, which reads headers alone.
        seconds: from the picture before it to this one; None where nothing ran for it.
        batches: the batches its tiles were in.
    """

    picture: Picture
    tiling: Tiling
    bytes: int
    sha256: str | None = None
    seconds: float | None = None
    batches: tuple[int, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "path": str(self.picture.path),
            "sha256": self.sha256,
            "width": self.tiling.size.width,
            "height": self.tiling.size.height,
            "grid": list(self.tiling.grid),
            "tiles": self.tiling.tiles,
            "tokens": self.tiling.tokens,
            "bytes": self.bytes,
            "seconds": self.seconds,
            "batches": list(self.batches),
        }


@dataclass(frozen=True)
class EncodeResult:
    """The pictures and what they took; of a plan, what would be made.

    Attributes:
        out: the artifact.
        model: the exported model.
        images: one for each different picture.
        batch: tiles per batch.
        timeline: what ran when.
        load_s: loading the graphs; None where nothing ran.
        seconds: encoding, without loading; None where nothing ran.
    """

    out: Path | None
    model: Path
    images: tuple[EncodedImage, ...]
    batch: int
    timeline: tuple[Span, ...] = ()
    load_s: float | None = None
    seconds: float | None = None

    @property
    def tiles(self) -> int:
        """Tiles of all pictures."""
        return sum(image.tiling.tiles for image in self.images)

    @property
    def tokens(self) -> int:
        """Image tokens of all pictures."""
        return sum(image.tiling.tokens for image in self.images)

    @property
    def bytes(self) -> int:
        """Bytes of all features."""
        return sum(image.bytes for image in self.images)

    @property
    def ms_per_tile(self) -> float | None:
        """Milliseconds per tile that was encoded."""
        ran = sum(span.tiles for span in self.timeline if span.part == "blocks")
        return 1000 * self.seconds / ran if self.seconds is not None and ran else None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "out": str(self.out) if self.out is not None else None,
            "kind": KIND,
            "model": str(self.model),
            "images": [image.as_dict() for image in self.images],
            "tiles": self.tiles,
            "tokens": self.tokens,
            "bytes": self.bytes,
            "batch": self.batch,
            "load_s": self.load_s,
            "seconds": self.seconds,
            "ms_per_tile": self.ms_per_tile,
            "hidden_s": hidden_seconds(self.timeline),
            "timeline": [span.as_dict() for span in self.timeline],
        }


def plan(config: EncodeConfig, model: Path, inputs: Sequence[Path], out: Path | None = None) -> EncodeResult:
    """What would be encoded, from the pictures' headers alone: the same picture under two names counts twice.

    Raises:
        BluelmError: a model or pictures that cannot be used, all pictures together.
    """
    device = read_device_config(open_artifact(model, "onnx").path)
    pictures = list_pictures(inputs)
    sizes = completed(make_all("reading", lambda picture: read_size(picture.path), pictures, config.threads))
    images = [_image(picture, size, None, device) for picture, size in zip(pictures, sizes, strict=True)]
    return EncodeResult(out, model, tuple(images), device.vision.max_batch or config.batch)


def run(
    config: EncodeConfig, model: Path, inputs: Sequence[Path], out: Path, force: bool = False
) -> Events[EncodeResult]:
    """Encodes pictures into a `features` artifact.

    Args:
        config: how.
        model: an exported model.
        inputs: pictures, folders of pictures, LLaVA JSON files or corpus folders.
        out: the artifact folder.
        force: replace an artifact that differs.

    Raises:
        BluelmError: a model or pictures that cannot be used, all pictures together; something else lies at `out`.
    """
    artifact = open_artifact(model, "onnx")
    device = read_device_config(artifact.path)
    scanned = yield from _scan(list_pictures(inputs), config.threads)
    digests = {picture.path: digest for picture, _, digest in scanned}
    spec = ArtifactSpec(
        KIND,
        "encode",
        # What else an older version could make under this name.
        {"batch": config.batch, "before_connector": False},
        parents=(parent_of(model), *(parent_of_pictures(path, digests) for path in inputs)),
    )
    names: dict[str, list[str]] = {}
    first: dict[str, EncodedImage] = {}
    for picture, size, digest in scanned:
        names.setdefault(digest, []).append(picture.name)
        first.setdefault(digest, _image(picture, size, digest, device))
    images = tuple(first.values())
    result = EncodeResult(out, model, images, device.vision.max_batch or config.batch)
    if up_to_date(out, spec, force=force) is not None:
        yield Notice(f"{out} is up to date")
        yield Finished(result)
        return
    with create(out, spec, force=force, resumable=True) as draft:
        result = yield from _encode(draft, result, device, config)
        entries = tuple(FeatureEntry.of(tuple(names[digest]), digest, first[digest].tiling) for digest in first)
        FeatureIndex(model=artifact.digest, images=entries).write(draft.path)
        draft.metrics.update(pictures=len(images), tiles=result.tiles, tokens=result.tokens, bytes=result.bytes)
        draft.run.update(encode_s=result.seconds, load_s=result.load_s, hidden_s=hidden_seconds(result.timeline))
    yield Finished(result)


def _encode(draft: Draft, result: EncodeResult, device: DeviceConfig, config: EncodeConfig) -> Steps[EncodeResult]:
    """Encodes what an earlier run did not, one file per picture."""
    done = [image for image in result.images if (draft.path / feature_file(str(image.sha256))).is_file()]
    finished = {image.sha256 for image in done}
    to_do = [image for image in result.images if image.sha256 not in finished]
    if done:
        yield Notice(f"{len(done)} of {len(result.images)} pictures were encoded before; going on from there")
    if not to_do:
        return result
    encoder = ImageEncoder(result.model, device, config.threads, config.batch, config.pipeline)
    encoder.load()
    load_s = encoder.load_s
    timeline, started = Timeline(), time.perf_counter()
    encoded, last, tiles = {}, started, 0
    for image, values in zip(to_do, encoder.encode(_tiles(to_do, device), KEY, timeline), strict=True):
        rows = values.values
        write_features(draft.path, str(image.sha256), rows.reshape(-1, rows.shape[-1]))  # [tiles·t, H]
        now = time.perf_counter()
        encoded[image.sha256] = replace(image, seconds=now - last, batches=values.batches)
        last, tiles = now, tiles + image.tiling.tiles
        yield Progress("encoding", tiles, sum(item.tiling.tiles for item in to_do), "tiles")
    return replace(
        result,
        images=tuple(encoded.get(image.sha256, image) for image in result.images),
        timeline=timeline.spans,
        load_s=load_s,
        seconds=last - started,
    )


def _tiles(images: Sequence[EncodedImage], device: DeviceConfig) -> Iterator[Tiles]:
    """The tiles of one picture after the other, read when they are needed."""
    for image in images:
        path = image.picture.path
        yield tile_picture(picture_bytes(path), str(path), device).tiles


def _scan(pictures: Sequence[Picture], threads: int | None) -> Steps[list[tuple[Picture, Size, str]]]:
    """Size and digest of every picture. All pixels are decoded, so that broken pictures are told before work starts.

    Raises:
        BluelmError: the broken ones, together.
    """

    def scan(picture: Picture) -> tuple[Picture, Size, str]:
        return picture, check_image(picture.path), digest_file(picture.path)

    return (yield from make_all("checking", scan, pictures, threads))


def _image(picture: Picture, size: Size, digest: str | None, device: DeviceConfig) -> EncodedImage:
    tiling = plan_tiling(size, device.tiling)
    return EncodedImage(picture, tiling, tiling.tokens * device.decoder.hidden_size * DTYPE.itemsize, digest)
