"""What schemathesis cannot make up from a description: pictures that can be read, where its data is meant to be right.

Loaded by schemathesis, in an environment of its own (see `test_openapi.py`); nothing of bluelm is there.
"""

from __future__ import annotations

import base64
from typing import Any

import schemathesis
from hypothesis import strategies as st

# A PNG of one red pixel.
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
PNG = base64.b64decode(PIXEL)

for kind in ("image/*", "image/png", "application/octet-stream"):
    schemathesis.openapi.media_type(kind, st.just(PNG))


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Pictures of a question that ought to be answered are ones that can be."""
    if case.meta is None or case.meta.generation.mode.is_positive:
        _show_pictures(case.body)


def _show_pictures(value: Any) -> None:
    if isinstance(value, dict):
        shown = value.get("image_url")
        if value.get("type") == "image_url" and isinstance(shown, dict) and isinstance(shown.get("url"), str):
            shown["url"] = f"data:image/png;base64,{PIXEL}"
        for inner in value.values():
            _show_pictures(inner)
    elif isinstance(value, list):
        for inner in value:
            _show_pictures(inner)
