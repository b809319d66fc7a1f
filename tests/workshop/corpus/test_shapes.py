"""Shape pictures show what their answers say: colour, outline, place, number, size, and what is held out."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stages.device.imaging.geometry import Box, Size
from stages.workshop.corpus.rendering.counting import COUNTING, MOST
from stages.workshop.corpus.rendering.outlines import NAMELESS_SHAPES, SHAPES, cover
from stages.workshop.corpus.rendering.pairs import HELD_OUT, TRAINED
from stages.workshop.corpus.rendering.palette import COLOURS, GAPS, PALETTE, draw_colour, draw_nameless
from stages.workshop.corpus.rendering.scene import Look, Scene, Split
from stages.workshop.corpus.rendering.single_shape import SINGLE_SHAPE, place

Make = Callable[..., Look]


def scenes(family: Any, split: Split, look: Look, count: int) -> list[Scene]:
    return [family.draw(np.random.default_rng([5, index]), split, look) for index in range(count)]


def answers(scene: Scene) -> dict[str, str]:
    return {exchange.task: exchange.answer for exchange in scene.exchanges}


def nearest_name(rgb: NDArray[np.floating]) -> str:
    """The palette's name nearest to a colour around the circle of hues."""
    hue = colorsys.rgb_to_hsv(*(rgb / 255))[0] * 360
    return min(PALETTE, key=lambda known: abs((known.degrees - hue + 180) % 360 - 180)).name


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_the_middle_of_the_shape_has_the_colour_of_the_answer(look: Make, split: Split) -> None:
    for scene in scenes(SINGLE_SHAPE, split, look(), 150):
        box = scene.facts["box"]
        assert isinstance(box, Box)
        across, down = (box.left + box.right) // 2, (box.top + box.bottom) // 2
        pixels = np.asarray(scene.picture, dtype=np.float64)[down - 2 : down + 2, across - 2 : across + 2]
        assert nearest_name(pixels.mean(axis=(0, 1))) == answers(scene)["colour"]


def template(shape: str, side: int) -> NDArray[np.bool_]:
    """The shape in formulas rather than polygons: [side, side]."""
    y, x = (np.mgrid[0:side, 0:side] + 0.5) / side * 2 - 1
    if shape == "circle":
        return x * x + y * y < 1
    if shape == "square":
        return np.ones((side, side), dtype=bool)
    if shape == "triangle":
        return np.abs(x) < (y + 1) / 2
    if shape == "cross":
        return np.minimum(np.abs(x), np.abs(y)) < 0.36
    # A star, stretched to its box: five lines, a point is inside when it lies beyond at most one of them.
    across, lowest = x * np.sin(2 * np.pi / 5), -np.cos(np.pi / 5)
    up = lowest + (1 - y) / 2 * (1 - lowest)
    angles = np.pi / 2 + 2 * np.pi * np.arange(5) / 5
    outside = sum((across * np.cos(a) + up * np.sin(a) > np.cos(2 * np.pi / 5)) for a in angles)
    return np.asarray(outside) <= 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("side", [24, 61])
def test_outlines_are_what_their_names_say(shape: str, side: int) -> None:
    covered = cover(shape, Box(7, 3, 7 + side, 3 + side), Size(80, 70))
    inside = covered[3 : 3 + side, 7 : 7 + side]
    assert covered.sum() - inside.sum() < 0.03 * inside.sum()
    # A star's inner corners lie at 0.4 of its radius, those of crossing lines at 0.38.
    apart = {other: np.abs(inside - fine(other, side)).mean() for other in SHAPES}
    assert apart[shape] < 0.03
    assert min(apart, key=apart.__getitem__) == shape


def fine(shape: str, side: int) -> NDArray[np.floating]:
    """How much of each pixel lies inside by the formulas: [side, side]."""
    return template(shape, 8 * side).reshape(side, 8, side, 8).mean(axis=(1, 3))


def test_shapes_cover_their_share_and_lie_anywhere(look: Make) -> None:
    boxes = [scene.facts["box"] for scene in scenes(SINGLE_SHAPE, "train", look(size=Size(100, 100)), 600)]
    shares = np.array([(box.right - box.left) * (box.bottom - box.top) / 100**2 for box in boxes])
    assert 0.145 < shares.min() < 0.17
    assert 0.58 < shares.max() < 0.61
    assert all(0 <= box.left < box.right <= 100 and 0 <= box.top < box.bottom <= 100 for box in boxes)
    # Uniform between the bounds: the mean is in the middle (standard error 0.005).
    assert shares.mean() == pytest.approx(0.375, abs=0.02)
    free = np.array([box.left / (100 - (box.right - box.left)) for box in boxes])
    assert np.histogram(free, bins=4, range=(0, 1))[0].min() > 100


def test_the_box_drawn_is_the_box_said(look: Make) -> None:
    for scene in scenes(SINGLE_SHAPE, "train", look(backgrounds=("plain",), saturation=0.0), 40):
        box, pixels = scene.facts["box"], np.asarray(scene.picture, dtype=int)
        assert isinstance(box, Box)
        rows, columns = np.nonzero(pixels.max(axis=2) - pixels.min(axis=2) > 80)
        found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert np.abs(np.array(found) - np.array(box)).max() <= 2


@pytest.mark.parametrize(
    ("box", "where"),
    [
        (Box(0, 0, 20, 20), "top left"),
        (Box(80, 0, 100, 20), "top right"),
        (Box(0, 80, 20, 100), "bottom left"),
        (Box(60, 60, 100, 100), "bottom right"),
        (Box(30, 0, 66, 36), None),
        (Box(0, 40, 20, 60), None),
    ],
)
def test_place_is_the_corner_or_nothing_near_the_middle(box: Box, where: str | None) -> None:
    assert place(box, Size(100, 100)) == where


def test_held_out_pairs_leave_every_colour_and_shape_in_training() -> None:
    assert set(HELD_OUT).isdisjoint(TRAINED)
    assert len(HELD_OUT) + len(TRAINED) == len(COLOURS) * len(SHAPES) >= 30
    for pairs in (HELD_OUT, TRAINED):
        assert {colour for colour, _ in pairs} == set(COLOURS)
        assert {shape for _, shape in pairs} == set(SHAPES)


@pytest.mark.parametrize("family", [SINGLE_SHAPE, COUNTING])
def test_each_split_draws_its_own_pairs(look: Make, family: Any) -> None:
    assert {scene.pair for scene in scenes(family, "train", look(), 400)} == set(TRAINED)
    assert {scene.pair for scene in scenes(family, "heldout", look(), 100)} == set(HELD_OUT)


def test_without_names_no_training_picture_gives_away_a_pair(look: Make) -> None:
    mixed = look(nameless_colours=0.5, nameless_shapes=0.3)
    drawn = scenes(SINGLE_SHAPE, "train", mixed, 400)
    asked = ["/".join(sorted(set(answers(scene)) & {"colour", "shape"})) for scene in drawn]
    assert set(asked) == {"colour", "shape"}
    for scene, task in zip(drawn, asked, strict=True):
        unnamed = scene.facts["shape"] in NAMELESS_SHAPES
        assert (scene.pair is None) == (unnamed or task == "shape")
        assert scene.pair is None or scene.pair in TRAINED
    shares = [asked.count("shape"), sum(scene.facts["shape"] in NAMELESS_SHAPES for scene in drawn)]
    assert np.array(shares) / 400 == pytest.approx([0.5, 0.3], abs=0.08)
    held = scenes(SINGLE_SHAPE, "heldout", mixed, 30)
    assert all({"colour", "shape"} <= set(answers(scene)) and scene.pair in HELD_OUT for scene in held)


def test_nameless_colours_are_none_of_the_named_shades() -> None:
    rng = np.random.default_rng(0)
    named = {name: np.array([hsv(draw_colour(rng, name)) for _ in range(200)]) for name in COLOURS}
    least_saturation = min(shades[:, 1].min() for shades in named.values())
    for _ in range(500):
        degrees, saturation, _ = hsv(draw_nameless(rng))
        between = any(low - 0.01 <= degrees <= high + 0.01 for low, high in GAPS)
        assert between or saturation < least_saturation
    for low, high in GAPS:
        for hue in PALETTE:
            away = [abs((edge - hue.degrees + 180) % 360 - 180) for edge in (low, high)]
            assert min(away) >= hue.spread + 4


def hsv(rgb: NDArray[np.floating]) -> tuple[float, float, float]:
    hue, saturation, value = colorsys.rgb_to_hsv(*(rgb / 255))
    return hue * 360, saturation, value


def components(mask: NDArray[np.bool_]) -> int:
    """Connected regions of at least 6 pixels."""
    left = {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}
    found = 0
    while left:
        edge = [left.pop()]
        size = 0
        while edge:
            y, x = edge.pop()
            size += 1
            for step in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if step in left:
                    left.remove(step)
                    edge.append(step)
        found += size >= 6
    return found


def test_as_many_shapes_as_the_answer_says(look: Make) -> None:
    drawn = scenes(COUNTING, "train", look(size=Size(96, 96), backgrounds=("plain",), saturation=0.0), 60)
    for scene in drawn:
        pixels = np.asarray(scene.picture, dtype=int)
        mask = pixels.max(axis=2) - pixels.min(axis=2) > 60
        assert str(components(mask)) == answers(scene)["count"]
    assert {answers(scene)["count"] for scene in drawn} == {str(number) for number in range(1, MOST + 1)}


@pytest.mark.parametrize("names", [("gradient",), ("stripes",), ("noise",), ("blobs",)])
def test_backgrounds_are_textured_and_muted(look: Make, names: tuple[str, ...]) -> None:
    for scene in scenes(SINGLE_SHAPE, "train", look(size=Size(96, 96), backgrounds=names), 30):
        box, pixels = scene.facts["box"], np.asarray(scene.picture, dtype=np.float64)
        assert isinstance(box, Box)
        away = np.ones(pixels.shape[:2], dtype=bool)
        away[box.top - 1 : box.bottom + 1, box.left - 1 : box.right + 1] = False
        behind = pixels[away] if box.top and box.left else pixels[:4].reshape(-1, 3)
        assert behind.std(axis=0).max() > 1
        middle = pixels[(box.top + box.bottom) // 2, (box.left + box.right) // 2]
        assert np.median(np.abs(behind - middle).sum(axis=1)) > 80
