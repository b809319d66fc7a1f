"""Degradations are functions of (picture, chance, amount): nothing at 0, more with more, the page whole inside."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages import data_render
from stages.artifacts.errors import BluelmError
from stages.device.imaging.geometry import Box, Size
from stages.workshop.corpus.rendering.degradations import DEGRADATIONS, MOST_AT_ONCE, Degradation, degrade
from stages.workshop.corpus.rendering.fonts import TYPST_FONTS
from stages.workshop.corpus.rendering.generation import draw_scene
from stages.workshop.corpus.rendering.page import Page, compose
from stages.workshop.corpus.rendering.single_shape import place

SIZES = [Size(96, 96), Size(64, 160), Size(200, 50)]
WHOLE = [Degradation(kind, 1.0, 1.0) for kind in DEGRADATIONS]
Run = Callable[..., Any]


def page(size: Size) -> Image.Image:
    body = "#text([Total 12.45 #linebreak() 2031])"
    paper = Page(body, size, "Libertinus Serif", 10, 10, (), margin=4, paper="#f4f0e8", ink="#202028")
    return compose(paper, TYPST_FONTS).picture


def change(kind: str, amount: float, size: Size = SIZES[0], seed: int = 0) -> float:
    """How far the levels are from the undegraded picture's, root mean square."""
    picture = page(size)
    changed = DEGRADATIONS[kind](picture, np.random.default_rng(seed), amount)
    assert (changed.size, changed.mode) == (picture.size, "RGB")
    return float(np.sqrt(((np.asarray(changed, float) - np.asarray(picture, float)) ** 2).mean()))


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_amount_is_how_much(kind: str) -> None:
    for size in SIZES:
        changes = [np.mean([change(kind, amount, size, seed) for seed in range(6)]) for amount in (0, 0.3, 0.65, 1)]
        # A JPEG loses a little at any quality; the others do nothing at nought.
        assert changes[0] < (4.0 if kind == "jpeg" else 1e-9)
        assert all(more > 0.97 * less for less, more in itertools.pairwise(changes))
        assert changes[3] > 1.2 * changes[1]


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_the_same_chance_gives_the_same_picture(kind: str) -> None:
    picture, one = page(SIZES[0]), DEGRADATIONS[kind]
    before = picture.tobytes()
    first, second, other = (one(picture, np.random.default_rng(seed), 0.8).tobytes() for seed in (1, 1, 2))
    assert first == second and picture.tobytes() == before
    assert first != other or kind == "jpeg"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["rotation", "perspective"])
def test_no_part_of_the_page_leaves_the_picture(kind: str, size: Size) -> None:
    """Coloured corners: each is still there, in its corner."""
    levels = np.full((size.height, size.width, 3), 255, np.uint8)
    for colour, (row, column) in enumerate([(0, 0), (0, -1), (-1, 0)]):
        rows, columns = (slice(0, 6) if side == 0 else slice(-6, None) for side in (row, column))
        levels[rows, columns] = 0
        levels[rows, columns, colour] = 255
    for seed in range(12):
        moved = DEGRADATIONS[kind](Image.fromarray(levels), np.random.default_rng(seed), 1.0)
        found = np.asarray(moved, int)
        for colour, (down, right) in enumerate([(False, False), (False, True), (True, False)]):
            others = [channel for channel in range(3) if channel != colour]
            strong = found[..., colour] - found[..., others].max(axis=-1) > 128
            rows, columns = np.nonzero(strong)
            assert 15 <= len(rows) <= 45, (seed, colour)
            assert (rows.mean() > size.height / 2) == down and (columns.mean() > size.width / 2) == right


def test_a_place_stays_what_it_was() -> None:
    """A dot as near to the middle lines as `place` asks for is still told to be in its corner."""
    size, checked = Size(200, 200), 0
    for left, top in [(109, 4), (85, 190), (4, 86), (190, 108)]:
        box = Box(left, top, left + 6, top + 6)
        was = place(box, size)
        assert was is not None
        levels = np.zeros((200, 200, 3), np.uint8)
        levels[top : top + 6, left : left + 6] = 255
        for kind in ("rotation", "perspective"):
            for seed in range(10):
                moved = DEGRADATIONS[kind](Image.fromarray(levels), np.random.default_rng(seed), 1.0)
                found = np.where(_page(moved, kind, seed), np.asarray(moved)[..., 0], 0)
                rows, columns = np.nonzero(found > 235)
                if len(rows):
                    across, down = columns.mean() / 200 - 0.5, rows.mean() / 200 - 0.5
                    assert was == f"{'top' if down < 0 else 'bottom'} {'left' if across < 0 else 'right'}"
                    checked += 1
    assert checked > 60


def _page(moved: Image.Image, kind: str, seed: int) -> np.ndarray:
    """Where the page lies: a white one, warped alike, is white there."""
    white = DEGRADATIONS[kind](Image.new("RGB", moved.size, "white"), np.random.default_rng(seed), 1.0)
    return np.asarray(white)[..., 0] > 250


def test_few_at_once_and_one_of_a_group() -> None:
    found = [degrade(page(SIZES[0]), np.random.default_rng(seed), WHOLE)[1] for seed in range(60)]
    assert {len(kinds) for kinds in found} == {MOST_AT_ONCE}
    assert {kind for kinds in found for kind in kinds} == set(DEGRADATIONS)
    pairs = {pair for kinds in found for pair in itertools.pairwise(kinds)}
    assert not pairs & {("rotation", "perspective"), ("lighting", "shadow"), ("blur", "resample"), ("noise", "jpeg")}


def test_probabilities_and_strengths_are_kept() -> None:
    rare = [Degradation("noise", 0.25, 0.5), Degradation("blur", 1.0, 0.01)]
    picture = Image.new("RGB", (24, 24), "white")
    runs = [degrade(picture, np.random.default_rng(seed), rare)[1] for seed in range(400)]
    assert 70 < sum("noise" in kinds for kinds in runs) < 130
    assert all("blur" in kinds for kinds in runs)
    same, kinds = degrade(picture, np.random.default_rng(0), [])
    assert same is picture and kinds == ()


def test_scenes_are_the_same_with_and_without() -> None:
    job = data_render.RenderConfig(tasks=("table", "place"), side=160).job
    section = [{"kind": "noise", "probability": 1.0}, {"kind": "rotation", "probability": 1.0}]
    config = data_render.RenderConfig(tasks=("table", "place"), side=160, degradations=section, degraded=("train",))
    for index in range(4):
        (plain, asked), (worse, asked_too) = (draw_scene(one, "train", index) for one in (job, config.job))
        assert asked == asked_too and plain.texts == worse.texts
        assert worse.facts["degradations"] == ("rotation", "noise")
        assert plain.picture.tobytes() != worse.picture.tobytes()
        assert worse.picture.tobytes() == draw_scene(config.job, "train", index)[0].picture.tobytes()
        held = [draw_scene(one, "heldout", index)[0].picture.tobytes() for one in (job, config.job)]
        assert held[0] == held[1]


def test_wrong_sections_are_refused_together(bluelm: Run, tmp_path: Path) -> None:
    section = '[{"kind":"smear","probability":1},{"kind":"blur","probability":1},{"kind":"blur","probability":1}]'
    done = bluelm("data", "render", "--set", f"degradations={section}", "--out", tmp_path / "out")
    assert done.code == 2
    assert "no degradation 'smear'" in done.err and "Kinds: rotation, perspective" in done.err
    assert "'blur' stands twice" in done.err
    with pytest.raises(BluelmError, match="strength"):
        from stages.artifacts.recipes import load_config

        sets = ['degradations=[{"kind":"blur","probability":0.5,"strength":1.5}]']
        load_config(data_render.RenderConfig, sets=sets)
