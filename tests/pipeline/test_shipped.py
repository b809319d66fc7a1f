"""The shipped demo model: small enough to ship, and it reads what stands in pictures that nobody trained it on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

Run = Callable[..., Any]
# Of one file, and of all that the repository carries.
MAX_FILE_BYTES, MAX_BYTES = 15 * 2**20, 32 * 2**20
QUESTIONS = 60
# Right answers of QUESTIONS on a font that training never shows; the card has the rates of a thousand and more.
AT_LEAST = {"word": 25, "number": 40, "price": 35, "colour": 50, "shape": 50}


@pytest.fixture(scope="module")
def shipped(project_root: Path) -> Path:
    return project_root / "recipes" / "demo"


def test_it_is_whole_and_small(shipped: Path, bluelm: Run) -> None:
    told = bluelm("info", shipped, "--json").json()
    assert told["kind"] == "onnx"
    sizes = [file.stat().st_size for file in shipped.parent.rglob("*") if file.is_file()]
    assert max(sizes) <= MAX_FILE_BYTES and sum(sizes) <= MAX_BYTES


def test_it_names_no_place_of_the_machine_that_made_it(shipped: Path) -> None:
    for name in ("artifact.json", "device.json", "run.json"):
        assert "\": \"/" not in (shipped / name).read_text(encoding="utf-8")


def test_it_reads_other_texts_in_another_font(shipped: Path, tmp_path: Path, bluelm: Run) -> None:
    drawn = ["--seed", "1234", "--set", "train=0", "--set", f"heldout={QUESTIONS}"]
    tasks = ["--set", f"tasks=[{', '.join(AT_LEAST)}]"]
    made = bluelm("data", "render", "--recipe", "base/demo-data.yaml", *drawn, *tasks, "--out", tmp_path / "corpus")
    assert made.code == 0, made.err
    done = bluelm("bench", "eval", shipped, "--data", tmp_path / "corpus", "--json")
    assert done.code == 0, done.err
    found = done.json()["tasks"]
    assert {name: found[name]["questions"] for name in AT_LEAST} == dict.fromkeys(AT_LEAST, QUESTIONS)
    right = {name: found[name]["correct"] for name in AT_LEAST}
    assert all(right[name] >= least for name, least in AT_LEAST.items()), right


def test_it_runs_where_no_model_is_named(tmp_path: Path, bluelm: Run, data_dir: Path) -> None:
    picture = data_dir / "photos" / "skimage" / "coffee.png"
    assert bluelm("chat", "--image", picture, "--prompt", "What colour is the shape?").out.strip()
    limits = ["--runs", "1", "--generate", "4", "--prompt-tokens", "128"]
    assert bluelm("bench", "--chunk", "128", *limits, "--json").code == 0


def test_it_is_asked_about_a_real_receipt(bluelm: Run, data_dir: Path) -> None:
    receipt = data_dir / "sroie60" / "img" / "002.jpg"
    told = bluelm("chat", "--image", receipt, "--prompt", "What is the total?", "--json").json()
    assert told["answer"].strip()
    # Taller than wide: cut into tiles and a thumbnail of 49 tokens each.
    with Image.open(receipt) as picture:
        assert picture.height > picture.width
    assert told["image_tokens"] % 49 == 0 and told["image_tokens"] > 2 * 49
