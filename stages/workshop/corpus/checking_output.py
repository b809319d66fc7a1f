"""The files that a check writes: a corpus of the rows that stay, the rows that do not with the reason, and a report."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from stages.workshop.corpus.checking import Finding
from stages.workshop.corpus.checking_report import CheckReport
from stages.workshop.corpus.copied import roots_or_copies
from stages.workshop.corpus.index import CorpusIndex
from stages.workshop.corpus.llava import LlavaWriter
from stages.workshop.corpus.row import BadRow, Problem, Row, printable

REPORT_FILE = "report.json"
DROPPED_FILE = "dropped.jsonl"
FINDINGS_FILE = "findings-{split}.jsonl"


class CleanCorpus:
    """Writes a cleaned corpus into a folder, row by row.

    Args:
        folder: where to.
        copy_pictures: copy pictures into it, each once; otherwise rows name them where they lie.
    """

    def __init__(self, folder: Path, copy_pictures: bool) -> None:
        self._folder = folder
        self._refer, self._roots = roots_or_copies(folder, copy_pictures)
        self.report = CheckReport()
        (folder / DROPPED_FILE).write_bytes(b"")

    def write(self, split: str, found: Iterable[tuple[Row | BadRow, Finding]]) -> Iterator[int]:
        """Writes a split; yields the number of rows so far.

        Raises:
            ImageError: a picture that could be read a moment ago cannot be copied.
        """
        # A picture's name may hold any bytes; the line that tells of it must not fail.
        dropped = (self._folder / DROPPED_FILE).open("a", encoding="utf-8", errors="backslashreplace")
        with dropped, LlavaWriter(self._folder / f"{split}.json", self._refer) as kept:
            for number, (row, finding) in enumerate(found, start=1):
                reasons = self.report.take(split, row, finding)
                if reasons or isinstance(row, BadRow):
                    dropped.write(_dropped(split, row, reasons))
                else:
                    kept.write(row)
                yield number

    def finish(self) -> CorpusIndex:
        """Writes the report and the index."""
        text = json.dumps(self.report.as_dict(), indent=2, ensure_ascii=False)
        (self._folder / REPORT_FILE).write_text(text + "\n", encoding="utf-8")
        counts = {name: tally.count() for name, tally in self.report.splits.items()}
        index = CorpusIndex(counts, self._roots.folders)
        index.write(self._folder)
        return index


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
