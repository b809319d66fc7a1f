"""The same seed gives the same bytes, however many processes draw; the splits share nothing."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stages.artifacts.errors import BluelmError, DataError
from stages.device.imaging.geometry import Grid, Size
from stages.workshop.corpus.rendering.generation import draw_scene, encode, probe, render
from stages.workshop.corpus.rendering.job import GridChoice, Job
from stages.workshop.corpus.rendering.scene import SPLITS, Look, Split
from stages.workshop.corpus.rendering.tasks import FAMILIES, TASKS, families_of
from stages.workshop.corpus.row import Row

MakeJob = Callable[..., Job]
# Tasks whose pictures may be as small as these.
SMALL = ("colour", "shape", "place", "count", "word", "number", "price", "table", "absent")


@pytest.fixture(scope="module")
def job(look: Callable[..., Look]) -> MakeJob:
    def make(*tasks: str, **changes: Any) -> Job:
        looks = {field.name for field in fields(Look)}
        small = look(nameless_colours=0.5, nameless_shapes=0.2, heights=(5.0, 20.0))
        usual: dict[str, Any] = {
            "seed": 3,
            "families": families_of(tasks or SMALL),
            "side": 48,
            "grids": (GridChoice(Grid(1, 1), 1.0),),
            "look": replace(small, **{name: value for name, value in changes.items() if name in looks}),
            "turns": 8,
            "form": "jpeg",
        }
        return Job(**usual | {name: value for name, value in changes.items() if name not in looks})

    return make


def drawn(job: Job, split: Split, pictures: int, folder: Path, processes: int = 1) -> list[Row]:
    folder.mkdir(exist_ok=True)
    return [row for rows in render(job, split, range(pictures), folder, processes) for row in rows]


def digests(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in (folder / "images").iterdir()}


def test_processes_change_nothing(job: MakeJob, tmp_path: Path) -> None:
    alone = drawn(job(), "train", 140, tmp_path / "alone")
    together = drawn(job(), "train", 140, tmp_path / "together", processes=2)
    assert alone == together
    assert digests(tmp_path / "alone") == digests(tmp_path / "together")
    assert len(alone) == 140


def test_any_picture_can_be_drawn_alone(job: MakeJob, tmp_path: Path) -> None:
    drawn(job(form="png"), "train", 12, tmp_path / "all")
    for index in (11, 4, 7):
        picture = draw_scene(job(form="png"), "train", index)[0].picture
        assert encode(picture, "png") == (tmp_path / "all" / "images" / f"train-{index:06d}.png").read_bytes()


def test_another_seed_draws_other_pictures(job: MakeJob, tmp_path: Path) -> None:
    drawn(job(), "train", 20, tmp_path / "one")
    drawn(job(seed=4), "train", 20, tmp_path / "other")
    assert set(digests(tmp_path / "one").values()).isdisjoint(digests(tmp_path / "other").values())


@pytest.mark.parametrize("family", FAMILIES)
def test_no_held_out_picture_is_in_training(job: MakeJob, tmp_path: Path, family: str) -> None:
    one = job(*FAMILIES[family].tasks, side=48 if TASKS.get("colour") == family else 300, heights=(9.0, 14.0))
    drawn(one, "train", 40, tmp_path / "train")
    drawn(one, "heldout", 15, tmp_path / "heldout")
    train, heldout = (set(digests(tmp_path / split).values()) for split in SPLITS)
    assert (len(train), len(heldout)) == (40, 15)
    assert train.isdisjoint(heldout)


def test_training_asks_all_tasks_of_a_picture_held_out_rows_ask_one(job: MakeJob, tmp_path: Path) -> None:
    one = job("shape", "place", nameless_colours=0.4)
    train = drawn(one, "train", 40, tmp_path / "train")
    assert {frozenset(row.tasks) for row in train} == {
        frozenset(found) for found in (["shape", "place"], ["shape"], ["place"])
    }
    for row in train:
        assert [turn.role for turn in row.turns] == ["user", "assistant"] * len(row.tasks)
        assert [turn.text.count("<image>") for turn in row.turns] == [1] + [0] * (len(row.turns) - 1)
    held = drawn(one, "heldout", 10, tmp_path / "heldout")
    assert [row.tasks for row in held] == [("place",), ("shape",)] * 10
    assert all(len(row.turns) == 2 for row in held)
    assert len({row.pictures for row in held}) == 10
    short = drawn(job("shape", "place", turns=1), "train", 40, tmp_path / "short")
    assert {len(row.tasks) for row in short} == {1}


def test_picture_sizes_follow_their_shares(job: MakeJob) -> None:
    grids = (GridChoice(Grid(1, 1), 3.0), GridChoice(Grid(2, 1), 1.0), GridChoice(Grid(1, 3), 1.0, ("word",)))
    one = job("colour", "word", grids=grids)
    sizes = [Size(*draw_scene(one, "train", index)[0].picture.size) for index in range(400)]
    assert set(sizes[::2]) == {Size(48, 48), Size(96, 48)}
    assert 25 < sizes.count(Size(96, 48)) < 75
    # A family that some size names has no others.
    assert set(sizes[1::2]) == {Size(48, 144)} and one.sizes("word") == (Size(48, 144),)


def test_families_are_drawn_by_their_weights(job: MakeJob, tmp_path: Path) -> None:
    one = job("colour", "count", "word", weights={"word": 4.0})
    rows = drawn(one, "train", 60, tmp_path / "train")
    assert Counter(row.tasks[0] for row in rows) == {"colour": 10, "count": 10, "word": 40}
    held = drawn(one, "heldout", 6, tmp_path / "heldout")
    assert [row.tasks for row in held] == [("colour",), ("count",), ("word",)] * 2


def test_shards_are_the_whole_in_parts(job: MakeJob, tmp_path: Path) -> None:
    whole = drawn(job(), "train", 30, tmp_path / "whole")
    (tmp_path / "parts").mkdir()
    parts = [row for numbers in (range(17), range(17, 30)) for rows in
             render(job(), "train", numbers, tmp_path / "parts", 1) for row in rows]  # fmt: skip
    assert [(row.name, row.turns, row.tasks) for row in parts] == [(row.name, row.turns, row.tasks) for row in whole]
    assert digests(tmp_path / "parts") == digests(tmp_path / "whole")


def test_families_that_do_not_fit_are_all_named(job: MakeJob) -> None:
    probe(job())
    with pytest.raises(BluelmError) as caught:
        probe(job("colour", "heading", "memo-field", "word", side=60, heights=(12.0, 20.0)))
    assert [problem.what for problem in caught.value.problems] == [
        "No page of document fits 60 x 60 pixels.", "No page of memo fits 60 x 60 pixels."]  # fmt: skip
    assert "no lower than 12 pixels" in caught.value.problems[0].why and "least_text" in caught.value.problems[0].fix


def test_pictures_are_plain_rgb_files(job: MakeJob, tmp_path: Path) -> None:
    drawn(job(), "train", 10, tmp_path / "jpeg")
    drawn(job(form="png"), "train", 10, tmp_path / "png")
    for form in ("jpeg", "png"):
        for file in (tmp_path / form / "images").iterdir():
            with Image.open(file) as picture:
                picture.load()
                assert (picture.format, picture.mode) == (form.upper(), "RGB")


def test_tasks_that_cannot_be_asked_are_named(job: MakeJob, tmp_path: Path) -> None:
    filled = job("colour", "place", least=1.0, most=1.0)
    with pytest.raises(DataError, match="asked for colour and place"):
        drawn(filled, "heldout", 1, tmp_path / "filled")
    rare = drawn(job("colour", nameless_colours=0.95, nameless_shapes=0.0), "train", 30, tmp_path / "rare")
    assert all(row.tasks == ("colour",) for row in rare)


def test_tasks_bring_their_families() -> None:
    assert families_of(["shape", "word", "colour"]) == {"single-shape": ("shape", "colour"), "word": ("word",)}
    assert set(TASKS.values()) == set(FAMILIES)
    with pytest.raises(BluelmError) as caught:
        families_of(["color", "word", "word"])
    first, second = caught.value.problems
    assert "no task 'color'" in first.what and "Did you mean colour?" in first.fix
    assert "stands twice" in second.what
