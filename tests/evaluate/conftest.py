"""Corpora small enough to read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.artifacts.folder import ArtifactSpec, create


def _row(name: str, image: str, question: str, answer: str, task: str | None) -> dict[str, Any]:
    turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
    return {"id": name, "image": image, "conversations": turns} | ({} if task is None else {"task": task})


@pytest.fixture
def row() -> Callable[..., dict[str, Any]]:
    """Builds one LLaVA row: row(id, image, question, answer, task)."""
    return _row


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A corpus artifact: two colours questions asked in two ways, shapes, four held-out rows; pictures by Pillow."""
    from PIL import Image

    colour, shape = "Which colour?", "Which shape?"
    train = [
        _row("t0", "images/0.png", colour, "Red", "colours"),
        _row("t1", "images/0.png", colour, "red", "colours"),
        _row("t2", "images/0.png", colour, "blue", "colours"),
        _row("t3", "images/0.png", "Name its colour.", "blue", "colours"),
        _row("t4", "images/0.png", shape, "circle", "shapes"),
    ]
    heldout = [
        _row("h0", "images/1.png", colour, "red", "colours"),
        _row("h1", "images/2.png", colour, "green", "colours"),
        _row("h2", "images/1.png", "Its form?", "circle", "shapes"),
        _row("h3", "images/2.png", shape, "star", "shapes"),
    ]
    out = tmp_path / "corpus"
    with create(out, ArtifactSpec(kind="corpus", stage="data", config={})) as draft:
        (draft.path / "images").mkdir()
        for number in range(3):
            Image.new("RGB", (40, 30), (80 * number, 10, 200)).save(draft.path / "images" / f"{number}.png")
        (draft.path / "train.json").write_text(json.dumps(train), encoding="utf-8")
        (draft.path / "heldout.json").write_text(json.dumps(heldout), encoding="utf-8")
    return out
