"""Drawing and shuffling as rows pass, and the split by pictures: against drawing, sorting and splitting in memory."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.workshop.corpus import mixture_draw
from stages.workshop.corpus.mixture import Heldout
from stages.workshop.corpus.mixture_draw import DiskShuffle, SequentialDraw, generator
from stages.workshop.corpus.mixture_split import PictureNumbers, side, threshold_of
from stages.workshop.corpus.picture import PictureFile
from stages.workshop.corpus.row import Row, Turn


@given(rows=st.integers(1, 200), drawn=st.integers(0, 1000), seed=st.integers(0, 10))
@settings(max_examples=100, deadline=None)
def test_a_draw_gives_as_many_as_it_should(rows: int, drawn: int, seed: int) -> None:
    draw = SequentialDraw(rows, drawn, generator(seed, "a"))
    times = [draw.next() for _ in range(rows)]
    assert sum(times) == drawn and max(times) - min(times) <= 1 and draw.left == 0


def test_every_selection_is_as_likely_as_any_other() -> None:
    chosen: Counter[tuple[int, ...]] = Counter()
    for seed in range(4000):
        draw = SequentialDraw(5, 2, generator(seed, "a"))
        chosen[tuple(index for index in range(5) if draw.next())] += 1
    pairs = list(itertools.combinations(range(5), 2))
    assert sorted(chosen) == pairs
    # Chi-squared with 9 degrees of freedom: beyond 27.9 once in a thousand; the seeds are fixed.
    expected = 4000 / len(pairs)
    assert sum((chosen[pair] - expected) ** 2 / expected for pair in pairs) < 27.9


def test_a_shuffle_by_way_of_the_disk_is_a_permutation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixture_draw, "_ROWS_IN_MEMORY", 40)
    lines = [f"line {number} é\u2028" for number in range(1000)]

    def shuffled(name: str, seed: int) -> list[str]:
        shuffle = DiskShuffle(tmp_path / name, len(lines), seed)
        for line in lines:
            shuffle.add(line)
        made = list(shuffle.lines())
        assert not (tmp_path / name).exists()
        return made

    one = shuffled("one", 1)
    assert sorted(one) == sorted(lines) and one == shuffled("again", 1) and one != shuffled("other", 2)
    # Lines from everywhere stand everywhere: a file of neighbours would keep their places apart.
    places = np.array([lines.index(line) for line in one[:100]])
    assert 350 < places.mean() < 650 and places.std() > 200


def test_a_shuffle_of_nothing(tmp_path: Path) -> None:
    assert list(DiskShuffle(tmp_path / "none", 0, 1).lines()) == []


@given(
    highest=st.lists(st.lists(st.floats(0, 1, exclude_max=True) | st.just(float("nan")), max_size=30), max_size=4),
    wanted=st.integers(1, 40),
)
@settings(max_examples=200, deadline=None)
def test_a_number_of_rows_is_held_out_as_sorting_says(highest: list[list[float]], wanted: int) -> None:
    files = [np.array([[value, value] for value in source]).reshape(-1, 2) for source in highest]
    threshold = threshold_of(Heldout(rows=wanted), files)
    good = sorted(value for source in highest for value in source if value == value)
    below = [value for value in good if value < threshold]
    assert len(below) <= wanted
    # No higher threshold would do: it is where one more would come in, or all do.
    assert threshold == (good[wanted] if len(good) > wanted else 1.0)


@given(pictures=st.lists(st.lists(st.integers(0, 30), max_size=3), max_size=60), share=st.floats(0.05, 0.95))
@settings(max_examples=100, deadline=None)
def test_no_picture_is_on_both_sides(pictures: list[list[int]], share: float) -> None:
    numbers = PictureNumbers(3, "place")
    sides: dict[str, set[PictureFile]] = {"train": set(), "heldout": set(), "between": set()}
    for index, names in enumerate(pictures):
        files = tuple(PictureFile(Path("/pictures"), f"{name}.png") for name in names)
        row = Row(str(index), (Turn("user", f"question {index}"),), files)
        sides[side(*numbers.of(row), share)] |= set(files)
    assert sides["train"].isdisjoint(sides["heldout"])


def test_pictures_are_the_same_by_their_bytes(tmp_path: Path) -> None:
    for name, colour in (("a", 1), ("copy-of-a", 1), ("b", 2)):
        from PIL import Image

        Image.new("L", (4, 4), colour).save(tmp_path / f"{name}.png")
    rows = [Row(name, (), (PictureFile(tmp_path, f"{name}.png"),)) for name in ("a", "copy-of-a", "b")]
    content, place = PictureNumbers(1, "content"), PictureNumbers(1, "place")
    a, copy, b = (content.of(row) for row in rows)
    assert a == copy != b
    assert len({place.of(row) for row in rows}) == 3
    assert PictureNumbers(2, "content").of(rows[0]) != a
