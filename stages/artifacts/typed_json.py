"""A JSON file as a typed model, or one error that names the file and the place in it."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from stages.artifacts.errors import BluelmError

Model = TypeVar("Model", bound=BaseModel)


def read_typed_json(
    path: Path, model: type[Model], error: type[BluelmError], *, unreadable: str, broken: str, fix: str
) -> Model:
    """Reads a file of ours.

    Args:
        path: the file.
        model: what it must be.
        error: the error to raise.
        unreadable: why it matters that the file is not there or cannot be read.
        broken: why it matters that it is not what it should be.
        fix: what to do about either.

    Raises:
        error: the file cannot be read, or does not fit the model; the first misfit is named.
    """
    try:
        return model.model_validate_json(path.read_bytes())
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror}.", unreadable, fix) from problem
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise error(f"{path}: {where}: {first['msg']}.", broken, fix) from problem
