"""Recipes: YAML 1.2 numbers, precedence, extends, and errors that name the nearest key."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.artifacts.errors import ProblemsError, RecipeError
from stages.artifacts.recipes import (
    RecipeModel,
    load_config,
    merge,
    parse_set,
    read_recipe,
    read_yaml,
    recipe_path,
    shipped_recipe,
)


class Optimizer(RecipeModel):
    learning_rate: float = 1.0
    betas: tuple[float, float] = (0.9, 0.98)


class Config(RecipeModel):
    steps: int = 1
    optimizer: Optimizer = Optimizer()
    name: str | None = None


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("1E5", 1e5), (".5", 0.5), ("1.", 1.0), ("12", 12), ("yes", "yes"), ("on", "on"), ("true", True)],
)
def test_numbers_are_yaml_1_2(tmp_path: Path, text: str, value: object) -> None:
    read = read_yaml(write(tmp_path / "a.yaml", f"key: {text}"))["key"]
    assert read == value
    assert type(read) is type(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_python_writes_is_read_back(value: float) -> None:
    assert parse_set(f"x={value!r}") == {"x": value}


def test_precedence_default_recipe_set_flag(tmp_path: Path) -> None:
    recipe = write(tmp_path / "a.yaml", "steps: 2\noptimizer: {learning_rate: 1e-3}\nname: recipe")
    assert load_config(Config).steps == 1
    config = load_config(Config, recipe, ["optimizer.learning_rate=2e-3"], {"name": "flag", "steps": None})
    assert config == Config(steps=2, optimizer=Optimizer(learning_rate=2e-3), name="flag")


def test_extends_merges_key_by_key(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", "steps: 5\noptimizer: {learning_rate: 3, betas: [0.1, 0.2]}")
    recipe = write(tmp_path / "child.yaml", "extends: base.yaml\noptimizer: {learning_rate: 4}")
    assert load_config(Config, recipe) == Config(steps=5, optimizer=Optimizer(learning_rate=4, betas=(0.1, 0.2)))


def test_a_recipe_that_extends_itself_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "extends: b.yaml")
    write(tmp_path / "b.yaml", "extends: a.yaml")
    with pytest.raises(RecipeError, match="extends itself"):
        read_recipe(tmp_path / "a.yaml")


def test_all_problems_are_reported_together_with_the_nearest_names(tmp_path: Path) -> None:
    recipe = write(tmp_path / "a.yaml", "stepz: 2\noptimizer: {learning_rat: 1}\nname: [1]")
    with pytest.raises(ProblemsError) as caught:
        load_config(Config, recipe)
    problems = caught.value.problems
    assert len(problems) == 3
    fixes = " ".join(problem.fix for problem in problems)
    assert "Did you mean 'steps'?" in fixes
    assert "Did you mean 'learning_rate'?" in fixes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "not valid YAML"),
        ("- 1", "not a mapping"),
        ("steps: 1\nsteps: 2", "stands twice"),
        ("extends: none.yaml", "does not exist"),
        ("extends: 3", "extends is 3"),
        ("x: !!python/object/apply:os.system [ls]", "not valid YAML"),
    ],
)
def test_broken_recipes(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_config(Config, write(tmp_path / "a.yaml", text))


@pytest.mark.parametrize("text", ["steps", "=1", "a..b=1", "a=[1"])
def test_broken_sets(text: str) -> None:
    with pytest.raises(RecipeError, match="--set"):
        parse_set(text)


def test_an_unknown_recipe_lists_what_there_is() -> None:
    with pytest.raises(RecipeError, match=r"no recipe nothing\.yaml") as caught:
        recipe_path("nothing.yaml")
    assert "Recipes that come with bluelm" in caught.value.fix


def test_a_shipped_recipe_is_not_the_one_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "quantize.yaml", "samples: 1")
    assert recipe_path("quantize.yaml").resolve() == tmp_path / "quantize.yaml"
    assert read_recipe(shipped_recipe("quantize.yaml")) != {"samples": 1}
    with pytest.raises(RecipeError, match=r"nothing\.yaml is missing"):
        shipped_recipe("nothing.yaml")


plain = st.dictionaries(st.sampled_from("abc"), st.integers() | st.dictionaries(st.sampled_from("xy"), st.integers()))


@given(plain, plain, plain)
def test_merge_is_associative_where_shapes_agree(one: dict, two: dict, three: dict) -> None:
    def same_shape(*layers: dict) -> bool:
        return all(len({isinstance(layer[key], dict) for layer in layers if key in layer}) <= 1 for key in "abc")

    if same_shape(one, two, three):
        assert merge(merge(one, two), three) == merge(one, merge(two, three))
    assert {**merge(one, two)}.keys() == one.keys() | two.keys()
