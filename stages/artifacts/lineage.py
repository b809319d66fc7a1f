"""What an artifact is and where it came from, and how two differ: what `bluelm info` shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.artifacts.errors import ArtifactError
from stages.artifacts.kinds import KINDS
from stages.artifacts.manifest import MANIFEST_FILE, Manifest, read_manifest

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


def lineage(manifest: Manifest, depth: int = 1) -> list[Ancestor]:
    """The parents of an artifact and theirs, as far as they are still on disk, nearest first."""
    steps: list[Ancestor] = []
    for parent in manifest.parents:
        path = Path(parent.path)
        found = read_manifest(path) if (path / MANIFEST_FILE).is_file() else None
        if found is None:
            state = "an input that is no artifact" if path.exists() else "not on disk"
        else:
            state = "unchanged" if found.digest == parent.digest else "changed since"
        steps.append(Ancestor(depth, parent.path, found.kind if found else _ABSENT, parent.digest, state))
        if found is not None:
            steps.extend(lineage(found, depth + 1))
    return steps


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
