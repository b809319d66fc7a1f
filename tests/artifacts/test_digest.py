"""Digests: of names as well as contents, and of names that are not UTF-8."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stages.artifacts.digest import digest_folder, digest_json
from stages.artifacts.errors import ArtifactError
from stages.artifacts.folder import ArtifactSpec, create
from stages.artifacts.manifest import parent_of

LATIN_1 = os.fsdecode(b"caf\xe9.png")


def test_a_digest_takes_a_file_name_s_bytes_as_they_are() -> None:
    assert digest_json(LATIN_1) != digest_json("caf\xe9.png")
    assert digest_json("caf\xe9") == digest_json(os.fsdecode("caf\xe9".encode()))


def test_a_folder_with_a_name_that_is_not_utf_8_has_a_digest(tmp_path: Path) -> None:
    (tmp_path / LATIN_1).write_text("x")
    first = digest_folder(tmp_path)
    (tmp_path / LATIN_1).rename(tmp_path / os.fsdecode(b"caf\xea.png"))
    assert digest_folder(tmp_path) != first
    assert parent_of(tmp_path).digest == digest_folder(tmp_path)


def test_a_manifest_says_which_name_it_cannot_hold(tmp_path: Path) -> None:
    (tmp_path / LATIN_1).write_text("x")
    with pytest.raises(ArtifactError, match=r"caf\\xe9\.png is not UTF-8"):
        parent_of(tmp_path / LATIN_1)
    with pytest.raises(ArtifactError, match=r"caf\\xe9\.png is not UTF-8"):  # noqa: SIM117
        with create(tmp_path / "out", ArtifactSpec("corpus", "data render", {})) as draft:
            (draft.path / LATIN_1).write_text("x")
    assert not (tmp_path / "out").exists()
