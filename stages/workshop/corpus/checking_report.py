"""What came of a set: how many rows have each kind of problem, the first of them by name, and repeated rows.

Of every row only digests of 16 bytes are kept, so that memory grows by about 200 bytes a row and not with its content.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from stages.workshop.corpus.checking import KINDS, REPORTED, Finding
from stages.workshop.corpus.index import SplitCount
from stages.workshop.corpus.row import BadRow, Problem, Row, printable

_NAMED = 5
_DIGEST_BYTES = 16
_LONGEST_ID = 200


@dataclass
class KindCount:
    """Rows with one kind of problem: how many, and the first of them as (split, id or place, what is wrong)."""

    rows: int = 0
    first: list[tuple[str, str, str]] = field(default_factory=list)


@dataclass
class SplitTally:
    """Rows of one split, and what the kept ones hold."""

    rows: int = 0
    kept: int = 0
    questions: Counter[str] = field(default_factory=Counter)
    pictures: set[bytes] = field(default_factory=set)
    tokens: int = 0
    longest: int = 0

    def count(self) -> SplitCount:
        """The split's line of a corpus index."""
        return SplitCount(len(self.pictures), self.kept, dict(sorted(self.questions.items())))


class CheckReport:
    """Takes every row with what was found, and decides which stay."""

    def __init__(self) -> None:
        self.kinds: dict[str, KindCount] = {}
        self.splits: dict[str, SplitTally] = {}
        # Digest of pictures and texts -> split and id of the first row that has them.
        self._rows: dict[bytes, str] = {}
        self._pictures: set[bytes] = set()

    def take(self, split: str, row: Row | BadRow, finding: Finding) -> tuple[Problem, ...]:
        """Counts a row.

        Returns:
            Why the row is left out; nothing where it is kept.
        """
        problems = list(finding.problems)
        if not problems and isinstance(row, Row):
            problems += self._repeated(split, row, finding)
        tally = self.splits.setdefault(split, SplitTally())
        tally.rows += 1
        name = (row.name or str(row.place)) if isinstance(row, BadRow) else row.name
        for kind in dict.fromkeys(problem.kind for problem in problems):
            count = self.kinds.setdefault(kind, KindCount())
            count.rows += 1
            if len(count.first) < _NAMED:
                text = "; ".join(problem.text for problem in problems if problem.kind == kind)
                count.first.append((split, printable(name), printable(text, _LONGEST_ID)))
        reasons = tuple(problem for problem in problems if problem.kind not in REPORTED)
        if not reasons and isinstance(row, Row):
            self._keep(tally, row, finding)
        return reasons

    def _repeated(self, split: str, row: Row, finding: Finding) -> list[Problem]:
        pictures = _digest(finding.pictures)
        said = [part for turn in row.turns for part in (turn.role, turn.text)]
        # Copies that a mixture numbers are meant; the same number twice is not.
        whole = _digest([*finding.pictures, *said, str(row.repeat)])
        first = self._rows.get(whole)
        if first is not None:
            return [Problem("duplicate", f"it says what {first} says")]
        self._rows[whole] = f"{split} {printable(row.name)}"
        if not finding.pictures or row.repeat > 1:
            return []
        seen = pictures in self._pictures
        self._pictures.add(pictures)
        return [Problem("same-pictures", "an earlier row has the same pictures and other texts")] if seen else []

    @staticmethod
    def _keep(tally: SplitTally, row: Row, finding: Finding) -> None:
        tally.kept += 1
        tally.questions.update(row.tasks)
        tally.pictures.update(bytes.fromhex(digest)[:_DIGEST_BYTES] for digest in finding.pictures)
        tally.tokens += finding.tokens or 0
        tally.longest = max(tally.longest, finding.tokens or 0)

    @property
    def rows(self) -> int:
        """Rows read."""
        return sum(tally.rows for tally in self.splits.values())

    @property
    def kept(self) -> int:
        """Rows that stay."""
        return sum(tally.kept for tally in self.splits.values())

    def as_dict(self) -> dict[str, Any]:
        """Counts per split and per kind, in the order of `KINDS`."""
        return {
            "rows": self.rows,
            "kept": self.kept,
            "dropped": self.rows - self.kept,
            "splits": {
                name: {
                    "rows": tally.rows,
                    "kept": tally.kept,
                    "pictures": len(tally.pictures),
                    "tokens": tally.tokens,
                    "longest": tally.longest,
                }
                for name, tally in self.splits.items()
            },
            "problems": {
                kind: {
                    "what": KINDS[kind],
                    "rows": self.kinds[kind].rows,
                    "dropped": kind not in REPORTED,
                    "first": [
                        {"split": split, "row": name, "problem": text} for split, name, text in self.kinds[kind].first
                    ],
                }
                for kind in KINDS
                if kind in self.kinds
            },
        }


def _digest(parts: Sequence[str]) -> bytes:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        data = part.encode("utf-8")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.digest()
