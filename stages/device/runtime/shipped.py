"""The demo model that comes with bluelm: what runs when no model is named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stages.artifacts.errors import ModelError, UsageError
from stages.artifacts.manifest import MANIFEST_FILE, read_manifest
from stages.artifacts.recipes import recipes_folder
from stages.device.contract.names import DEVICE_CONFIG_FILE

DEMO = "demo"
# A transformers folder, an export: the stage then says whether it is the right one.
_MODEL_MARKS = ("config.json", DEVICE_CONFIG_FILE)


def model_or_shipped(model: Path | None) -> Path:
    """The model that was named, or the shipped demo model.

    Raises:
        ModelError: none was named and none is shipped.
    """
    if model is not None:
        return model
    shipped = recipes_folder() / DEMO
    if (shipped / MANIFEST_FILE).is_file():
        return shipped
    raise ModelError(
        "No model was named, and this copy of bluelm carries no demo model.",
        f"It would be at {shipped}.",
        "Name an exported model (bluelm export CHECKPOINT --out FOLDER makes one), or make the demo's: make demo",
    )


def split_model(paths: Sequence[Path]) -> tuple[Path | None, list[Path]]:
    """Splits `[MODEL] PICTURES...`: the first path is a model where it is a folder that describes itself as one.

    Returns:
        The model, None where none is named, and the pictures.

    Raises:
        UsageError: no picture is named.
    """
    named = paths[0] if paths and _describes_a_model(paths[0]) else None
    pictures = list(paths[1:] if named is not None else paths)
    if not pictures:
        raise UsageError("No picture is named.", "There is nothing to encode.", "Name pictures or folders of pictures.")
    return named, pictures


def _describes_a_model(path: Path) -> bool:
    if (path / MANIFEST_FILE).is_file():
        # A corpus holds pictures; any other artifact in this place was meant as a model.
        return read_manifest(path).kind != "corpus"
    return any((path / name).is_file() for name in _MODEL_MARKS)
