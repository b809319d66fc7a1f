"""Many sizes at once are decided about exactly as one after the other."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.device.imaging.geometry import Size
from stages.device.imaging.many import ManyDecisions, decide_many
from stages.device.imaging.rules import COUNTED, RULES
from stages.device.imaging.spec import CountedName, RuleName, TilingSpec
from stages.device.imaging.tiling import plan_tiling

TILE = 384
SPECS = [
    TilingSpec(),
    TilingSpec(max_cols=3, max_rows=3),
    TilingSpec(max_cols=2, max_rows=5, alpha=0),
    TilingSpec(max_tiles=9, alpha=0.03),
    TilingSpec(max_tiles=12, alpha=0.4),
    TilingSpec(max_cols=6, max_rows=6, alpha=0.9, tile_size=336, tokens_per_tile=144),
]

sides = st.integers(1, 5000) | st.integers(1, 40) | st.integers(1, 2**26 - 1)
sizes = st.builds(Size, sides, sides)
specs = st.builds(
    TilingSpec,
    alpha=st.floats(0, 0.99),
    max_cols=st.integers(1, 6),
    max_rows=st.integers(1, 6),
    max_tiles=st.none() | st.integers(1, 20),
    tile_size=st.integers(1, 512),
    tokens_per_tile=st.integers(1, 729),
)


def columns(found: Sequence[Size]) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(found, np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def table_of(many: ManyDecisions) -> np.ndarray:
    return np.stack([many.cols, many.rows, many.tiles, many.tokens, many.canvas_areas], axis=1)


def one_by_one(rule: RuleName, found: Sequence[Size], spec: TilingSpec) -> np.ndarray:
    tilings = [plan_tiling(size, spec.model_copy(update={"rule": rule})) for size in found]
    rows = [(*tiling.grid, tiling.tiles, tiling.tokens, tiling.canvas.area) for tiling in tilings]
    return np.array(rows, np.int64).reshape(-1, 5)


def assert_equal(rule: RuleName, found: Sequence[Size], spec: TilingSpec) -> None:
    np.testing.assert_array_equal(
        table_of(decide_many(rule, *columns(found), spec)), one_by_one(rule, found, spec), f"{rule} by {spec!r}"
    )


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("rule", RULES)
def test_equal_on_random_sizes(rule: RuleName, spec: TilingSpec, random_sizes: list[Size]) -> None:
    """Everyday sizes, extreme shapes and ones near the edges of tiles; more than are decided about together."""
    start = 0 if spec is SPECS[0] else SPECS.index(spec)
    assert_equal(rule, random_sizes[start :: 5 if spec is SPECS[0] else 60], spec)


@pytest.mark.parametrize("alpha", [0, 0.03, 0.1, 0.2, 0.41, 0.99])
@pytest.mark.parametrize("box", [{"max_cols": 3, "max_rows": 3}, {"max_cols": 4, "max_rows": 4}, {"max_tiles": 9}])
def test_the_relaxed_rule_is_equal_at_the_very_edges_of_tiles(alpha: float, box: dict[str, int]) -> None:
    """Where a pixel, or the truncation of a scaled side, turns the decision."""
    near = [TILE * tiles + off for tiles in (1, 2, 3, 4) for off in (-2, -1, 0, 1, 2)]
    thin = [1, 2, 5, 76, 102]
    assert_equal(
        "relaxed", [Size(*pair) for pair in itertools.product([*near, *thin], repeat=2)], TilingSpec(alpha=alpha, **box)
    )


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(list(RULES)), st.lists(sizes, max_size=12), specs)
def test_equal_for_any_sizes_and_specification(rule: RuleName, found: list[Size], spec: TilingSpec) -> None:
    assert_equal(rule, found, spec)


@pytest.mark.parametrize("rule", ["relaxed", "llava-next"])
def test_equal_where_exact_integers_would_differ(rule: RuleName) -> None:
    found = [Size(2948, 2212), Size(2212, 2948), Size(10000, 5), Size(5, 10000), Size(20000, 1), Size(1, 1)]
    assert_equal(rule, found, TilingSpec(max_cols=6, max_rows=6))


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(list(COUNTED)), st.lists(sizes, min_size=1, max_size=6), specs)
def test_counted_schemes_count_every_size_also_repeated_ones(
    scheme: CountedName, found: list[Size], spec: TilingSpec
) -> None:
    found = [*found, *found[::-1]]
    counts = [COUNTED[scheme](size, spec) for size in found]
    expected = [(*count.grids[0], count.tiles, count.tokens, count.canvas_area) for count in counts]
    np.testing.assert_array_equal(table_of(decide_many(scheme, *columns(found), spec)), np.array(expected))
    assert all(count.rule == scheme and count.size == size for count, size in zip(counts, found, strict=True))


@pytest.mark.parametrize("rule", [*RULES, *COUNTED])
def test_no_sizes_give_no_decisions(rule: RuleName) -> None:
    many = decide_many(rule, np.array([], np.int64), np.array([], np.int64), TilingSpec())
    assert table_of(many).shape == (0, 5)
    assert many.tiles.dtype == np.int64


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.uint64])
@pytest.mark.parametrize("rule", ["relaxed", "qwen2-vl"])
def test_any_integers_will_do(rule: RuleName, dtype: type) -> None:
    widths, heights = columns([Size(1080, 2400), Size(65000, 64000)])
    expected = table_of(decide_many(rule, widths, heights, TilingSpec()))
    found = table_of(decide_many(rule, widths.astype(dtype), heights.astype(dtype), TilingSpec()))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("widths", "heights", "said"),
    [
        (np.array([5, 0]), np.array([5, 5]), "positive sides"),
        (np.array([5]), np.array([-5]), "positive sides"),
        (np.array([5]), np.array([2**26]), "sides below 67108864"),
        (np.array([5.0]), np.array([5]), "whole pixels"),
        (np.array([5, 6]), np.array([5]), "one length"),
        (np.array([[5]]), np.array([[5]]), "one length"),
    ],
)
@pytest.mark.parametrize("rule", ["relaxed", "minicpm-v"])
def test_what_is_no_list_of_sizes_is_refused(
    rule: RuleName, widths: np.ndarray, heights: np.ndarray, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        decide_many(rule, widths, heights, TilingSpec())


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="no rule 'llava'"):
        decide_many("llava", np.array([5]), np.array([5]), TilingSpec())  # type: ignore[arg-type]


def test_names_and_rules_agree() -> None:
    assert tuple(RULES) == get_args(RuleName)
    assert tuple(COUNTED) == get_args(CountedName)


@pytest.mark.parametrize("scheme", COUNTED)
def test_no_specification_takes_a_scheme_that_is_only_counted(scheme: CountedName) -> None:
    with pytest.raises(ValueError, match=f"{scheme} is only counted"):
        TilingSpec.model_validate({"rule": scheme})
