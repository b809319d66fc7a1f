"""Writing what was decided: tiles with their index, and drawings."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.artifacts.events import Progress
from stages.device.imaging.crop import Colour
from stages.device.imaging.cutting import cut_picture
from stages.device.imaging.decisions import Decision
from stages.device.imaging.preview import draw_preview
from stages.device.imaging.preview_folder import prepare_preview_folder, preview_path, preview_stems, put_preview
from stages.device.imaging.reading import make_all, use_all
from stages.device.imaging.spec import Resample, TilingSpec
from stages.device.imaging.tiles_file import TILES_FILE, TilesIndex, TilesWriter, indexed

PREVIEW_FOLDER = "preview"


@dataclass(frozen=True)
class Cutting:
    """How tiles are cut: the specification they were decided by, the colour around a picture, Pillow's filter."""

    spec: TilingSpec
    padding: Colour
    resample: Resample


def write_tiles(
    folder: Path,
    decisions: Sequence[Decision],
    digests: Sequence[str],
    cutting: Cutting,
    preview: bool = False,
    threads: int | None = None,
) -> Generator[Progress, None, None]:
    """Writes `tiles.safetensors`, `tiles.json` and, if asked for, a drawing of each picture by its chosen rule.

    Args:
        folder: the artifact's.
        decisions: about the pictures, in the order of their tiles.
        digests: sha256 of each picture's file.
        cutting: how to cut.
        preview: also draw, into `preview/`.
        threads: of decoding and scaling; all cores when None.

    Raises:
        BluelmError: broken pictures, all of them together.
    """
    previews = folder / PREVIEW_FOLDER
    if preview:
        previews.mkdir(exist_ok=True)

    def cut(job: tuple[Decision, str]) -> np.ndarray:
        decision, stem = job
        if preview:
            drawing = draw_preview(decision.load(), decision.tiling, decision.picture.path.name)
            put_preview(drawing, preview_path(previews, stem, decision.chosen))
        path = decision.picture.path
        return cut_picture(path, str(path), decision.tiling_of, cutting.padding, cutting.resample).tiles

    count = sum(decision.tiling.tiles for decision in decisions)
    with (folder / TILES_FILE).open("wb") as stream:
        writer = TilesWriter(stream, count, cutting.spec.tile_size)
        yield from use_all("tiling", cut, _with_stems(decisions), writer.add, threads)
    entries, first = [], 0
    for decision, digest in zip(decisions, digests, strict=True):
        entries.append(indexed(decision.picture.name, digest, decision.tiling, cutting.spec.alpha, first))
        first += decision.tiling.tiles
    TilesIndex(tiling=cutting.spec, images=tuple(entries)).write(folder)


def draw_previews(
    folder: Path, decisions: Sequence[Decision], threads: int | None = None
) -> Generator[Progress, None, list[Decision]]:
    """Draws every picture by every rule it was decided by; the decisions come back with their drawings.

    Raises:
        BluelmError: broken pictures, or files in the way that are no previews; all of them together.
    """
    jobs = _with_stems(decisions)
    files = [preview_path(folder, stem, rule) for decision, stem in jobs for rule in decision.tilings]
    prepare_preview_folder(folder, files)

    def draw(job: tuple[Decision, str]) -> Decision:
        decision, stem = job
        image = decision.load()
        drawn = {rule: preview_path(folder, stem, rule) for rule in decision.tilings}
        for rule, tiling in decision.tilings.items():
            put_preview(draw_preview(image, tiling, decision.picture.path.name), drawn[rule])
        return decision.drawn(drawn)

    return (yield from make_all("drawing", draw, jobs, threads))


def _with_stems(decisions: Sequence[Decision]) -> list[tuple[Decision, str]]:
    """Each decision and the name of its drawing."""
    stems = preview_stems(decision.picture.name for decision in decisions)
    return list(zip(decisions, stems, strict=True))
