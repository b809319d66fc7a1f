"""Sets of rows, and `bluelm data mix` over them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

Run = Callable[..., Any]


def write_rows(file: Path, count: int, pictures: int = 0, first: int = 0) -> Path:
    """`count` rows in LLaVA's JSON about `pictures` pictures in turn; of text alone where there are none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    for number in range(pictures):
        image = file.parent / f"{number}.png"
        if not image.exists():
            Image.new("RGB", (8, 8), (first + number, number // 256, 7)).save(image)
    rows = [
        {
            "id": str(number),
            **({"image": f"{number % pictures}.png"} if pictures else {}),
            "conversations": [
                {"from": "human", "value": ("<image>\n" if pictures else "") + f"question {file.parent.name} {number}"},
                {"from": "gpt", "value": f"answer {number}"},
            ],
        }
        for number in range(count)
    ]
    file.write_text(json.dumps(rows))
    return file


@pytest.fixture
def sets(tmp_path: Path) -> dict[str, Path]:
    """A large set of questions, a small one, and text."""
    return {
        "vqa": write_rows(tmp_path / "vqa" / "rows.json", 400, pictures=100),
        "ocr": write_rows(tmp_path / "ocr" / "rows.json", 30, pictures=30, first=130),
        "text": write_rows(tmp_path / "text" / "rows.json", 50),
    }


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Half questions, a quarter reading, a quarter text."""
    file = tmp_path / "mix.yaml"
    file.write_text(
        "categories: {vqa: 2, ocr: 1, text: 1}\n"
        "repeat: 4\n"
        "sources:\n"
        "  vqa: {category: vqa}\n  ocr: {category: ocr}\n  text: {category: text, path: '${NO_SUCH_TEXT}'}\n"
    )
    return file


@pytest.fixture
def mix(bluelm: Run, recipe: Path, sets: dict[str, Path]) -> Run:
    """Runs data mix with the recipe and the sets."""

    def run(out: Path, *more: object, without: tuple[str, ...] = ()) -> Any:
        given = [word for name, path in sets.items() if name not in without for word in ("--source", f"{name}={path}")]
        return bluelm("data", "mix", "--recipe", recipe, *given, "--out", out, "--json", *more)

    return run
