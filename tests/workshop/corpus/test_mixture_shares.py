"""How many rows each source gives: the arithmetic of a mixture, checked against its definition."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.artifacts.errors import BluelmError
from stages.artifacts.recipes import load_config, validate
from stages.workshop.corpus.mixture import Mixture
from stages.workshop.corpus.mixture_shares import Draw, share_out

# Table 1, in millions: public, in-house.
TABLE_1 = {"text": (2.2, 64.7), "caption": (10.0, 306.3), "vqa": (20.3, 44.4), "ocr": (23.3, 173.9)}


def mixture(sources: dict[str, Any], **more: Any) -> Mixture:
    return validate(Mixture, {"sources": sources, **more}, "the test")


def drawn(draws: list[Draw]) -> dict[str, int]:
    return {draw.name: draw.drawn for draw in draws}


def test_the_shipped_recipe_is_table_1() -> None:
    recipe = load_config(Mixture, recipe="mix-table1.yaml")
    assert recipe.categories == pytest.approx({name: sum(parts) for name, parts in TABLE_1.items()})
    assert sum(recipe.categories.values()) == pytest.approx(55.8 + 589.3)
    shares = {draw.name: draw.asked for draw in share_out(recipe, {})}
    whole = sum(map(sum, TABLE_1.values()))
    for category, (public, in_house) in TABLE_1.items():
        assert shares[f"{category}-public"] == pytest.approx(public / whole)
        assert shares[f"{category}-in-house"] == pytest.approx(in_house / whole)
    # With all of the paper's data, every row comes about once.
    rows = {f"{name}-{kind}": round(parts[place] * 1e6) for name, parts in TABLE_1.items()
            for place, kind in enumerate(("public", "in-house"))}  # fmt: skip
    assert drawn(share_out(recipe, rows)) == pytest.approx(rows, rel=1e-6)


def test_the_recipe_of_stage_1_takes_every_row_once() -> None:
    recipe = load_config(Mixture, recipe="mix-stage1.yaml")
    rows = {"llava-558k": 558_128, "sharegpt4v": 1_246_901, "allava": 708_000}
    assert drawn(share_out(recipe, rows)) == rows


def test_a_small_source_is_repeated_up_to_its_limit() -> None:
    sources = {"small": {"share": 1, "repeat": 3}, "large": {"share": 1}}
    asked = mixture(sources, total=100)
    draws = share_out(asked, {"small": 10, "large": 1000})
    assert [(draw.wanted, draw.drawn, draw.times) for draw in draws] == [(50, 30, 3.0), (50, 50, 0.05)]
    filled = share_out(asked.model_copy(update={"fill": True}), {"small": 10, "large": 1000})
    assert drawn(filled) == {"small": 30, "large": 70}


def test_all_takes_every_row_at_least_once_and_more_of_what_is_short() -> None:
    sources = {"small": {"share": 1}, "large": {"share": 3}}
    assert drawn(share_out(mixture(sources, repeat=10), {"small": 10, "large": 300})) == {"small": 100, "large": 300}
    assert drawn(share_out(mixture(sources, repeat=4), {"small": 10, "large": 300})) == {"small": 40, "large": 300}
    assert drawn(share_out(mixture(sources), {"small": 10, "large": 300})) == {"small": 10, "large": 300}
    capped = {"small": {"share": 1}, "large": {"share": 3, "most": 60}}
    assert drawn(share_out(mixture(capped, repeat=4), {"small": 10, "large": 300})) == {"small": 20, "large": 60}


def test_what_is_missing_is_given_away_only_where_that_is_asked_and_to_its_category_first() -> None:
    sources = {
        "a": {"category": "x", "share": 1},
        "b": {"category": "x", "share": 3},
        "c": {"category": "y"},
        "d": {"category": "z"},
    }
    asked = mixture(sources, categories={"x": 50, "y": 25, "z": 25}, total=1200)
    rows = {"a": 10_000, "c": 10_000}
    assert drawn(share_out(asked, rows)) == {"a": 150, "b": 0, "c": 0 + 300, "d": 0}
    given_away = share_out(asked.model_copy(update={"renormalize": True}), rows)
    # z is empty: x and y share it as 50 : 25; a takes b's place.
    assert drawn(given_away) == {"a": 800, "b": 0, "c": 400, "d": 0}
    assert [draw.asked for draw in given_away][:2] == [0.125, 0.375]


names = st.sampled_from(["a", "b", "c", "d", "e"])


@settings(max_examples=150, deadline=None)
@given(
    rows=st.dictionaries(names, st.integers(0, 500), min_size=1),
    shares=st.fixed_dictionaries({name: st.floats(0.01, 100) for name in "abcde"}),
    categories=st.fixed_dictionaries({name: st.sampled_from(["x", "y"]) for name in "abcde"}),
    total=st.one_of(st.integers(1, 2000), st.just("all")),
    repeat=st.floats(1, 5),
    most=st.one_of(st.none(), st.integers(1, 300)),
    renormalize=st.booleans(),
    fill=st.booleans(),
)
def test_any_mixture(
    rows: dict[str, int],
    shares: dict[str, float],
    categories: dict[str, str],
    total: Any,
    repeat: float,
    most: int | None,
    renormalize: bool,
    fill: bool,
) -> None:
    sources = {name: {"share": shares[name], "category": categories[name], "most": most} for name in "abcde"}
    asked = mixture(
        sources,
        categories=dict.fromkeys(sorted(set(categories.values())), 1.0),
        total=total,
        repeat=repeat,
        renormalize=renormalize,
        fill=fill,
    )
    draws = share_out(asked, rows)
    assert sum(draw.asked or 0 for draw in draws) == pytest.approx(1)
    capacity = {name: min(int(count * repeat), most or 10**9) for name, count in rows.items()}
    for draw in draws:
        assert draw.drawn == 0 if draw.rows is None else 0 <= draw.drawn <= capacity[draw.name]
        if not (fill and total != "all"):
            assert draw.drawn <= draw.wanted
    if total == "all":
        assert all(draw.drawn >= min(draw.rows, most or 10**9) for draw in draws if draw.rows)
        return
    together = sum(draw.drawn for draw in draws)
    aimed = sum(draw.aimed for draw in draws if draw.rows is not None)
    if fill and (renormalize or len(rows) == 5):
        assert together == min(total, sum(capacity.values()))
    else:
        assert together <= total
    if aimed and not fill:
        for draw in draws:
            if draw.rows is not None:
                assert abs(draw.wanted - total * draw.aimed) < 1


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"sources": {}}, "sources"),
        ({"sources": {"a": {"share": 1}, "b": {}}}, "a have shares, b beside them have none"),
        ({"sources": {"a": {"category": "x"}}, "categories": {"y": 1}}, "category 'x', which has no share"),
        ({"sources": {"a": {"category": "x"}}, "categories": {"x": 1, "y": 1}}, "category y has no source"),
        ({"sources": {"a": {"category": "x"}, "ab": {}}, "categories": {"x": 1}}, "source ab has no category"),
        ({"sources": {"a": {"category": "x"}}, "categories": {"x": -1}}, "share of x is -1"),
        ({"sources": {"a": {}}, "total": 0}, "total is 0"),
        ({"sources": {"a": {}}, "heldout": {"share": 0.1, "rows": 5}}, "more than one of share, rows and own"),
        ({"sources": {"a": {"repeat": 0.5}}}, "repeat"),
    ],
)
def test_a_recipe_that_does_not_fit_is_told(values: dict[str, Any], told: str) -> None:
    with pytest.raises(BluelmError) as found:
        validate(Mixture, values, "the recipe")
    assert told in " ".join(problem.what for problem in found.value.problems)


def test_places_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = mixture({"a": {"path": "${SOME_SET}/rows.json"}, "b": {"path": "b.json"}, "c": {}})
    monkeypatch.delenv("SOME_SET", raising=False)
    assert list(recipe.given) == ["b"]
    monkeypatch.setenv("SOME_SET", "/sets")
    assert [str(source.place) for source in recipe.given.values()] == ["/sets/rows.json", "b.json"]
