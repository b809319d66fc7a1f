"""Fixtures of the imaging tests: sizes that the rules are tried on."""

from __future__ import annotations

import random

import pytest

from stages.device.imaging.geometry import Size


@pytest.fixture(scope="session")
def random_sizes() -> list[Size]:
    """100 000 sizes: everyday ones, extreme shapes, and ones around the edges of tiles, where decisions turn."""
    source = random.Random(20241117)

    def everyday() -> int:
        return source.randint(1, 4000)

    def any_scale() -> int:
        return int(2 ** source.uniform(0, 15))

    def near_an_edge() -> int:
        return max(1, source.randint(1, 8) * 384 + source.randint(-40, 40))

    kinds = [everyday] * 60_000 + [any_scale] * 20_000 + [near_an_edge] * 20_000
    return [Size(kind(), kind()) for kind in kinds]
