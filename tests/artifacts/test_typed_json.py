"""A typed JSON file, or an error that names file, place and fix."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from stages.artifacts.errors import ModelError
from stages.artifacts.typed_json import read_typed_json


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    sizes: tuple[int, ...]


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    inner: Inner


def read(path: Path) -> Outer:
    return read_typed_json(path, Outer, ModelError, unreadable="It is needed.", broken="It lies.", fix="Make it.")


def test_what_fits_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"inner": {"sizes": [1, 2]}}')
    assert read(path) == Outer(inner=Inner(sizes=(1, 2)))


def test_a_missing_file_says_why_it_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        read(tmp_path / "a.json")
    assert (
        str(caught.value)
        == f"{tmp_path / 'a.json'} cannot be read: No such file or directory.\nIt is needed.\nMake it."
    )


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{"inner": {"sizes": [1, "x"]}}', "inner.sizes.1: "),
        ('{"inner": {"sizes": [], "more": 1}}', "inner.more: "),
        ("{}", "inner: "),
        ('{"inner": ', "the file: "),
        ("\udcff", "the file: "),
        ("", "the file: "),
    ],
)
def test_the_first_misfit_is_named(text: str, where: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: {where}")
    assert str(caught.value).endswith("\nIt lies.\nMake it.")
