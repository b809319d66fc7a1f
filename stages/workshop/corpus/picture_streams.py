"""The pictures of any input, one after the other, whatever else its rows say: for what needs no conversation.

    for found in open_pictures(path):
        found.name, found.size()        # a picture, as rows have it
        found.what                      # or an `Unusable`: a row or member without a picture where one must be

Pictures come as rows use them: one that three rows name comes three times. Memory is bounded by a few pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.artifacts.errors import DataError
from stages.artifacts.folder import open_artifact
from stages.artifacts.json_items import BrokenItem, json_items, json_layout
from stages.artifacts.llava_rows import read_pictures
from stages.artifacts.manifest import MANIFEST_FILE
from stages.artifacts.picture_roots import read_roots
from stages.device.imaging.sources import PICTURE_SUFFIXES, list_pictures
from stages.workshop.corpus.picture import Picture, PictureBytes, PictureFile
from stages.workshop.corpus.readers.conversation import PICTURE_KEYS
from stages.workshop.corpus.readers.detecting import detect, files_of
from stages.workshop.corpus.readers.llava import LlavaSource
from stages.workshop.corpus.readers.messages import FileFinder
from stages.workshop.corpus.readers.opening import open_rows, splits_of
from stages.workshop.corpus.readers.tables import batches_of, saved_shards, saved_splits, scalars_of
from stages.workshop.corpus.readers.webdataset import picture_members
from stages.workshop.corpus.row import BadRow, Problem

_SHARDS = (".tar", ".parquet", ".arrow")
_WHY = "Its pictures cannot be read."


@dataclass(frozen=True)
class Unusable:
    """What has no picture that can be read, and why, in one sentence."""

    what: str


Found = Picture | Unusable


def open_pictures(path: Path, images: Path | None = None) -> Iterator[Found]:
    """The pictures of a picture, a folder, or any data that rows are read from.

    Args:
        path: the input.
        images: the folder that names of picture files are relative to, where it is not the data's own.

    Raises:
        BluelmError: the input itself cannot be read, or what it is cannot be told.
    """
    match _kind(path):
        case "pictures":
            root = path if path.is_dir() else path.parent
            yield from (PictureFile(root, picture.name) for picture in list_pictures([path]))
        case "datasets":
            for split in saved_splits(path) or ("",):
                folder, shards = saved_shards(path, split)
                yield from _in_tables(folder, shards, images or folder)
        case "parquet":
            yield from _in_tables(_folder(path), files_of(path, "parquet"), images or _folder(path))
        case "webdataset":
            for shard in files_of(path, "webdataset"):
                yield from _in_tar(_folder(path), shard)
        case "llava":
            for file in files_of(path, "llava"):
                yield from _in_llava(file, images)
        case _:
            for split in splits_of(path):
                yield from _in_rows(path, images, split)


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _kind(path: Path) -> str:
    """A format of `detect`, or "pictures": also a folder that holds pictures beside rows of JSON."""
    if not path.is_dir():
        return detect(path) if path.suffix.lower() in (*_SHARDS, ".json", ".jsonl") else "pictures"
    if (path / MANIFEST_FILE).is_file():
        open_artifact(path, "corpus")
    pictures = any(_any_file(path, suffix) for suffix in PICTURE_SUFFIXES)
    try:
        kind = detect(path)
    except DataError:
        if any(_any_file(path, suffix) for suffix in _SHARDS):
            raise
        return "pictures"
    if kind in ("parquet", "webdataset") and pictures:
        raise DataError(f"{path} holds shards and pictures.", "Which are meant is unclear.", "Name one of them.")
    return "pictures" if kind in ("llava", "messages") and pictures else kind


def _any_file(folder: Path, suffix: str) -> bool:
    return next(folder.rglob(f"*{suffix}"), None) is not None


def _in_tar(folder: Path, shard: Path) -> Iterator[Found]:
    for found in picture_members(folder, shard):
        yield Unusable(f"{shard}: {found.text}") if isinstance(found, Problem) else found


def _in_rows(path: Path, images: Path | None, split: str) -> Iterator[Found]:
    for row in open_rows(path, images=images, split=split):
        if isinstance(row, BadRow):
            yield Unusable(row.errors()[0].what.rstrip("."))
        else:
            yield from row.pictures


def _in_llava(file: Path, images: Path | None) -> Iterator[Found]:
    source = LlavaSource(file, "llava", (file,), images or file.parent, read_roots(file.parent))
    layout = json_layout(file)
    for number, item in json_items(file, layout):
        where = f"{file}, {'row' if layout == 'array' else 'line'} {number}"
        if isinstance(item, BrokenItem):
            yield Unusable(f"{where}: {item.what}")
        elif not isinstance(item, Mapping):
            yield Unusable(f"{where}: it is a {type(item).__name__}, not an object")
        else:
            references, problems = read_pictures(item)
            yield from (Unusable(f"{where}: {problem.text}") for problem in problems)
            if not problems:
                yield from (source.picture(reference, file) for reference in references)


def _in_tables(folder: Path, shards: Sequence[Path], root: Path) -> Iterator[Found]:
    """Pictures in the cells of tables, whatever their text columns; a cell with a path alone names a file."""
    import pyarrow as pa

    find = FileFinder(root)
    for shard in shards:
        row = 0
        try:
            for batch in batches_of(shard, _picture_columns):
                for column in batch.schema.names:
                    for index, cell in enumerate(batch.column(column)):
                        name = f"{shard.relative_to(folder).as_posix()}[{row + index}].{column}"
                        yield from _in_cell(cell, name, folder, find)
                row += batch.num_rows
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{shard} cannot be read: {error}.", _WHY, "Get the file again.") from error


def _picture_columns(shard: Path, schema: Any) -> list[str]:
    """Columns by the names that pictures have, else by their type.

    Raises:
        DataError: there is none.
    """
    named = [name for name in schema.names if name in PICTURE_KEYS]
    columns = named or [field.name for field in schema if _holds_bytes(field.type)]
    if not columns:
        raise DataError(
            f"{shard} has the columns {', '.join(schema.names)}.",
            "None is a picture's.",
            f"Name the column {' or '.join(PICTURE_KEYS)}: bytes, or a struct of bytes and path, or a list of them.",
        )
    return columns


def _holds_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" for field in kind)
    return False


def _in_cell(cell: Any, name: str, folder: Path, find: FileFinder) -> Iterator[Found]:
    if not cell.is_valid:
        return
    for item, scalar in enumerate(scalars_of(cell)):
        value = scalar.as_py()
        data = value.get("bytes") if isinstance(value, Mapping) else value
        place = f"{name}[{item}]" if item else name
        if isinstance(data, bytes):
            yield PictureBytes(folder, place, data)
            continue
        found = find(value)
        yield Unusable(f"{place}: {found.text}") if isinstance(found, Problem) else found
