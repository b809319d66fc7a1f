"""Statistics of many pictures against the decisions about each of them, and against the published shares."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.device.imaging.geometry import Grid, Size
from stages.device.imaging.rules import COUNTED, RULES
from stages.device.imaging.sizes import SizeBlock, SizeCounter, SizedPicture, read_size_list
from stages.device.imaging.spec import TilingSpec
from stages.device.imaging.statistics import ALL_RULES, ENLARGEMENT_EDGES, SIDE_EDGES, Statistics
from stages.device.imaging.sweep import AlphaSweep
from stages.device.imaging.tiling import plan_tiling

SPEC = TilingSpec(max_cols=3, max_rows=3)


def random_pictures(count: int = 400, seed: int = 0) -> list[SizedPicture]:
    draw = np.random.default_rng(seed)
    sides = np.exp(draw.uniform(np.log(20), np.log(3000), (count, 2))).astype(int).tolist()
    many = draw.integers(1, 5, count).tolist()
    return [SizedPicture(Size(*side), f"{n}.png", many[n]) for n, side in enumerate(sides)]


def block_of(pictures: list[SizedPicture]) -> SizeBlock:
    counter = SizeCounter()
    for picture in pictures:
        counter.add(picture)
    return counter.take()


def counted(*parts: list[SizedPicture], spec: TilingSpec = SPEC, **options: Any) -> dict[str, Any]:
    statistics = Statistics(spec, **options)
    for part in parts:
        statistics.add(block_of(part))
    return statistics.as_dict()


def one_by_one(pictures: list[SizedPicture], rule: Any) -> dict[str, Any]:
    """The same from `plan_tiling` of every single picture."""
    tilings = [
        plan_tiling(picture.size, SPEC.model_copy(update={"rule": rule}))
        for picture in pictures
        for _ in range(picture.count)
    ]
    kept = []
    for tiling in tilings:
        across = Fraction(tiling.canvas.width, tiling.size.width)
        down = Fraction(tiling.canvas.height, tiling.size.height)
        if RULES[rule].keeps_aspect:
            kept.append(min(across, down, Fraction(1)) ** 2)
        else:
            kept.append(min(across, Fraction(1)) * min(down, Fraction(1)))
    grids = Counter(f"{tiling.grid.cols}:{tiling.grid.rows}" for tiling in tilings)
    return {
        "tiles": sum(tiling.tiles for tiling in tilings),
        "tokens": sum(tiling.tokens for tiling in tilings),
        "mean_enlargement": np.mean([tiling.enlargement for tiling in tilings]),
        "mean_kept": float(sum(kept) / len(kept)),
        "grids": dict(grids),
        "histogram": np.histogram([tiling.enlargement for tiling in tilings], [*ENLARGEMENT_EDGES, 1e18])[0].tolist(),
    }


@pytest.mark.parametrize("rule", RULES)
def test_sums_are_those_of_the_single_decisions(rule: Any) -> None:
    pictures = random_pictures()
    found, expected = counted(pictures)["rules"][rule], one_by_one(pictures, rule)
    assert (found["tiles"], found["tokens"], found["grids"]) == tuple(expected[k] for k in ("tiles", "tokens", "grids"))
    assert found["mean_enlargement"] == pytest.approx(expected["mean_enlargement"], rel=1e-12)
    assert found["mean_kept"] == pytest.approx(expected["mean_kept"], rel=1e-12)
    assert [bin["images"] for bin in found["enlargement_histogram"]] == expected["histogram"]
    assert found["mean_tokens"] == found["tokens"] / sum(picture.count for picture in pictures)


@pytest.mark.parametrize("scheme", COUNTED)
def test_counted_schemes_are_summed_without_a_resolution(scheme: Any) -> None:
    pictures = random_pictures(100)
    found = counted(pictures)["rules"][scheme]
    each = [(COUNTED[scheme](picture.size, SPEC), picture.count) for picture in pictures]
    assert found["tokens"] == sum(count.tokens * times for count, times in each)
    assert found["tiles"] == sum(count.tiles * times for count, times in each)
    assert (found["mean_kept"], found["cuts_our_tiles"]) == (None, False)


def test_grids_are_compared_picture_by_picture() -> None:
    pictures = random_pictures()
    areas = {
        rule: [plan_tiling(p.size, SPEC.model_copy(update={"rule": rule})).grid.area for p in pictures]
        for rule in RULES
    }
    for rule, found in counted(pictures)["relaxed_vs"].items():
        if rule not in RULES:
            continue
        signs = np.sign(np.array(areas["relaxed"]) - np.array(areas[rule]))
        many = np.array([picture.count for picture in pictures])
        expected = {
            name: int(many[signs == sign].sum()) for name, sign in (("smaller", -1), ("equal", 0), ("larger", 1))
        }
        assert found == expected, rule
    assert list(counted(pictures)["relaxed_vs"]) == [rule for rule in ALL_RULES if rule != "relaxed"]


def test_blocks_one_after_the_other_give_what_one_block_gives() -> None:
    pictures = random_pictures()
    # The same sizes come again in later blocks.
    whole, parts = counted([*pictures, *pictures]), counted(pictures[:100], pictures[100:], pictures)
    for rule in RULES:
        for key in ("mean_enlargement", "mean_kept"):
            found = parts["rules"][rule].pop(key)
            assert found == pytest.approx(whole["rules"][rule].pop(key), rel=1e-12)
    for scheme in COUNTED:
        del whole["rules"][scheme]["mean_enlargement"], parts["rules"][scheme]["mean_enlargement"]
    assert parts == whole


def test_the_worst_cases_are_those_of_all_pictures() -> None:
    pictures = random_pictures()
    worst = counted(pictures[:50], pictures[50:90], pictures[90:], most_worst=5)["rules"]["internvl-1.5"]["worst"]
    by_rule = SPEC.model_copy(update={"rule": "internvl-1.5"})
    ranked = sorted(pictures, key=lambda picture: -plan_tiling(picture.size, by_rule).enlargement)[:5]
    assert [case["name"] for case in worst] == [picture.name for picture in ranked]
    tiling = plan_tiling(ranked[0].size, by_rule)
    assert worst[0] == {
        "name": ranked[0].name,
        "width": ranked[0].size.width,
        "height": ranked[0].size.height,
        "images": ranked[0].count,
        "grid": list(tiling.grid),
        "enlargement": tiling.enlargement,
    }


def test_the_mix_of_sizes_counts_every_picture_once() -> None:
    found = counted(
        [SizedPicture(Size(640, 480), "", 3), SizedPicture(Size(10, 9000), ""), SizedPicture(Size(5, 5), "")]
    )
    sides = {bin["from"]: bin["images"] for bin in found["longer_sides"] if bin["images"]}
    assert sides == {640: 3, SIDE_EDGES[-1]: 1, 0: 1}
    shapes = {bin["from"]: bin["images"] for bin in found["shapes"] if bin["images"]}
    assert shapes == {1.2: 3, 5.0: 1, 1.0: 1}


def test_the_shares_of_section_5_1_on_coco(data_dir: Path) -> None:
    found = counted(list(read_size_list(data_dir / "sizes" / "coco_val2017.csv")))
    assert found["images"] == 5000
    assert found["relaxed_vs"]["llava-next"] == {"smaller": 130, "equal": 4870, "larger": 0}
    assert found["relaxed_vs"]["internvl-1.5"] == {"smaller": 4419, "equal": 526, "larger": 55}
    # Mean tiles without thumbnail, as ../shared/paper/facts.md has them.
    for rule, mean in (("relaxed", 3.57), ("llava-next", 3.62), ("internvl-1.5", 5.64)):
        grids = found["rules"][rule]["grids"]
        local = sum(Grid(*map(int, grid.split(":"))).area * count for grid, count in grids.items())
        assert round(local / 5000, 2) == mean


def test_a_sweep_is_the_rule_at_each_alpha() -> None:
    pictures = random_pictures(150)
    sweep = AlphaSweep(SPEC, (0.3, 0.1, 0.1))
    sweep.add(block_of(pictures[:70]))
    sweep.add(block_of(pictures[70:]))
    rows = sweep.as_rows()
    assert [row["alpha"] for row in rows] == [0.1, 0.3]
    for row in rows:
        expected = counted(pictures, spec=SPEC.model_copy(update={"alpha": row["alpha"]}))["rules"]["relaxed"]
        for key in ("tiles", "tokens", "mean_tokens"):
            assert row[key] == expected[key]
        assert row["mean_kept"] == pytest.approx(expected["mean_kept"], rel=1e-12)
        assert row["mean_enlargement"] == pytest.approx(expected["mean_enlargement"], rel=1e-12)
    assert rows[0]["tokens"] > rows[1]["tokens"]
