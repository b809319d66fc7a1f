"""What keeps the code readable, held by a test: file lengths, junk drawers, recipes, packaging."""

from __future__ import annotations

import importlib
import itertools
import os
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAX_LINES = 350
# At most three files may be longer, each with its reason.
LONGER: dict[str, str] = {}
PACKAGES = ("bluelm_cli", "stages")
TOP_LEVEL = {
    *("bluelm_cli", "stages", "recipes", "tests", "pyproject.toml", "README.md"),
    *("LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "Makefile", "constraints.txt"),
}
# What tools and runs leave beside the project's own files; all of it is ignored by git.
NOT_OURS = {"build", "dist", "demo", "tile-preview"}


def python_files() -> list[Path]:
    found = [path for package in (*PACKAGES, "tests") for path in sorted((ROOT / package).rglob("*.py"))]
    assert len(found) > 50
    return found


def test_files_are_about_one_noun() -> None:
    assert len(LONGER) <= 3
    for path in python_files():
        name = path.relative_to(ROOT).as_posix()
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert name in LONGER or lines <= MAX_LINES, f"{name} has {lines} lines: it has become two nouns"


def test_there_is_no_junk_drawer() -> None:
    for path in python_files():
        assert path.stem not in ("utils", "util", "helpers", "misc", "common"), path


def test_the_top_level_holds_what_was_agreed() -> None:
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")} - NOT_OURS
    assert found == TOP_LEVEL


def test_every_module_imports() -> None:
    """Each module loads with the declared dependencies alone and does no visible work."""
    before = dict(os.environ)
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.name != "__main__.py":
                parts = path.relative_to(ROOT).with_suffix("").parts
                importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    ours = {key: value for key, value in os.environ.items() if key.startswith("BLUELM") and before.get(key) != value}
    assert ours == {}


def test_every_module_says_what_it_is_for() -> None:
    import ast

    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{path} has no docstring"


def test_pinned_versions_satisfy_the_declared_ones() -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    pins = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            pins[name.lower()] = version
    assert "torchvision" not in pins
    for text in declared:
        requirement = Requirement(text)
        assert requirement.name.lower() in pins, f"{requirement.name} is not pinned"
        assert requirement.specifier.contains(pins[requirement.name.lower()]), text


@pytest.mark.parametrize("name", ["pretrain.yaml", "finetune.yaml", "quantize.yaml"])
def test_the_papers_recipes_are_found(name: str) -> None:
    from stages.artifacts.recipes import read_recipe, recipe_path

    assert read_recipe(recipe_path(name))
