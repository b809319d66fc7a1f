"""Rows of the files that benchmarks come in, and the pictures inside them.

    .json      a list of rows; an object of lists (`data`, `questions`, `annotations`); or an object of rows by name
    .jsonl     a row a line
    .tsv       VLMEvalKit's: pictures in base64, or the `index` of an earlier row with the same one
    .parquet   the Hugging Face hub's: pictures as {"bytes", "path"}

A picture is a file beside the data (or below --images), or bytes, which are written into a folder of the run.
"""

from __future__ import annotations

import base64
import binascii
import csv
import hashlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stages.artifacts.errors import DataError
from stages.artifacts.plain_json import parse_json

Row = Mapping[str, Any]
_FIX = "Give the benchmark's own file: .json, .jsonl, .tsv or .parquet."
_LISTS = ("data", "questions", "annotations", "rows")
# Shorter text is a file's name or another row's index; a picture in base64 is longer.
_SHORTEST_BASE64 = 200
_BATCH_ROWS = 256


def read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """The rows of a file with their numbers, from 1. Rows of an object by name get that name as `id`.

    Raises:
        DataError: the file is missing, of an unknown form, or broken; the message has the row.
    """
    readers = {".json": _json_rows, ".jsonl": _line_rows, ".tsv": _tsv_rows, ".parquet": _parquet_rows}
    read = readers.get(path.suffix.lower())
    if read is None:
        raise DataError(f"{path} ends with {path.suffix!r}.", "Its rows cannot be read.", _FIX)
    if not path.is_file():
        raise DataError(f"{path} does not exist.", "Its questions are what the model is measured on.", _FIX)
    try:
        for number, row in enumerate(read(path), start=1):
            if not isinstance(row, Mapping):
                raise DataError(f"{path}, row {number}: {type(row).__name__} instead of an object.", "No fields.", _FIX)
            yield number, row
    except (OSError, UnicodeDecodeError, ValueError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}.", "Its questions cannot be asked.", _FIX) from error


class RowPictures:
    """Finds or writes the pictures of rows.

    Args:
        data: the file the rows came from.
        images: where pictures lie, if not beside it.
        scratch: where pictures inside rows are written, each under its digest.
    """

    def __init__(self, data: Path, images: Path | None, scratch: Path) -> None:
        self._data, self._roots, self._scratch = data, [images] if images else [data.parent], scratch
        self._by_index: dict[str, tuple[Path, ...]] = {}

    def of(self, row: Row, number: int, *fields: str, name: str | None = None) -> tuple[Path, ...]:
        """The pictures of a row's fields, in their order.

        Args:
            row: the row.
            number: its place, for messages.
            fields: where pictures stand; missing ones are passed over.
            name: a file's name that the row implies, where no field holds one.

        Raises:
            DataError: a file is missing, or a field holds no picture.
        """
        found: list[Path] = []
        for field in fields:
            if row.get(field) not in (None, "", []):
                found += self._found(row[field], number)
        if not found and name is not None:
            found = [self._file(name, number)]
        if "index" in row:
            self._by_index[str(row["index"])] = tuple(found)
        return tuple(found)

    def _found(self, value: Any, number: int) -> list[Path]:
        if isinstance(value, list):
            return [path for one in value for path in self._found(one, number)]
        if isinstance(value, Mapping):
            if value.get("bytes"):
                return [self._written(bytes(value["bytes"]))]
            value = value.get("path")
        if isinstance(value, bytes):
            return [self._written(value)]
        text = str(value).strip()
        if text in self._by_index:
            return list(self._by_index[text])
        if text.startswith("["):
            return self._found(_listed(text), number)
        if len(text) >= _SHORTEST_BASE64:
            try:
                return [self._written(base64.b64decode(text, validate=True))]
            except (binascii.Error, ValueError) as error:
                raise self._refused(number, f"its picture is no base64: {error}") from error
        return [self._file(text, number)]

    def _file(self, name: str, number: int) -> Path:
        for root in self._roots:
            for candidate in (root / name, root / Path(name).name):
                if candidate.is_file():
                    return candidate
        raise self._refused(number, f"the picture {name!r} is not below {', '.join(map(str, self._roots))}")

    def _written(self, content: bytes) -> Path:
        path = self._scratch / hashlib.sha256(content).hexdigest()[:32]
        if not path.exists():
            path.write_bytes(content)
        return path

    def _refused(self, number: int, what: str) -> DataError:
        return DataError(
            f"{self._data}, row {number}: {what}.",
            "The question cannot be asked without it.",
            "Say where the pictures lie with --images FOLDER.",
        )


def _json_rows(path: Path) -> Iterator[Any]:
    whole = parse_json(path.read_text(encoding="utf-8-sig"))
    if isinstance(whole, Mapping):
        for name in _LISTS:
            if isinstance(whole.get(name), list):
                yield from whole[name]
                return
        for name, row in whole.items():
            yield {"id": name, **row} if isinstance(row, Mapping) else row
        return
    yield from whole


def _line_rows(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8-sig") as file:
        yield from (parse_json(line) for line in file if line.strip())


def _tsv_rows(path: Path) -> Iterator[Any]:
    before = csv.field_size_limit(sys.maxsize)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                # pandas writes nothing, or "nan", where there is nothing.
                yield {key: value for key, value in row.items() if key and value not in (None, "", "nan")}
    finally:
        csv.field_size_limit(before)


def _parquet_rows(path: Path) -> Iterator[Any]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            yield from batch.to_pylist()


def _listed(text: str) -> list[Any]:
    """A list as JSON or as Python writes it; a text that only looks like one is one name."""
    for quoted in (text, text.replace("'", '"')):
        try:
            value = parse_json(quoted)
        except ValueError:
            continue
        if isinstance(value, list):
            return value
    return [text.strip("[]")]
