"""The shipped demo model: small enough to ship, and it says what it sees in pictures that nobody trained it on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
MAX_BYTES = 10 * 10**6


@pytest.fixture(scope="module")
def shipped(project_root: Path) -> Path:
    return project_root / "recipes" / "demo"


def test_it_is_whole_and_small(shipped: Path, bluelm: Run) -> None:
    told = bluelm("info", shipped, "--json").json()
    assert told["kind"] == "onnx"
    assert sum(file.stat().st_size for file in shipped.rglob("*")) <= MAX_BYTES


def test_it_answers_held_out_questions_drawn_from_another_seed(shipped: Path, tmp_path: Path, bluelm: Run) -> None:
    drawn = ["--seed", "1234", "--set", "train=0", "--set", "heldout=100"]
    assert bluelm("data", "render", "--recipe", "tiny/data.yaml", *drawn, "--out", tmp_path / "corpus").code == 0
    done = bluelm("bench", "eval", shipped, "--data", tmp_path / "corpus", "--json")
    assert done.code == 0, done.err
    tasks = done.json()["tasks"]
    assert {name: tasks[name]["questions"] for name in ("colour", "shape")} == {"colour": 100, "shape": 100}
    assert tasks["colour"]["correct"] >= 93
    assert tasks["shape"]["correct"] >= 80


def test_it_runs_where_no_model_is_named(tmp_path: Path, bluelm: Run, data_dir: Path) -> None:
    picture = data_dir / "photos" / "skimage" / "coffee.png"
    assert bluelm("chat", "--image", picture, "--prompt", "What colour is the shape?").out.strip()
    limits = ["--runs", "1", "--generate", "4", "--prompt-tokens", "128"]
    assert bluelm("bench", "--chunk", "128", *limits, "--json").code == 0
