"""`bluelm tile`: decide how pictures are cut into tiles (Sec. 3.2), show the decisions, write the tiles.

Without an output folder only the decisions are made. The pixels are decoded all the same, since a decision about a
broken picture would be worth nothing; `plan` reads headers alone.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from stages.artifacts.digest import digest_file
from stages.artifacts.errors import BluelmError
from stages.artifacts.events import Events, Finished, Notice, Progress
from stages.artifacts.folder import ArtifactSpec, create, up_to_date
from stages.device.imaging.config import TilingConfig
from stages.device.imaging.crop import padding_colour
from stages.device.imaging.decisions import Decision, decide
from stages.device.imaging.geometry import Size
from stages.device.imaging.loading import check_image, read_size
from stages.device.imaging.presets import imaging_preset
from stages.device.imaging.reading import completed, make_all
from stages.device.imaging.sources import Picture, list_pictures, parent_of_pictures
from stages.device.imaging.spec import AnyRule, Resample
from stages.device.imaging.writing import Cutting, draw_previews, write_tiles

Made = TypeVar("Made")
Steps = Generator[Progress | Notice, None, Made]


class TileConfig(TilingConfig):
    """How to tile. What is None comes from the preset."""

    image_mean: tuple[float, float, float] | None = None
    resample: Resample | None = None
    preview: bool = False

    def usual(self) -> dict[str, Any]:
        preset = imaging_preset(self.preset)
        return {**super().usual(), "image_mean": preset.image_mean, "resample": preset.resample}


@dataclass(frozen=True)
class TileResult:
    """The decisions about all pictures, and the folder the tiles were (or would be) written to."""

    images: tuple[Decision, ...]
    config: TileConfig
    out: Path | None

    @property
    def tiles(self) -> int:
        """Tiles of the chosen rule, thumbnails included."""
        return sum(image.tiling.tiles for image in self.images)

    @property
    def tokens(self) -> int:
        """Image tokens of the chosen rule."""
        return sum(image.tiling.tokens for image in self.images)

    @property
    def bytes(self) -> int:
        """Size of the tiles as uint8."""
        return self.tiles * 3 * self.config.spec.tile_size**2

    def as_dict(self) -> dict[str, Any]:
        """`{"images": […], "tiles", "tokens", "bytes", "out", "config"}`."""
        return {
            "images": [image.as_dict() for image in self.images],
            "tiles": self.tiles,
            "tokens": self.tokens,
            "bytes": self.bytes,
            "out": str(self.out) if self.out is not None else None,
            "config": self.config.model_dump(mode="json"),
        }


def plan(
    config: TileConfig, inputs: Sequence[Path], *, out: Path | None = None, compare: Sequence[AnyRule] = ()
) -> TileResult:
    """The decisions from the pictures' headers alone; nothing is decoded or written.

    Args:
        config: how to tile.
        inputs: pictures, folders of pictures, LLaVA JSON files or corpus folders.
        out: where the tiles would go.
        compare: rules to decide by beside the chosen one, and schemes to count.

    Raises:
        BluelmError: inputs that cannot be used, all of them together.
    """
    pictures = list_pictures(inputs)
    sizes = completed(make_all("reading", lambda picture: read_size(picture.path), pictures))
    return _decide(config.resolved(), pictures, sizes, out, compare)


def run(
    config: TileConfig,
    inputs: Sequence[Path],
    *,
    out: Path | None = None,
    preview_to: Path | None = None,
    compare: Sequence[AnyRule] = (),
    force: bool = False,
    threads: int | None = None,
) -> Events[TileResult]:
    """Decides, and writes what was asked for: a `tiles` artifact, drawings, or nothing.

    Args:
        config: how to tile; with `preview` the artifact holds a drawing of each picture.
        inputs: as for `plan`.
        out: the artifact folder.
        preview_to: a folder for drawings outside the artifact, one per picture and rule.
        compare: rules to decide by beside the chosen one, and schemes to count.
        force: replace an artifact that differs.
        threads: of decoding and scaling; all cores when None.

    Raises:
        BluelmError: pictures or inputs that cannot be used, all of them together; something else lies at `out`.
    """
    config = config.resolved()
    pictures = list_pictures(inputs)
    for text in config.warnings("relaxed" in compare):
        yield Notice(text, "warning")
    if out is None:
        sizes = yield from make_all("checking", lambda picture: check_image(picture.path), pictures, threads)
        result = _decide(config, pictures, sizes, None, compare)
    else:
        result = yield from _tile_into(out, config, inputs, pictures, compare, force, threads)
    if preview_to is not None:
        drawn = yield from draw_previews(preview_to, result.images, threads)
        result = replace(result, images=tuple(drawn))
    yield Finished(result)


def _decide(
    config: TileConfig, pictures: Sequence[Picture], sizes: Sequence[Size], out: Path | None, compare: Sequence[AnyRule]
) -> TileResult:
    spec = config.spec
    decisions = (decide(picture, size, spec, compare) for picture, size in zip(pictures, sizes, strict=True))
    return TileResult(tuple(decisions), config, out)


def _tile_into(
    out: Path,
    config: TileConfig,
    inputs: Sequence[Path],
    pictures: Sequence[Picture],
    compare: Sequence[AnyRule],
    force: bool,
    threads: int | None,
) -> Steps[TileResult]:
    """Writes the artifact, unless the same one is there."""
    scanned = yield from _scan(pictures, threads)
    result = _decide(config, pictures, [size for size, _ in scanned], out, compare)
    digests = [digest for _, digest in scanned]
    by_path = {picture.path: digest for picture, digest in zip(pictures, digests, strict=True)}
    parents = tuple(parent_of_pictures(path, by_path) for path in inputs)
    spec = ArtifactSpec("tiles", "tile", config.model_dump(mode="json"), parents=parents)
    if up_to_date(out, spec, force=force) is not None:
        yield Notice(f"{out} is up to date")
        return result
    cutting = Cutting(config.spec, padding_colour(config.image_mean or ()), config.resample or "bicubic")
    with create(out, spec, force=force) as draft:
        yield from write_tiles(draft.path, result.images, digests, cutting, config.preview, threads)
        draft.metrics.update(pictures=len(pictures), tiles=result.tiles, tokens=result.tokens)
    return result


def _scan(pictures: Sequence[Picture], threads: int | None) -> Steps[list[tuple[Size, str]]]:
    """Size and digest of every picture. Where a header is broken, all are decoded, to report every broken one."""

    def scan(picture: Picture) -> tuple[Size, str]:
        return read_size(picture.path), digest_file(picture.path)

    try:
        return (yield from make_all("reading", scan, pictures, threads))
    except BluelmError:
        yield from make_all("checking", lambda picture: check_image(picture.path), pictures, threads)
        raise
