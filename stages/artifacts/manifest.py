"""`artifact.json`: what an artifact is, what made it, from what, and what it holds.

Time, host and duration go to `run.json`, outside the digest, so that the same inputs give a byte-identical artifact.
"""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from stages.artifacts.digest import digest_file, digest_folder, digest_json
from stages.artifacts.errors import ArtifactError
from stages.artifacts.typed_json import read_typed_json

MANIFEST_FILE = "artifact.json"
RUN_FILE = "run.json"
SCHEMA_VERSION = 1
# Packages whose version can change what a stage writes.
VERSIONED_PACKAGES = (
    "bluelm",
    "numpy",
    "pillow",
    "torch",
    "transformers",
    "onnxruntime",
    "compressed-tensors",
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Parent(_Strict):
    """An input: the name it was given by and the digest of its content."""

    path: str
    digest: str


class FileEntry(_Strict):
    """A file of the artifact: size in bytes and sha256."""

    size: int
    sha256: str


class Manifest(_Strict):
    """The whole of `artifact.json`."""

    kind: str
    schema_version: int = SCHEMA_VERSION
    stage: str
    config: dict[str, Any]
    seed: int | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    parents: tuple[Parent, ...] = ()
    files: dict[str, FileEntry] = Field(default_factory=dict)
    metrics: dict[str, Any] = Field(default_factory=dict)

    @property
    def digest(self) -> str:
        """sha256 of what the artifact is: everything but the names its parents had on disk."""
        content = self.model_dump(mode="json")
        content["parents"] = [parent.digest for parent in self.parents]
        return digest_json(content)

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(entry.size for entry in self.files.values())


def installed_versions() -> dict[str, str]:
    """Versions of the packages that can change what a stage writes; absent ones are left out."""
    versions = {}
    for package in VERSIONED_PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def read_manifest(folder: Path) -> Manifest:
    """Reads a folder's `artifact.json`.

    Raises:
        ArtifactError: it is missing, broken, of another schema, or lists a file outside the folder.
    """
    path = folder / MANIFEST_FILE
    remake = "Make the artifact again with the command that wrote it."
    manifest = read_typed_json(
        path,
        Manifest,
        ArtifactError,
        unreadable="Without it the folder is not an artifact.",
        broken="The folder cannot be trusted to be what it says.",
        fix=remake,
    )
    if manifest.schema_version != SCHEMA_VERSION:
        raise ArtifactError(
            f"{path}: schema version {manifest.schema_version}, this bluelm reads {SCHEMA_VERSION}.",
            "Fields may mean something else there.",
            remake,
        )
    for name in manifest.files:
        if not is_inside(name):
            raise ArtifactError(
                f"{path} lists the file {name!r}, which lies outside the folder.",
                "Reading it could reach any file of this machine.",
                "Do not use this folder; get it again from where it came.",
            )
    return manifest


def is_inside(name: str) -> bool:
    """Whether a relative file name stays inside its folder (no absolute path, no `..`, no drive)."""
    parts = PurePosixPath(name)
    return not (parts.is_absolute() or ".." in parts.parts or "\\" in name or ":" in name or name in ("", "."))


def check_name(path: Path) -> None:
    """Refuses a path that a manifest, which is JSON, cannot name.

    Raises:
        ArtifactError: the path is not UTF-8.
    """
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError as error:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise ArtifactError(
            f"The name of {shown} is not UTF-8.", "The manifest of an artifact cannot name it.", "Rename it."
        ) from error


def parent_of(path: Path) -> Parent:
    """The digest of an input: an artifact by its manifest, a plain folder or a file by its content.

    Raises:
        ArtifactError: there is nothing at that path, its manifest is broken, or its name is not UTF-8.
    """
    check_name(path)
    if (path / MANIFEST_FILE).is_file():
        return Parent(path=path.as_posix(), digest=read_manifest(path).digest)
    if path.is_dir():
        return Parent(path=path.as_posix(), digest=digest_folder(path))
    try:
        return Parent(path=path.as_posix(), digest=digest_file(path))
    except OSError as error:
        raise ArtifactError(
            f"{path} cannot be read: {error.strerror}.", "It is an input of this stage.", "Check the path."
        ) from error
