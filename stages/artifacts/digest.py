"""Content digests: of files, of folders, of plain data."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20


def digest_file(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def digest_json(value: Any) -> str:
    """sha256 of a value's canonical JSON (sorted keys, no spaces), in hex.

    The bytes of a file name that are not UTF-8 (surrogates, in Python) are hashed as they are.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def digest_folder(path: Path) -> str:
    """sha256 over the names and contents of all visible files below a folder, in hex."""
    files = sorted(entry for entry in path.rglob("*") if entry.is_file() and not _hidden(entry, path))
    return digest_json([[entry.relative_to(path).as_posix(), digest_file(entry)] for entry in files])


def _hidden(entry: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in entry.relative_to(root).parts)
