"""How small test pictures look, pages of a family, and what is written on one."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from stages.device.imaging.geometry import Size
from stages.workshop.corpus.rendering.page import Page, PageOverflowError
from stages.workshop.corpus.rendering.scene import Look, Split
from stages.workshop.corpus.rendering.tasks import FAMILIES

_LITERAL = re.compile(r'"((?:[^"\\]|\\.)*)"')
_STYLE = re.compile(r"#[0-9a-f]{6}|bold|regular|solid|dashed|dotted|bluelm: too wide")


@pytest.fixture(scope="session")
def look() -> Callable[..., Look]:
    """A look; keyword arguments replace its values."""

    def make(**changes: Any) -> Look:
        usual: dict[str, Any] = {
            "size": Size(64, 64),
            "least": 0.15,
            "most": 0.6,
            "backgrounds": ("gradient", "stripes", "noise", "blobs"),
            "saturation": 0.3,
            "nameless_colours": 0.0,
            "nameless_shapes": 0.0,
        }
        return Look(**usual | changes)

    return make


@pytest.fixture(scope="session")
def some_pages() -> Callable[..., list[Page]]:
    """So many pages of a family; those that do not fit are left out."""

    def draw(name: str, split: Split, look: Look, count: int, seed: int = 5) -> list[Page]:
        return list(itertools.islice(_pages(name, split, look, seed), count))

    return draw


def _pages(name: str, split: Split, look: Look, seed: int) -> Iterator[Page]:
    for index in range(5000):
        try:
            page = FAMILIES[name].draw(np.random.default_rng([seed, index]), split, look)
        except PageOverflowError:
            continue
        assert isinstance(page, Page)
        yield page
    raise AssertionError(f"few pages of {name} fit")


@pytest.fixture(scope="session")
def written() -> Callable[[Page], list[str]]:
    """Every text of a page, read from its markup in order: an independent way to an answer."""

    def read(page: Page) -> list[str]:
        found = [text.replace('\\"', '"').replace("\\\\", "\\") for text in _LITERAL.findall(page.body)]
        return [text for text in found if not _STYLE.fullmatch(text)]

    return read
