"""From a seed to rows and picture files: any row can be drawn alone, so how many processes draw changes nothing."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from stages.artifacts.errors import BluelmError, DataError, raise_all
from stages.workshop.corpus.picture import PictureFile
from stages.workshop.corpus.processes import process_pool
from stages.workshop.corpus.rendering.degradations import degrade
from stages.workshop.corpus.rendering.job import Job
from stages.workshop.corpus.rendering.page import Page, PageOverflowError, compose
from stages.workshop.corpus.rendering.page_text import words_on
from stages.workshop.corpus.rendering.scene import SPLITS, Exchange, Scene, Split
from stages.workshop.corpus.rendering.tasks import FAMILIES
from stages.workshop.corpus.row import IMAGE_MARK, Row, Turn

Drawn = TypeVar("Drawn")
IMAGES = "images"
# Without colour subsampling: at 112 pixels a third of a PNG's bytes, written 15 times as fast; at 24 nothing to win.
_JPEG_QUALITY = 92
_CHUNK = 64
_TRIES = 2000
_OVERFLOWS = 300
# So many pictures without a page among them: a family that asks what is absent draws either.
_SCENES = 100


def render(job: Job, split: Split, numbers: range, folder: Path, processes: int) -> Iterator[list[Row]]:
    """Draws these pictures of a split into `folder/images`; yields the rows of each picture in order.

    A training picture gives one row that asks about all its tasks; a held-out one gives a row per task.
    """
    if job.form != "text":
        (folder / IMAGES).mkdir(exist_ok=True)
    draw = partial(_render_one, job, split, folder)
    if processes == 1 or len(numbers) <= _CHUNK:
        yield from map(draw, numbers)
        return
    with process_pool(processes) as pool:
        yield from pool.map(draw, numbers, chunksize=_CHUNK)


def draw_scene(job: Job, split: Split, index: int) -> tuple[Scene, tuple[Exchange, ...]]:
    """Picture number `index` of a split and what is asked about it.

    A scene is drawn again until it can be asked, a held-out one until all its tasks can, a page until it fits.

    Raises:
        DataError: chance gave no such scene.
    """

    def finish(drawn: Scene | Page) -> Scene:
        return compose(drawn, job.look.fonts) if isinstance(drawn, Page) else drawn

    scene, exchanges = _draw(job, split, index, finish)
    return _degraded(job, split, index, scene), exchanges


def draw_page(job: Job, split: Split, index: int) -> tuple[Page, tuple[Exchange, ...]]:
    """The same as a page that is not typeset, as long as it may be.

    Raises:
        DataError: chance gave none, or the family draws no pages.
    """

    def finish(drawn: Scene | Page) -> Page:
        if not isinstance(drawn, Page):
            raise _NoPageError
        return drawn

    return _draw(job, split, index, finish)


def _draw(
    job: Job, split: Split, index: int, finish: Callable[[Scene | Page], Drawn]
) -> tuple[Drawn, tuple[Exchange, ...]]:
    """What a family draws for a number, until it can be asked and finished."""
    turns = job.order(split)
    name = turns[index % len(turns)]
    wanted = job.families[name]
    overflows = scenes = 0
    for attempt in range(_TRIES):
        rng = np.random.default_rng([job.seed, SPLITS.index(split), index, attempt])
        look = replace(job.look, size=job.draw_size(rng, name))
        try:
            drawn = FAMILIES[name].draw(rng, split, look)
            exchanges = [exchange for exchange in drawn.exchanges if exchange.task in wanted]
            if not exchanges or (split != "train" and len(exchanges) < len(wanted)):
                continue
            finished = finish(drawn)
        except PageOverflowError:
            overflows += 1
            if overflows == _OVERFLOWS:
                break
            continue
        except _NoPageError:
            scenes += 1
            if scenes == _SCENES:
                raise _no_page(name, wanted) from None
            continue
        chosen = rng.permutation(len(exchanges))
        return finished, tuple(exchanges[place] for place in chosen)
    raise _nothing_drawn(job, name, wanted, overflows)


class _NoPageError(Exception):
    """What was drawn is a picture, not a page."""


def _no_page(name: str, tasks: tuple[str, ...]) -> DataError:
    return DataError(
        f"{name} draws pictures, not pages.",
        "Told in words (form: text) nothing of them is left.",
        f"Leave out {', '.join(tasks)}, or draw pictures: --set form=jpeg",
    )


def _nothing_drawn(job: Job, name: str, tasks: tuple[str, ...], overflows: int) -> DataError:
    if overflows == _OVERFLOWS:
        largest = max(job.sizes(name), key=lambda size: size.width * size.height)
        return DataError(
            f"No page of {name} fits {largest.width} x {largest.height} pixels.",
            f"{_OVERFLOWS} were tried, with text no lower than {job.look.heights[0]:g} pixels.",
            f"Take a larger side or grid for {name}, lower least_text, or leave out {', '.join(tasks)}.",
        )
    return DataError(
        f"No picture could be drawn that can be asked for {' and '.join(tasks)}.",
        f"{_TRIES} were tried; a place, for one, cannot be told of a shape that fills its picture.",
        "Lower least_cover or nameless_colours, or leave the task out.",
    )


def probe(job: Job) -> None:
    """Draws one picture of each family and split.

    Raises:
        DataError: families that cannot be drawn, all of them together.
    """
    problems: list[BluelmError] = []
    draw = draw_page if job.form == "text" else draw_scene
    for name in job.families:
        for split in SPLITS:
            try:
                draw(job, split, job.order(split).index(name))
            except DataError as error:
                problems.append(error)
                break
    raise_all(problems)


def _degraded(job: Job, split: Split, index: int, scene: Scene) -> Scene:
    """The scene as it comes out of a camera; its chance is its own, so that the same scenes are drawn without it."""
    if not job.degradations or split not in job.degraded:
        return scene
    rng = np.random.default_rng([job.seed, SPLITS.index(split), index, _TRIES])
    picture, kinds = degrade(scene.picture, rng, job.degradations)
    return replace(scene, picture=picture, facts={**scene.facts, "degradations": kinds})


def _render_one(job: Job, split: Split, folder: Path, index: int) -> list[Row]:
    name = f"{split}-{index:06d}"
    if job.form == "text":
        page, exchanges = draw_page(job, split, index)
        return rows_about(name, split, exchanges, job.turns, "\n".join(words_on(page)))
    scene, exchanges = draw_scene(job, split, index)
    file = f"{IMAGES}/{name}.{'jpg' if job.form == 'jpeg' else 'png'}"
    (folder / file).write_bytes(encode(scene.picture, job.form))
    return rows_about(name, split, exchanges, job.turns, IMAGE_MARK, (PictureFile(Path(), file),))


def rows_about(
    name: str,
    split: Split,
    exchanges: Sequence[Exchange],
    turns: int,
    shown: str,
    pictures: tuple[PictureFile, ...] = (),
) -> list[Row]:
    """The rows of one page: in training one with at most so many questions, held-out one a question.

    Args:
        name: theirs.
        split: whose rows they are.
        exchanges: what may be asked.
        turns: most questions of a training row.
        shown: what stands above the first question: the mark of a picture, or what a page says.
        pictures: that of the mark.
    """
    if split == "train":
        asked = exchanges[:turns]
        return [Row(name, tuple(_turns(asked, shown)), pictures, tasks=tuple(exchange.task for exchange in asked))]
    return [
        Row(f"{name}-{exchange.task}", tuple(_turns([exchange], shown)), pictures, tasks=(exchange.task,))
        for exchange in sorted(exchanges, key=lambda exchange: exchange.task)
    ]


def _turns(exchanges: Sequence[Exchange], shown: str) -> Iterator[Turn]:
    for index, exchange in enumerate(exchanges):
        yield Turn("user", f"{shown}\n{exchange.question}" if index == 0 else exchange.question)
        yield Turn("assistant", exchange.answer)


def encode(picture: Image.Image, form: str) -> bytes:
    """A picture as the bytes of a file."""
    stream = io.BytesIO()
    if form == "jpeg":
        picture.save(stream, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    else:
        picture.save(stream, "PNG")
    return stream.getvalue()
