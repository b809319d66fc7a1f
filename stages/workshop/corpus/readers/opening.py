"""Any conversation data as a source of rows: what an input is, is seen in its content, never in its name alone.

    source = open_rows(Path("data/llava_v1_5_mix665k.json"), images=Path("data/images"))
    for row in source: ...                       # Row or BadRow, lazily
    rows = all_rows(source)                      # all of them, or one error that tells every problem
    for row in source.part(rank, ranks): ...     # a rank's share

A corpus artifact gives its split "train" unless another is asked for.
"""

from __future__ import annotations

from pathlib import Path

from stages.artifacts.errors import DataError, UsageError
from stages.artifacts.folder import open_artifact
from stages.artifacts.manifest import MANIFEST_FILE
from stages.workshop.corpus.index import INDEX_FILE, CorpusIndex
from stages.workshop.corpus.readers.llava import LlavaSource
from stages.workshop.corpus.readers.source import RowSource

FORMATS = ("corpus", "llava")
TRAIN = "train"


def open_rows(path: Path, format: str | None = None, images: Path | None = None, split: str = TRAIN) -> RowSource:
    """Opens conversation data; reads no row yet.

    Args:
        path: a corpus folder, a LLaVA JSON or JSON lines.
        format: one of `FORMATS`; seen in the content where None.
        images: the folder that names of pictures are relative to, where it is not the data's own.
        split: which split of an input that has several.

    Raises:
        DataError: nothing is there, or its format is unclear.
        ArtifactError: an artifact that is no corpus, or a damaged one.
        UsageError: a format that does not exist.
    """
    if format is not None and format not in FORMATS:
        raise UsageError(
            f"There is no format {format!r}.", "Rows cannot be read.", "Formats: " + ", ".join(FORMATS) + "."
        )
    found = format or detect(path)
    if found == "corpus":
        return _open_corpus(path, images, split)
    return LlavaSource(path, found, (path,), images or path.parent)


def detect(path: Path) -> str:
    """The format of an input.

    Raises:
        DataError: nothing is there, or it is unclear.
    """
    if not path.exists():
        raise DataError(f"{path} cannot be read: No such file or directory.", "It holds the rows.", "Check the path.")
    if (path / MANIFEST_FILE).is_file() or (path / f"{TRAIN}.json").is_file():
        return "corpus"
    if path.is_dir():
        raise _unclear(path, "a folder that is no corpus")
    return "llava"


def _open_corpus(path: Path, images: Path | None, split: str) -> RowSource:
    if (path / MANIFEST_FILE).is_file():
        open_artifact(path, "corpus")
    file = path / f"{split}.json"
    if not file.is_file():
        there = ", ".join(sorted(entry.stem for entry in path.glob("*.json") if not _is_ours(entry))) or "none"
        raise DataError(f"{file} does not exist.", "It holds the rows.", f"Splits of this corpus: {there}.")
    if not (path / INDEX_FILE).is_file():
        return LlavaSource(path, "corpus", (file,), images or path)
    index = CorpusIndex.read(path)
    rows = index.splits[split].rows if split in index.splits else None
    return LlavaSource(path, "corpus", (file,), images or path, index.roots(path, images), rows)


def _is_ours(file: Path) -> bool:
    return file.name in (MANIFEST_FILE, INDEX_FILE, "run.json", "report.json")


def _unclear(path: Path, what: str) -> DataError:
    return DataError(
        f"{path} is {what}.", "Its rows cannot be read before its format is known.", "Name it with --format."
    )
