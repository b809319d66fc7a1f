"""WebDataset: tar files whose members with the same name up to the first dot are one sample.

A sample has pictures (any suffix of `PICTURE_SUFFIXES`; several as `KEY.0.jpg`, `KEY.1.jpg`, in their order in the tar)
and either KEY.json, a row as `conversation` reads it, or KEY.txt (or the json's `caption` or `text`): then the picture
stands alone as the question and the text is the answer. Other members, pickles among them, are never read. Nothing is
extracted: pictures are read where they lie in the tar. Source of the layout: the WebDataset format's description.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from stages.artifacts.errors import DataError
from stages.artifacts.json_items import BrokenItem, json_value
from stages.artifacts.llava_rows import IMAGE_MARK, Problem, wrong_text
from stages.device.imaging.sources import PICTURE_SUFFIXES
from stages.workshop.corpus.picture import Picture, PictureInTar
from stages.workshop.corpus.readers.conversation import PICTURE_KEYS, TEXT_KEYS, read_conversation
from stages.workshop.corpus.readers.source import RowSource
from stages.workshop.corpus.row import BadRow, Place, Row

_TEXT_SUFFIXES = (".json", ".txt")
_CAPTIONS = ("caption", "text")
# What claims more is no text of a row, and no picture.
_LONGEST_TEXT = 16 * 2**20
_LARGEST_PICTURE = 2**30


@dataclass
class _Sample:
    """Members of one key."""

    key: str
    pictures: list[Picture] = field(default_factory=list)
    texts: dict[str, bytes] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class WebDatasetSource(RowSource):
    """Rows of tar files."""

    def read(self, shard: Path) -> Iterator[Row | BadRow]:
        number = -1
        try:
            with shard.open("rb") as stream:
                for number, sample in enumerate(self._samples(shard, stream)):
                    yield _row(sample, Place(shard, number, "sample"))
        except (tarfile.TarError, EOFError) as error:
            what = f"the tar breaks off here: {error}; what follows cannot be read"
            yield BadRow(Place(shard, number + 1, "sample"), (Problem("shard", what),))
        except OSError as error:
            raise DataError(
                f"{shard} cannot be read: {error.strerror}.", "It is an input.", "Check its path and rights."
            ) from error

    def _samples(self, shard: Path, stream: BinaryIO) -> Iterator[_Sample]:
        folder = self.folder
        name = shard.relative_to(folder).as_posix()
        sample: _Sample | None = None
        # "r:" reads no compressed tar: the place of a picture in one is unknown, and its size a promise.
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # else all of them are kept
                key, suffix = _split(member.name)
                if member.isdir() or not key:
                    continue
                if sample is None or sample.key != key:
                    if sample is not None:
                        yield sample
                    sample = _Sample(key)
                problem = _wrong(member)
                if problem is not None:
                    sample.problems.append(problem)
                elif suffix in PICTURE_SUFFIXES:
                    sample.pictures.append(PictureInTar(folder, name, member.name, member.offset_data, member.size))
                elif suffix in _TEXT_SUFFIXES:
                    sample.texts[suffix] = _content(stream, member)
            end = tar.offset
        if sample is not None:
            yield sample
        _check_end(stream, end)


def picture_members(folder: Path, shard: Path) -> Iterator[Picture | Problem]:
    """Every picture of a tar, whatever lies beside it, and what is wrong with members and with the tar.

    Args:
        folder: what the shard's name is relative to.
        shard: the tar file.

    Raises:
        DataError: it cannot be read.
    """
    name = shard.relative_to(folder).as_posix()
    try:
        with shard.open("rb") as stream:
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    tar.members.clear()  # type: ignore[attr-defined]
                    key, suffix = _split(member.name)
                    if not member.isdir() and key and suffix in PICTURE_SUFFIXES:
                        place = member.name, member.offset_data, member.size
                        yield _wrong(member) or PictureInTar(folder, name, *place)
                end = tar.offset
            _check_end(stream, end)
    except (tarfile.TarError, EOFError) as error:
        yield Problem("shard", f"the tar breaks off: {error}; what follows cannot be read")
    except OSError as error:
        raise DataError(
            f"{shard} cannot be read: {error.strerror}.", "It is an input.", "Check its path and rights."
        ) from error


def _check_end(stream: BinaryIO, end: int) -> None:
    """Raises: TarError: a tar ends without its mark."""
    stream.seek(end)
    mark = stream.read(tarfile.BLOCKSIZE)
    if mark != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("no end mark" if not mark else "no header where one must be")


def _split(name: str) -> tuple[str, str]:
    """A member's key (folders and the name up to its first dot) and the last of its suffixes."""
    path = PurePosixPath(name)
    base, _, rest = path.name.partition(".")
    # A name that begins with a dot (macOS puts such beside every file) belongs to no sample.
    return (str(path.parent / base), f".{rest.rpartition('.')[2].lower()}") if base else ("", "")


def _wrong(member: tarfile.TarInfo) -> Problem | None:
    """Why a member is not to be touched."""
    if member.name.startswith("/") or ".." in PurePosixPath(member.name).parts:
        return Problem("outside", f"the member {member.name!r} leads out of the tar")
    if wrong_text(member.name) is not None:
        return Problem("form", f"the name of the member {member.name!r} is not UTF-8")
    if not member.isreg() or member.issparse():
        return Problem("form", f"the member {member.name!r} is no plain file")
    is_text = PurePosixPath(member.name).suffix.lower() in _TEXT_SUFFIXES
    most = _LONGEST_TEXT if is_text else _LARGEST_PICTURE
    if member.size > most:
        return Problem("form", f"the member {member.name!r} has {member.size:,} bytes, more than {most:,}")
    return None


def _content(stream: BinaryIO, member: tarfile.TarInfo) -> bytes:
    """A member's bytes, read beside the tar reader, which seeks to its own place afterwards."""
    stream.seek(member.offset_data)
    return stream.read(member.size)


def _row(sample: _Sample, place: Place) -> Row | BadRow:
    if sample.problems:
        return BadRow(place, tuple(sample.problems), sample.key)
    item = _item(sample)
    if isinstance(item, Problem):
        return BadRow(place, (item,), sample.key)
    row = read_conversation(item, place, lambda given: Problem("form", f"the sample lacks its picture {given!r}"))
    return BadRow(place, row.problems, sample.key) if isinstance(row, BadRow) else row


def _item(sample: _Sample) -> dict[str, Any] | Problem:
    """The sample as a row: its json's text, or its caption, with its own pictures."""
    own: dict[str, Any] = {"id": sample.key}
    if sample.pictures:
        own["images"] = sample.pictures
    caption: Any = None
    if ".json" in sample.texts:
        content = json_value(sample.texts[".json"])
        if isinstance(content, BrokenItem):
            return Problem("json", f"its json: {content.what}")
        if not isinstance(content, Mapping):
            return Problem("form", f"its json holds a {type(content).__name__}, not an object")
        kept = {key: value for key, value in content.items() if key not in PICTURE_KEYS or not sample.pictures}
        if any(content.get(key) is not None for key in TEXT_KEYS):
            return kept | own
        caption = next((content[key] for key in _CAPTIONS if isinstance(content.get(key), str)), None)
    if ".txt" in sample.texts:
        try:
            caption = sample.texts[".txt"].decode("utf-8-sig")
        except UnicodeDecodeError as error:
            return Problem("form", f"its txt is not UTF-8: {error.reason} at byte {error.start}")
    if caption is None:
        return Problem("form", "it has neither a json with a conversation or caption nor a txt")
    if not sample.pictures:
        return Problem("form", "it has a caption and no picture")
    question = "\n".join([IMAGE_MARK] * len(sample.pictures))
    # A caption says what it says: a mark in it is text, and would be one too many.
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": caption.strip()}]
    return own | {"messages": turns}
