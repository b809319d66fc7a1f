"""From a seed to rows and picture files: any row can be drawn alone, so how many processes draw changes nothing."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from stages.artifacts.errors import DataError
from stages.device.imaging.geometry import Grid, Size
from stages.workshop.corpus.llava import IMAGE_MARK, Row, Turn
from stages.workshop.corpus.rendering.degradations import Degradation, degrade
from stages.workshop.corpus.rendering.scene import SPLITS, Exchange, Look, Scene, Split
from stages.workshop.corpus.rendering.tasks import FAMILIES

IMAGES = "images"
# Without colour subsampling: at 112 pixels a third of a PNG's bytes, written 15 times as fast; at 24 nothing to win.
_JPEG_QUALITY = 92
_CHUNK = 64
_TRIES = 2000


@dataclass(frozen=True)
class Job:
    """Everything that decides what is drawn.

    Attributes:
        seed: where all chance comes from.
        families: names of families, each with the tasks to ask.
        side: of a picture of one tile, in pixels.
        grids: sizes of pictures in tiles, and the share of the training pictures that have each.
        least, most: share of the picture's area that the box around a single shape covers.
        backgrounds: textures to choose from.
        saturation: most saturated a background may be, 0…1.
        nameless_colours: share of training pictures whose shape has a colour without a name.
        nameless_shapes: share of training pictures whose shape has a named colour, but no name itself.
        turns: most questions about one training picture.
        form: "jpeg" or "png".
        degradations: what befalls pictures once they are drawn.
        degraded: splits whose pictures it befalls.
    """

    seed: int
    families: Mapping[str, tuple[str, ...]]
    side: int
    grids: Mapping[Grid, float]
    least: float
    most: float
    backgrounds: tuple[str, ...]
    saturation: float
    nameless_colours: float
    nameless_shapes: float
    turns: int
    form: str
    degradations: tuple[Degradation, ...] = ()
    degraded: tuple[Split, ...] = SPLITS


def render(job: Job, split: Split, pictures: int, folder: Path, processes: int) -> Iterator[list[Row]]:
    """Draws a split picture by picture into `folder/images`; yields the rows of each picture in order.

    A training picture gives one row that asks about all its tasks; a held-out one gives a row per task.
    """
    (folder / IMAGES).mkdir(exist_ok=True)
    draw = partial(_render_one, job, split, folder)
    if processes == 1 or pictures <= _CHUNK:
        yield from map(draw, range(pictures))
        return
    # fork would copy whatever threads the caller runs; spawn starts clean.
    with ProcessPoolExecutor(processes, get_context("spawn"), initializer=_leave_interrupts_to_the_caller) as pool:
        yield from pool.map(draw, range(pictures), chunksize=_CHUNK)


def _leave_interrupts_to_the_caller() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def draw_scene(job: Job, split: Split, index: int) -> tuple[Scene, tuple[Exchange, ...]]:
    """Picture number `index` of a split and what is asked about it.

    A scene is drawn again until it can be asked, a held-out one until all its tasks can.

    Raises:
        DataError: chance gave no such scene.
    """
    names = list(job.families)
    name = names[index % len(names)]
    wanted = job.families[name]
    for attempt in range(_TRIES):
        rng = np.random.default_rng([job.seed, SPLITS.index(split), index, attempt])
        scene = FAMILIES[name].draw(rng, split, _look(job, rng))
        exchanges = [exchange for exchange in scene.exchanges if exchange.task in wanted]
        if exchanges and (split == "train" or len(exchanges) == len(wanted)):
            order = rng.permutation(len(exchanges))
            return _degraded(job, split, index, scene), tuple(exchanges[place] for place in order)
    raise DataError(
        f"No picture could be drawn that can be asked for {' and '.join(wanted)}.",
        f"{_TRIES} were tried; a place, for one, cannot be told of a shape that fills its picture.",
        "Lower least_cover or nameless_colours, or leave the task out.",
    )


def _degraded(job: Job, split: Split, index: int, scene: Scene) -> Scene:
    """The scene as it comes out of a camera; its chance is its own, so that the same scenes are drawn without it."""
    if not job.degradations or split not in job.degraded:
        return scene
    rng = np.random.default_rng([job.seed, SPLITS.index(split), index, _TRIES])
    picture, kinds = degrade(scene.picture, rng, job.degradations)
    return replace(scene, picture=picture, facts={**scene.facts, "degradations": kinds})


def _look(job: Job, rng: np.random.Generator) -> Look:
    grids = list(job.grids)
    grid = grids[rng.choice(len(grids), p=np.array(list(job.grids.values())) / sum(job.grids.values()))]
    size = Size(grid.cols * job.side, grid.rows * job.side)
    return Look(size, job.least, job.most, job.backgrounds, job.saturation, job.nameless_colours, job.nameless_shapes)


def _render_one(job: Job, split: Split, folder: Path, index: int) -> list[Row]:
    scene, exchanges = draw_scene(job, split, index)
    name = f"{split}-{index:06d}"
    file = f"{IMAGES}/{name}.{'jpg' if job.form == 'jpeg' else 'png'}"
    (folder / file).write_bytes(encode(scene.picture, job.form))
    if split == "train":
        asked = exchanges[: job.turns]
        return [Row(name, tuple(_turns(asked)), (file,), tasks=tuple(exchange.task for exchange in asked))]
    return [
        Row(f"{name}-{exchange.task}", tuple(_turns([exchange])), (file,), tasks=(exchange.task,))
        for exchange in sorted(exchanges, key=lambda exchange: exchange.task)
    ]


def _turns(exchanges: Sequence[Exchange]) -> Iterator[Turn]:
    for index, exchange in enumerate(exchanges):
        mark = f"{IMAGE_MARK}\n" if index == 0 else ""
        yield Turn("user", mark + exchange.question)
        yield Turn("assistant", exchange.answer)


def encode(picture: Image.Image, form: str) -> bytes:
    """A picture as the bytes of a file."""
    stream = io.BytesIO()
    if form == "jpeg":
        picture.save(stream, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    else:
        picture.save(stream, "PNG")
    return stream.getvalue()
