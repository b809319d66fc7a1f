"""How small test pictures look."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stages.device.imaging.geometry import Size
from stages.workshop.corpus.rendering.scene import Look


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
