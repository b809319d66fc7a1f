"""`index.json`: how many pictures, rows and questions a corpus holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stages.artifacts.errors import DataError

INDEX_FILE = "index.json"


@dataclass(frozen=True)
class SplitCount:
    """Counts of one split; `questions` per task."""

    pictures: int
    rows: int
    questions: Mapping[str, int]


@dataclass(frozen=True)
class CorpusIndex:
    """Counts per split."""

    splits: Mapping[str, SplitCount]

    def as_dict(self) -> dict[str, Any]:
        """`{"splits": {name: {"pictures", "rows", "questions"}}}`."""
        return {"splits": {name: asdict(count) for name, count in self.splits.items()}}

    def write(self, folder: Path) -> None:
        """Writes `index.json` into a corpus."""
        text = json.dumps(self.as_dict(), indent=2, ensure_ascii=False)
        (folder / INDEX_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> CorpusIndex:
        """Reads the index of a corpus.

        Raises:
            DataError: it is missing or not an index.
        """
        path = folder / INDEX_FILE
        try:
            splits = json.loads(path.read_text(encoding="utf-8"))["splits"]
            return cls({name: SplitCount(**count) for name, count in splits.items()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path} is no index of a corpus: {error}.",
                "It says what the corpus holds.",
                "Make the corpus again with bluelm data.",
            ) from error
