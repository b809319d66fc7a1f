"""A picture, and exported models with something changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.artifacts.folder import ArtifactSpec, create
from stages.device.contract import names


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture of 7 tiles (3:2) whose name has a space."""
    path = tmp_path_factory.mktemp("photo") / "a photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def variant(tiny_onnx: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the tiny model, its manifest in order: `variant(change)` calls `change` with the folder;
    `variant("decoder", max_context=64)` edits that part of `device.json`."""

    def make(change: Callable[[Path], object] | str, **values: Any) -> Path:
        with create(tmp_path / "variant", ArtifactSpec("onnx", "export", {})) as draft:
            for file in tiny_onnx.iterdir():
                if file.name not in ("artifact.json", "run.json"):
                    (draft.path / file.name).write_bytes(file.read_bytes())
            if callable(change):
                change(draft.path)
            else:
                path = draft.path / names.DEVICE_CONFIG_FILE
                config = json.loads(path.read_text())
                config[change].update(values)
                path.write_text(json.dumps(config))
        return tmp_path / "variant"

    return make
