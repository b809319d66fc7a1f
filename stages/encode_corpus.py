"""`bluelm encode --before-connector`: the pictures of a whole corpus to what a frozen vision tower makes of them.

Pretraining (Table 7) runs the same tower over the same pictures in every pass. Written once, its features take the
pictures' place: `pretrain --features`. The tower is that of a checkpoint or of a SigLIP folder, computed as in
training; or the graphs of an exported model, which may round.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from stages.artifacts.errors import ArtifactError
from stages.artifacts.events import Events, Finished, Notice, Progress
from stages.artifacts.folder import ArtifactSpec, Draft, create, open_artifact, up_to_date
from stages.artifacts.manifest import MANIFEST_FILE, parent_of, read_manifest
from stages.artifacts.recipes import RecipeModel
from stages.device.contract.device_config import read_device_config
from stages.device.contract.feature_shards import KIND, EncoderRecord, read_feature_corpus
from stages.device.imaging.reading import completed
from stages.device.imaging.spec import RuleName, TilingSpec
from stages.device.runtime.encoder import DEFAULT_BATCH, ImageEncoder, Tiles
from stages.workshop.corpus.feature_job import Encode, FeatureJob, FeatureSpec, FeatureTotals
from stages.workshop.corpus.unique_pictures import PictureCount, PictureInputs

_MEGABYTE = 10**6


class GivenTiling(RecipeModel):
    """How pictures are tiled, where that is not the model's own way."""

    rule: RuleName | None = None
    alpha: float | None = Field(default=None, ge=0, lt=1)
    max_cols: int | None = Field(default=None, ge=1, le=64)
    max_rows: int | None = Field(default=None, ge=1, le=64)
    max_tiles: int | None = Field(default=None, ge=1, le=4096)

    def spec(self, model: TilingSpec) -> TilingSpec:
        """The model's tiling with what is given; a box given is no longer hidden by the model's number of tiles."""
        given = self.model_dump(exclude_none=True)
        if given.keys() & {"max_cols", "max_rows"}:
            given.setdefault("max_tiles", None)
        return model.model_copy(update=given)


class EncodeCorpusConfig(RecipeModel):
    """How to encode a corpus.

    Attributes:
        batch: tiles per batch (on a GPU more are faster), unless an exported model has a fixed one.
        dtype: of a tower's products; bfloat16 is what training with that dtype computes.
        tiling: of the training that will read the features; the model's own where nothing is given.
        shard_mb: most megabytes of a shard: what a killed run loses at most.
        device: of a tower: cpu, cuda or cuda:N; a GPU if there is one.
        pipeline: of an exported model: overlap patch embedding with the ViT blocks; changes no value.
        threads: all cores when None.
    """

    batch: int = Field(default=DEFAULT_BATCH, ge=1)
    dtype: Literal["float32", "bfloat16"] = "float32"
    tiling: GivenTiling = Field(default_factory=GivenTiling)
    shard_mb: int = Field(default=256, ge=1)
    device: str | None = None
    pipeline: bool = True
    threads: int | None = Field(default=None, ge=1)


@dataclass(frozen=True)
class EncodedCorpus:
    """What was written; of a plan, what would be.

    Attributes:
        out: the artifact.
        model: the checkpoint, SigLIP folder or exported model.
        encoder: digest of the tower, or of the exported model; None in a plan, which reads no weights.
        tiling: how pictures are cut.
        pictures, tiles: of different content; a plan cannot tell equal ones apart.
        bytes: of the features.
        tile_bytes: of one tile's.
        shards: how many.
        bad_rows: rows of the data that cannot be used.
        totals: of a run: duplicates, broken pictures, time.
    """

    out: Path | None
    model: Path
    encoder: str | None
    tiling: TilingSpec
    pictures: int
    tiles: int
    tile_bytes: int
    shards: int
    bad_rows: int = 0
    totals: FeatureTotals | None = None

    @property
    def bytes(self) -> int:
        """Bytes of all features."""
        return self.tiles * self.tile_bytes

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        totals = self.totals
        ran = totals is not None and totals.encoded > 0
        return {
            "out": str(self.out) if self.out is not None else None,
            "kind": KIND,
            "model": str(self.model),
            "encoder": self.encoder,
            "tiling": self.tiling.model_dump(mode="json"),
            "pictures": self.pictures,
            "tiles": self.tiles,
            "bytes": self.bytes,
            "tile_bytes": self.tile_bytes,
            "shards": self.shards,
            "bad_rows": self.bad_rows,
            "duplicates": totals.duplicates if totals is not None else None,
            "broken": [broken.model_dump() for broken in totals.broken] if totals is not None else None,
            "seconds": totals.seconds if totals is not None and ran else None,
            "tiles_per_s": totals.encoded / max(totals.seconds, 1e-9) if totals is not None and ran else None,
        }


@dataclass(frozen=True)
class _Encoder:
    """A model that can encode: what it is, and how to load it."""

    spec: Callable[[EncoderRecord], FeatureSpec]
    record: Callable[[], EncoderRecord]
    load: Callable[[], Encode]

    @property
    def planned(self) -> FeatureSpec:
        """What it writes, before its weights are read."""
        return self.spec(EncoderRecord(kind="tower", digest=""))


def plan(
    config: EncodeCorpusConfig,
    model: Path,
    inputs: Sequence[Path],
    out: Path | None = None,
    *,
    images: Path | None = None,
    data_format: str | None = None,
) -> EncodedCorpus:
    """What would be encoded, from the pictures' headers alone.

    Raises:
        BluelmError: a model or inputs that cannot be used; pictures that are missing, together.
    """
    spec = _open(config, model).planned
    opened = PictureInputs.open(inputs, data_format, images)
    count = completed(opened.count(spec.tiling, config.threads))
    shards = -(-count.tiles // spec.shard_tiles)
    return EncodedCorpus(
        out, model, None, spec.tiling, count.pictures, count.tiles, spec.tile_bytes, shards, count.bad_rows
    )


def run(
    config: EncodeCorpusConfig,
    model: Path,
    inputs: Sequence[Path],
    out: Path,
    force: bool = False,
    *,
    images: Path | None = None,
    data_format: str | None = None,
) -> Events[EncodedCorpus]:
    """Encodes the pictures of a corpus into a `vit-features` artifact; a run that was killed goes on by shard.

    Args:
        config: how.
        model: a checkpoint, a SigLIP folder or an exported model.
        inputs: pictures, folders of pictures, and any data that `open_rows` reads, all splits of it.
        out: the artifact folder.
        force: replace an artifact that differs.
        images: where pictures lie that the data names, if not beside it.
        data_format: of the data; seen in its content where None.

    Raises:
        BluelmError: a model or inputs that cannot be used; missing pictures, together; something else at `out`.
    """
    encoder = _open(config, model)
    opened = PictureInputs.open(inputs, data_format, images)
    settings = {
        "before_connector": True,
        **config.model_dump(mode="json", include={"batch", "dtype", "shard_mb"}),
        "tiling": encoder.planned.tiling.model_dump(mode="json"),
    }
    spec = ArtifactSpec(KIND, "encode", settings, parents=(parent_of(model), *opened.parents))
    if up_to_date(out, spec, force=force) is not None:
        yield Notice(f"{out} is up to date")
        yield Finished(_read(out, model, encoder))
        return
    count: PictureCount = yield from opened.count(encoder.planned.tiling, config.threads)
    with create(out, spec, force=force, resumable=True) as draft:
        written = encoder.spec(encoder.record())
        totals = yield from _encode(draft, written, encoder, opened, count, config)
    yield Finished(
        EncodedCorpus(
            out,
            model,
            written.encoder.digest,
            written.tiling,
            totals.pictures,
            totals.tiles,
            written.tile_bytes,
            totals.shards,
            count.bad_rows,
            totals,
        )
    )


def _encode(
    draft: Draft,
    spec: FeatureSpec,
    encoder: _Encoder,
    opened: PictureInputs,
    count: PictureCount,
    config: EncodeCorpusConfig,
) -> Generator[Progress | Notice, None, FeatureTotals]:
    job = FeatureJob(draft.path, spec, encoder.load(), config.threads)
    totals = yield from job.run(opened.pictures(), count.tiles)
    draft.metrics.update(
        encoder=spec.encoder.digest,
        pictures=totals.pictures,
        tiles=totals.tiles,
        bytes=totals.tiles * spec.tile_bytes,
        duplicates=totals.duplicates,
        broken=len(totals.broken),
    )
    draft.run.update(encode_s=round(totals.seconds, 3), tiles_per_s=totals.encoded / max(totals.seconds, 1e-9))
    return totals


def _read(out: Path, model: Path, encoder: _Encoder) -> EncodedCorpus:
    """What an artifact says of itself."""
    found = read_feature_corpus(out)
    return EncodedCorpus(
        out,
        model,
        found.encoder.digest,
        found.tiling,
        found.pictures,
        found.tiles,
        encoder.planned.tile_bytes,
        found.shards,
    )


def _open(config: EncodeCorpusConfig, model: Path) -> _Encoder:
    """The encoder of a model.

    Raises:
        BluelmError: it has none, or is damaged.
    """
    if (model / MANIFEST_FILE).is_file() and read_manifest(model).kind == "onnx":
        return _exported(config, model)
    if (model / MANIFEST_FILE).is_file() or not (model / "config.json").is_file():
        open_artifact(model, "checkpoint", "onnx")
    return _tower(config, model)


def _exported(config: EncodeCorpusConfig, model: Path) -> _Encoder:
    artifact = open_artifact(model, "onnx")
    device = read_device_config(artifact.path)
    if config.dtype != "float32":
        raise ArtifactError(
            f"{model} is an exported model: dtype is {config.dtype}.",
            "Its graphs compute as they were exported.",
            "Leave --dtype away, or encode with the checkpoint.",
        )
    parents = artifact.manifest.parents if artifact.manifest is not None else ()
    vision = device.vision

    def spec(record: EncoderRecord) -> FeatureSpec:
        shape = (vision.patches_per_tile, vision.vision_width)
        tiling = config.tiling.spec(device.tiling)
        return FeatureSpec(
            record, tiling, vision.image_mean, vision.resample, *shape, shard_bytes=config.shard_mb * _MEGABYTE
        )

    def load() -> Encode:
        encoder = ImageEncoder(model, device, config.threads, config.batch, config.pipeline)
        encoder.load()

        def encode(pictures: Iterable[Tiles]) -> Iterator[Any]:
            return (found.values for found in encoder.encode(pictures, "vit_features"))

        return encode

    made_of = tuple(parent.digest for parent in parents)
    return _Encoder(spec, lambda: EncoderRecord(kind="onnx", digest=artifact.digest, made_of=made_of), load)


def _tower(config: EncodeCorpusConfig, model: Path) -> _Encoder:
    from stages.workshop.model.tower import TowerEncoder, find_tower
    from stages.workshop.training.machine import Machine

    place = find_tower(model)
    device = Machine(config.device).name

    def spec(record: EncoderRecord) -> FeatureSpec:
        tiling, pictures = config.tiling.spec(place.spec), place.pictures
        shape = (place.patches, place.width)
        return FeatureSpec(
            record, tiling, pictures.mean, pictures.resample, *shape, shard_bytes=config.shard_mb * _MEGABYTE
        )

    def load() -> Encode:
        import torch

        if config.threads is not None:
            torch.set_num_threads(config.threads)
        return TowerEncoder(place, config.batch, config.dtype, device).encode

    return _Encoder(spec, lambda: EncoderRecord(kind="tower", digest=place.digest()), load)
