"""JSON objects of a model folder, read with an error that a user understands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stages.artifacts.errors import ModelError
from stages.artifacts.plain_json import parse_json


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ModelError: unreadable, or not an object.
    """
    why, fix = "It describes the model.", "Copy or make the model folder again."
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.", why, fix) from error
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}.", why, fix) from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds no JSON object.", why, fix)
    return value


def read_json_if_any(path: Path) -> dict[str, Any]:
    """A JSON object from a file, empty where there is none.

    Raises:
        ModelError: unreadable, or not an object.
    """
    return read_json(path) if path.is_file() else {}
