"""`index.json`: how many pictures, rows and questions a corpus holds, and where pictures lie that are not its own.

A corpus that refers to pictures in place writes its rows with `PictureRoots.refer` (`write_llava(path, rows,
refer=roots.refer)`) and then its index with `CorpusIndex(splits, roots.folders)`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stages.artifacts.errors import DataError
from stages.artifacts.manifest import check_name
from stages.artifacts.picture_roots import INDEX_FILE
from stages.artifacts.plain_json import parse_json
from stages.workshop.corpus.picture import Picture, PictureFile, PictureInTable, PictureInTar


@dataclass(frozen=True)
class SplitCount:
    """Counts of one split; `questions` per task."""

    pictures: int
    rows: int
    questions: Mapping[str, int]


class PictureRoots:
    """Numbers the folders that pictures lie in, as they come, and names pictures by number and name.

    Attributes:
        folders: absolute, by their numbers.
    """

    def __init__(self) -> None:
        self.folders: list[Path] = []
        self._numbers: dict[Path, int] = {}

    def refer(self, picture: Picture) -> str | dict[str, Any]:
        """How a row of a corpus names a picture in place: see `stages.artifacts.llava_rows`.

        Raises:
            TypeError: a picture that no corpus can name.
            ArtifactError: its folder's name is not UTF-8.
        """
        root = self._number(picture.root)
        match picture:
            case PictureFile(name=name):
                return f"{root}:{name}"
            case PictureInTar(shard=shard, member=member, offset=offset, length=length):
                return {"shard": f"{root}:{shard}", "member": member, "offset": offset, "length": length}
            case PictureInTable(shard=shard, column=column, row=row, item=item):
                return {"shard": f"{root}:{shard}", "column": column, "row": row, "item": item}
        raise TypeError(f"no reference to a {type(picture).__name__}")

    def _number(self, root: Path) -> int:
        if root not in self._numbers:
            folder = root.resolve()
            check_name(folder)
            if folder not in self.folders:
                self.folders.append(folder)
            self._numbers[root] = self.folders.index(folder)
        return self._numbers[root]


@dataclass(frozen=True)
class CorpusIndex:
    """Counts per split.

    Attributes:
        splits: counts by name.
        folders: where pictures lie that rows name with a number in front.
    """

    splits: Mapping[str, SplitCount]
    folders: list[Path] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """`{"splits": {name: {"pictures", "rows", "questions"}}}`, with `"roots": [folder]` where there are any."""
        content: dict[str, Any] = {"splits": {name: asdict(count) for name, count in self.splits.items()}}
        if self.folders:
            content["roots"] = [folder.as_posix() for folder in self.folders]
        return content

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
            content = parse_json(path.read_text(encoding="utf-8"))
            splits = {name: SplitCount(**count) for name, count in content.get("splits", {}).items()}
            return cls(splits, [Path(root) for root in content.get("roots", [])])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path} is no index of a corpus: {error}.",
                "It says what the corpus holds.",
                "Make the corpus again with bluelm data.",
            ) from error
