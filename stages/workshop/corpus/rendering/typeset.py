"""Typst markup as pictures, with fonts that are given, so that they look the same on every machine."""

from __future__ import annotations

import functools
import io

import typst
from PIL import Image

# A panic with this text says that something is wider than its room (see `page.PRELUDE`).
TOO_WIDE = "bluelm: too wide"


@functools.cache
def _compiler(folders: tuple[str, ...]) -> typst.Compiler:
    # Loading the fonts takes ten times as long as a page.
    return typst.Compiler(ignore_system_fonts=True, font_paths=list(folders))


def typeset(source: str, folders: tuple[str, ...] = ()) -> Image.Image | None:
    """A document as an RGB picture, one point to the pixel; None where it does not fit on one page.

    Args:
        source: typst markup with its page size; text from outside went through `quoted`.
        folders: where fonts lie besides typst's own.

    Raises:
        typst.TypstError: the markup is wrong.
    """
    try:
        pages = _compiler(folders).compile(source.encode(), format="png", ppi=72.0)
    except typst.TypstError as error:
        if TOO_WIDE in error.message:
            return None
        raise
    if not isinstance(pages, bytes):
        return None
    return Image.open(io.BytesIO(pages)).convert("RGB")


def quoted(text: str) -> str:
    """Text as a typst string literal."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def shown(text: str) -> str:
    """Text as typst markup that shows it as it is."""
    return f"#text({quoted(text)})"
