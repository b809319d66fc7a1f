"""What a release is tested with: its files built away from the checkout, and environments that hold nothing else.

Environments are made once a session, or once and for all in the folder that BLUELM_RELEASE_ENVIRONMENTS names.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

# Everything that a release is made of: what git ignores in a checkout is left out by name.
PARTS = ("bluelm_cli", "stages", "recipes", "tests")
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*")
# 2026-11-01, any date will do
EPOCH = "1793491200"


@dataclass(frozen=True)
class Environment:
    """A virtual environment."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def run(self, *words: object, cwd: Path, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs one of its programs in a folder, with nothing of the checkout's in its surroundings."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "BLUELM", "VIRTUAL"))
        }
        kept |= {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1", **variables}
        program = shutil.which(str(words[0]), path=str(self.folder / "bin"))
        assert program is not None, words[0]
        line = [program, *(str(word) for word in words[1:])]
        done = subprocess.run(line, cwd=cwd, env=kept, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if check and done.returncode:
            raise AssertionError(f"{line} ended with {done.returncode}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
        return done


@pytest.fixture(scope="session")
def environment(
    tmp_path_factory: pytest.TempPathFactory, project_root: Path
) -> Callable[[str, Sequence[object]], Environment]:
    """Makes an environment: `environment(name, packages, python)`; the versions are those of constraints.txt."""
    kept = os.environ.get("BLUELM_RELEASE_ENVIRONMENTS")
    place = Path(kept) if kept else tmp_path_factory.mktemp("environments")

    def made(name: str, packages: Sequence[object], python: str = sys.executable) -> Environment:
        found = Environment((place / name).resolve())
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint"]
        if not found.python.exists():
            subprocess.run([python, "-m", "venv", found.folder], check=True)
        done = subprocess.run(
            [found.python, *install, project_root / "constraints.txt", *packages], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"{name} cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
        return found

    return made


@pytest.fixture(scope="session")
def built(
    tmp_path_factory: pytest.TempPathFactory, project_root: Path, environment: Callable[..., Environment]
) -> Callable[..., tuple[Path, Path]]:
    """Builds a release from a copy of the source: `built(name[, root])` gives its sdist and its wheel."""
    builder = environment("builder", ["hatchling"])

    def build(name: str, root: Path = project_root) -> tuple[Path, Path]:
        source = tmp_path_factory.mktemp(name) / f"source of {name}"
        copy_source(root, source)
        builder.run("python", "-m", "hatchling", "build", "-d", source / "dist", cwd=source, SOURCE_DATE_EPOCH=EPOCH)
        (sdist,), (wheel,) = (source / "dist").glob("*.tar.gz"), (source / "dist").glob("*.whl")
        return sdist, wheel

    return build


@pytest.fixture(scope="session")
def release(built: Callable[..., tuple[Path, Path]]) -> tuple[Path, Path]:
    """The sdist and the wheel."""
    return built("release")


def copy_source(root: Path, target: Path) -> None:
    """The project's own files."""
    target.mkdir(parents=True)
    for path in root.iterdir():
        if path.name in PARTS:
            shutil.copytree(path, target / path.name, ignore=LEFT_OUT)
        elif path.is_file() and (path.name == ".gitignore" or not path.name.startswith(".")):
            shutil.copy(path, target / path.name)
