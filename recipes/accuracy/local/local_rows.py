"""How `bluelm_local` reads and scores a row: loaded by lmms-eval inside its own environment."""

from __future__ import annotations

from typing import Any

from PIL import Image


def visual(row: dict[str, Any]) -> list[Image.Image]:
    """The row's picture."""
    with Image.open(row["picture"]) as picture:
        return [picture.convert("RGB")]


def text(row: dict[str, Any], _: Any = None) -> str:
    """What is asked."""
    return str(row["question"])


def score(row: dict[str, Any], results: list[str]) -> dict[str, float]:
    """1 where the reply is the answer but for case, outer space and final punctuation."""
    said, wanted = (value.strip().rstrip(".!?").casefold() for value in (results[0], str(row["answer"])))
    return {"exact": float(said == wanted)}
