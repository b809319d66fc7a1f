"""The same seed gives the same bytes, however many processes draw; the splits share nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stages.artifacts.errors import BluelmError, DataError
from stages.device.imaging.geometry import Grid, Size
from stages.workshop.corpus.rendering.generation import Job, draw_scene, encode, render
from stages.workshop.corpus.rendering.scene import SPLITS, Split
from stages.workshop.corpus.rendering.tasks import FAMILIES, TASKS, families_of
from stages.workshop.corpus.row import Row

MakeJob = Callable[..., Job]


@pytest.fixture(scope="module")
def job() -> MakeJob:
    def make(*tasks: str, **changes: Any) -> Job:
        usual: dict[str, Any] = {
            "seed": 3,
            "families": families_of(tasks or tuple(TASKS)),
            "side": 48,
            "grids": {Grid(1, 1): 1.0},
            "least": 0.15,
            "most": 0.6,
            "backgrounds": ("gradient", "stripes", "noise", "blobs"),
            "saturation": 0.3,
            "nameless_colours": 0.5,
            "nameless_shapes": 0.2,
            "turns": 8,
            "form": "jpeg",
        }
        return Job(**usual | changes)

    return make


def drawn(job: Job, split: Split, pictures: int, folder: Path, processes: int = 1) -> list[Row]:
    folder.mkdir(exist_ok=True)
    return [row for rows in render(job, split, pictures, folder, processes) for row in rows]


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
    one = job(*FAMILIES[family].tasks)
    drawn(one, "train", 150, tmp_path / "train")
    drawn(one, "heldout", 60, tmp_path / "heldout")
    train, heldout = (set(digests(tmp_path / split).values()) for split in SPLITS)
    assert (len(train), len(heldout)) == (150, 60)
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
    one = job("colour", grids={Grid(1, 1): 3.0, Grid(2, 1): 1.0})
    sizes = [Size(*draw_scene(one, "train", index)[0].picture.size) for index in range(200)]
    assert set(sizes) == {Size(48, 48), Size(96, 48)}
    assert 25 < sizes.count(Size(96, 48)) < 75


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
