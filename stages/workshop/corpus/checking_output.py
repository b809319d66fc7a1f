"""The files that a check writes: a corpus of the rows that stay, the rows that do not with the reason, and a report."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from stages.device.imaging.sources import PICTURE_SUFFIXES
from stages.workshop.corpus.checking import Finding
from stages.workshop.corpus.checking_report import CheckReport
from stages.workshop.corpus.index import CorpusIndex, PictureRoots
from stages.workshop.corpus.llava import LlavaWriter, by_name
from stages.workshop.corpus.picture import Picture, PictureFile
from stages.workshop.corpus.row import BadRow, Problem, Row, printable

REPORT_FILE = "report.json"
DROPPED_FILE = "dropped.jsonl"
FINDINGS_FILE = "findings-{split}.jsonl"
IMAGES = "images"
# First bytes of the formats that cells of tables, which have no file name, mostly hold.
_MAGIC = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"GIF8": ".gif", b"RIFF": ".webp"}


class CleanCorpus:
    """Writes a cleaned corpus into a folder, row by row.

    Args:
        folder: where to.
        copy_pictures: copy pictures into it, each once; otherwise rows name them where they lie.
    """

    def __init__(self, folder: Path, copy_pictures: bool) -> None:
        self._folder, self._copy = folder, copy_pictures
        self._roots = PictureRoots()
        self.report = CheckReport()
        (folder / DROPPED_FILE).write_bytes(b"")

    def write(self, split: str, found: Iterable[tuple[Row | BadRow, Finding]]) -> Iterator[int]:
        """Writes a split; yields the number of rows so far.

        Raises:
            ImageError: a picture that could be read a moment ago cannot be copied.
        """
        refer = by_name if self._copy else self._roots.refer
        # A picture's name may hold any bytes; the line that tells of it must not fail.
        dropped = (self._folder / DROPPED_FILE).open("a", encoding="utf-8", errors="backslashreplace")
        with dropped, LlavaWriter(self._folder / f"{split}.json", refer) as kept:
            for number, (row, finding) in enumerate(found, start=1):
                reasons = self.report.take(split, row, finding)
                if reasons or isinstance(row, BadRow):
                    dropped.write(_dropped(split, row, reasons))
                else:
                    kept.write(self._with_copies(row, finding) if self._copy else row)
                yield number

    def finish(self) -> CorpusIndex:
        """Writes the report and the index."""
        text = json.dumps(self.report.as_dict(), indent=2, ensure_ascii=False)
        (self._folder / REPORT_FILE).write_text(text + "\n", encoding="utf-8")
        counts = {name: tally.count() for name, tally in self.report.splits.items()}
        index = CorpusIndex(counts, self._roots.folders)
        index.write(self._folder)
        return index

    def _with_copies(self, row: Row, finding: Finding) -> Row:
        pairs = zip(row.pictures, finding.pictures, strict=True)
        return replace(row, pictures=tuple(self._copied(picture, digest) for picture, digest in pairs))

    def _copied(self, picture: Picture, digest: str) -> PictureFile:
        """The picture under the name of its content: the same picture is there once, whatever it was called."""
        suffix = PurePosixPath(picture.name).suffix.lower()
        data: bytes | None = None
        if suffix not in PICTURE_SUFFIXES:
            data = picture.read()
            suffix = next((suffix for magic, suffix in _MAGIC.items() if data.startswith(magic)), ".png")
        name = f"{IMAGES}/{digest[:2]}/{digest[:32]}{suffix}"
        path = self._folder / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".{path.name}.partial")
            partial.write_bytes(picture.read() if data is None else data)
            partial.replace(path)
        return PictureFile(self._folder, name)


def _dropped(split: str, row: Row | BadRow, reasons: tuple[Problem, ...]) -> str:
    """A line about a row that was left out: where it stands, and every reason."""
    content = {
        "split": split,
        "file": row.place.file.as_posix(),
        row.place.unit: row.place.number,
        "id": row.name,
        "problems": [{"kind": reason.kind, "text": printable(reason.text, None)} for reason in reasons],
    }
    return json.dumps(content, ensure_ascii=False) + "\n"
