"""sdist and wheel: the same bytes each time, with everything that an installed bluelm needs, and nothing else."""

from __future__ import annotations

import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
SHELLS = {
    "share/bash-completion/completions/bluelm",
    "share/zsh/site-functions/_bluelm",
    "share/fish/vendor_completions.d/bluelm.fish",
}
Built = Callable[..., tuple[Path, Path]]


def files_of(folder: Path) -> set[str]:
    """The project's own files below a folder, relative to it."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    own = (path for path in found if not any(part == "__pycache__" or part.startswith(".") for part in path.parts))
    return {path.as_posix() for path in own}


def test_two_builds_are_equal_byte_by_byte(built: Built, release: tuple[Path, Path]) -> None:
    mask = os.umask(0o077)  # another user's habits, another folder, another time
    try:
        again = built("another")
    finally:
        os.umask(mask)
    for first, second in zip(release, again, strict=True):
        assert first.name == second.name
        assert first.read_bytes() == second.read_bytes(), first.name


def test_the_sdist_makes_the_same_wheel(built: Built, release: tuple[Path, Path], tmp_path: Path) -> None:
    sdist, wheel = release
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    assert built("unpacked", source)[1].read_bytes() == wheel.read_bytes()


def test_the_wheel_holds_recipes_model_completions_and_types(release: tuple[Path, Path], project_root: Path) -> None:
    with zipfile.ZipFile(release[1]) as archive:
        names = set(archive.namelist())
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"bluelm_cli", "stages", "bluelm-0.1.0.dist-info", "bluelm-0.1.0.data"}
    expected = {
        f"{package}/{name}" for package in ("bluelm_cli", "stages") for name in files_of(project_root / package)
    }
    expected |= {f"bluelm_cli/recipes/{name}" for name in files_of(project_root / "recipes")}
    assert {name for name in names if name.startswith(("bluelm_cli/", "stages/"))} == expected
    assert {"bluelm_cli/py.typed", "stages/py.typed", "bluelm_cli/recipes/demo/artifact.json"} <= expected
    data = "bluelm-0.1.0.data/data/"
    assert {name.removeprefix(data) for name in names if name.startswith(data)} == SHELLS
    assert "bluelm-0.1.0.dist-info/licenses/LICENSE" in names


def test_the_sdist_holds_what_the_tests_need(release: tuple[Path, Path], project_root: Path) -> None:
    with tarfile.open(release[0]) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers()}
    for part in ("bluelm_cli", "stages", "recipes", "tests"):
        assert {f"{part}/{name}" for name in files_of(project_root / part)} <= names, part
    kept = {path.name for path in project_root.iterdir() if path.is_file() and not path.name.startswith(".")}
    assert kept <= names


def test_nothing_named_recipes_or_tests_comes_into_site_packages(
    release: tuple[Path, Path], environment: Any, tmp_path: Path
) -> None:
    bare = environment("bare", ["--no-deps", "--force-reinstall", release[1]])
    find = "import importlib.util as u; print(*(u.find_spec(n) is not None for n in ('stages', 'recipes', 'tests')))"
    assert bare.run("python", "-c", find, cwd=tmp_path).stdout.split() == ["True", "False", "False"]
    assert all((bare.folder / name).is_file() for name in SHELLS)
