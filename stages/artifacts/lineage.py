"""What an artifact is and where it came from, and how two differ: what `bluelm info` shows."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.artifacts.errors import ArtifactError
from stages.artifacts.kinds import KINDS
from stages.artifacts.manifest import MANIFEST_FILE, Manifest, Parent, parent_of, read_manifest

_ABSENT = "–"


@dataclass(frozen=True)
class Ancestor:
    """One step of a lineage. `state` says whether the parent on disk is still the one that was used."""

    depth: int
    path: str
    kind: str
    digest: str
    state: str


@dataclass(frozen=True)
class Difference:
    """One value in which two artifacts differ."""

    name: str
    first: Any
    second: Any


def read_any(path: Path) -> Manifest:
    """Reads the manifest of an artifact of any kind.

    Raises:
        ArtifactError: the folder is missing or is no artifact.
    """
    if not (path / MANIFEST_FILE).is_file():
        state = "holds no " + MANIFEST_FILE if path.is_dir() else "is a file" if path.exists() else "does not exist"
        raise ArtifactError(
            f"{path} {state}.",
            "Only artifacts of bluelm have a kind and a lineage.",
            "Give a folder that a bluelm command wrote (kinds: " + ", ".join(KINDS) + ").",
        )
    return read_manifest(path)


def lineage(manifest: Manifest, folder: Path, depth: int = 1) -> list[Ancestor]:
    """The parents of an artifact and theirs, as far as they are still on disk, nearest first.

    Args:
        manifest: the artifact's manifest.
        folder: where the artifact lies; a parent that a relative path does not lead to from the current folder is
            looked for beside it and further up.
        depth: the depth given to its parents.
    """
    steps: list[Ancestor] = []
    for parent in manifest.parents:
        path = _find(parent, folder)
        found, state = _look(path, parent)
        steps.append(Ancestor(depth, parent.path, found.kind if found else _ABSENT, parent.digest, state))
        # A parent that changed has other parents than the one that was used.
        if found is not None and found.digest == parent.digest:
            steps.extend(lineage(found, path, depth + 1))
    return steps


def _look(path: Path, parent: Parent) -> tuple[Manifest | None, str]:
    """What lies where a parent was, and whether it is still the one that was used."""
    if not (path / MANIFEST_FILE).is_file():
        return None, "an input that is no artifact" if path.exists() else "not on disk"
    try:
        found = read_manifest(path)
    except ArtifactError:
        return None, "damaged"
    return found, "unchanged" if found.digest == parent.digest else "changed since"


def _find(parent: Parent, folder: Path) -> Path:
    """Where a parent lies: at its path or, for a relative one, below the nearest folder that holds the very same."""
    path = Path(parent.path)
    if path.is_absolute() or path.exists():
        return path
    for above in Path(os.path.abspath(folder)).parents:  # noqa: PTH100  (as the path was written, links and all)
        if _is_the_same(above / path, parent):
            return above / path
    return path


def _is_the_same(path: Path, parent: Parent) -> bool:
    """Whether an artifact or a file is a parent; never a plain folder, whose digest would read all that it holds."""
    try:
        known = path.is_file() or (path / MANIFEST_FILE).is_file()
        return known and parent_of(path).digest == parent.digest
    except (OSError, ArtifactError):
        return False


def differences(first: Manifest, second: Manifest) -> list[Difference]:
    """Every value in which two manifests differ: configuration, inputs, versions, files and metrics."""
    left, right = _flatten(_content(first)), _flatten(_content(second))
    return [
        Difference(name, left.get(name, _ABSENT), right.get(name, _ABSENT))
        for name in sorted(left.keys() | right.keys())
        if left.get(name, _ABSENT) != right.get(name, _ABSENT)
    ]


def _content(manifest: Manifest) -> dict[str, Any]:
    content = manifest.model_dump(mode="json")
    content["parents"] = {str(index): parent.digest for index, parent in enumerate(manifest.parents)}
    content["files"] = {name: entry.sha256 for name, entry in manifest.files.items()}
    return content


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat.update(_flatten(inner, f"{prefix}.{key}" if prefix else str(key)))
    return flat
