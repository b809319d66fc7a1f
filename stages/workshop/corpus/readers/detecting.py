"""What format an input has, by its content: magic bytes, the keys of its first rows, the files that a folder holds."""

from __future__ import annotations

import itertools
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from stages.artifacts.errors import DataError
from stages.artifacts.json_items import json_items, json_layout
from stages.artifacts.kinds import MADE_BY
from stages.artifacts.manifest import MANIFEST_FILE

Format = Literal["corpus", "llava", "messages", "datasets", "parquet", "webdataset"]
FORMATS: tuple[str, ...] = get_args(Format)
# Suffixes of the files of a format that a folder is searched for.
_SUFFIXES = {"parquet": (".parquet", ".arrow"), "webdataset": (".tar",), "llava": (".json", ".jsonl")}
_PACKED = {b"\x1f\x8b": "gzip", b"PK": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_LOOKED_AT = 100
_FIX = "Name the format with --format: " + ", ".join(FORMATS) + "."


def detect(path: Path) -> Format:
    """The format of an input.

    Raises:
        DataError: nothing is there, or it is unclear.
    """
    try:
        if path.is_dir():
            return _folder(path)
        if path.exists() and not path.is_file():
            # A pipe would be waited for, a device read without end.
            raise DataError(f"{path} is no file.", "It holds the rows to work with.", "Name a file or a folder.")
        with path.open("rb") as stream:
            head = stream.read(tarfile.BLOCKSIZE)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}.", "It holds the rows to work with.", "Check the path."
        ) from error
    if head.startswith((b"PAR1", b"ARROW1", b"\xff\xff\xff\xff")):
        return "parquet"
    if head[257:262] == b"ustar":
        return "webdataset"
    packed = next((name for magic, name in _PACKED.items() if head.startswith(magic)), None)
    if packed is not None:
        raise DataError(
            f"{path} is packed with {packed}.", "Rows and pictures are read at their places in a file.", "Unpack it."
        )
    return rows_of_json(path)


def _folder(path: Path) -> Format:
    if (path / MANIFEST_FILE).is_file() or (path / "train.json").is_file():
        return "corpus"
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return "datasets"
    found = [name for name in ("parquet", "webdataset", "llava") if _search(path, name)]
    if len(found) == 1 and found[0] != "llava":
        return "parquet" if found[0] == "parquet" else "webdataset"
    files = _search(path, "llava") if found == ["llava"] else ()
    kinds = {rows_of_json(file) for file in files}
    if len(kinds) == 1:
        return kinds.pop()
    if not found:
        raise DataError(
            f"{path} holds no corpus and no data file that is known.",
            "There are no rows to read.",
            f"Name the data itself, or make a corpus: {MADE_BY['corpus']}",
        )
    holds = " and ".join(", ".join(_SUFFIXES[name]) for name in found)
    raise DataError(f"{path} holds {holds}.", "What its rows are is unclear.", f"Name one of its files. {_FIX}")


def files_of(path: Path, format: str) -> tuple[Path, ...]:
    """The files that hold the rows of a format: the input itself, or those in the folder.

    Raises:
        DataError: the folder holds none.
    """
    if not path.is_dir():
        return (path,)
    kind = "llava" if format == "messages" else format
    files = _search(path, kind)
    if not files:
        raise DataError(
            f"{path} holds no file with {' or '.join(_SUFFIXES[kind])}.",
            "There are no rows to read.",
            "Check the path.",
        )
    return files


def _search(folder: Path, format: str) -> tuple[Path, ...]:
    deep = folder.glob("*") if format == "llava" else folder.rglob("*")
    return tuple(sorted(file for file in deep if file.suffix in _SUFFIXES[format] and file.is_file()))


def rows_of_json(path: Path) -> Format:
    """LLaVA's rows or messages, by the keys of the first rows; LLaVA's where no row tells: its reader says why.

    Raises:
        DataError: it cannot be read, or holds both.
    """
    layout = json_layout(path)
    kinds = {_row(item) for _, item in itertools.islice(json_items(path, layout), _LOOKED_AT)} - {None}
    if len(kinds) > 1:
        raise DataError(f"{path} holds rows of LLaVA and of messages.", "One reader reads one of them.", _FIX)
    return "messages" if "messages" in kinds else "llava"


def _row(item: Any) -> Literal["llava", "messages"] | None:
    if not isinstance(item, Mapping):
        return None
    if item.get("messages") is not None or item.get("texts") is not None or item.get("images") is not None:
        return "messages"
    turns = item.get("conversations")
    first = turns[0] if isinstance(turns, list) and turns else None
    if not isinstance(first, Mapping):
        return None
    return "messages" if "role" in first and "from" not in first else "llava"
