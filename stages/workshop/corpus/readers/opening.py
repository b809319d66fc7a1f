"""Any conversation data as a source of rows: what an input is, is seen in its content.

    source = open_rows(Path("data/llava_v1_5_mix665k.json"), images=Path("data/images"))
    for row in source: ...                       # Row or BadRow, lazily
    rows = all_rows(source)                      # all of them, or one error that tells every problem
    for row in source.part(rank, ranks): ...     # a rank's share

A corpus, a `DatasetDict` and a folder of parquet files give their split "train" unless another is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stages.artifacts.errors import DataError, UsageError
from stages.artifacts.folder import open_artifact
from stages.artifacts.manifest import MANIFEST_FILE, RUN_FILE
from stages.artifacts.picture_roots import INDEX_FILE, read_roots
from stages.workshop.corpus.index import CorpusIndex
from stages.workshop.corpus.readers.detecting import FORMATS, detect, files_of, rows_of_json
from stages.workshop.corpus.readers.llava import LlavaSource
from stages.workshop.corpus.readers.messages import MessagesSource
from stages.workshop.corpus.readers.source import RowSource
from stages.workshop.corpus.readers.tables import TableSource, count_rows, saved_shards, saved_splits
from stages.workshop.corpus.readers.webdataset import WebDatasetSource

TRAIN = "train"


def open_rows(path: Path, format: str | None = None, images: Path | None = None, split: str = TRAIN) -> RowSource:
    """Opens conversation data; reads no row yet.

    Args:
        path: a file or a folder.
        format: one of `FORMATS`; seen in the content where None.
        images: the folder that names of picture files are relative to, where it is not the data's own.
        split: which split of an input that has several.

    Raises:
        DataError: nothing is there, its format is unclear, it has no such split, or pictures of a corpus were moved.
        ArtifactError: an artifact that is no corpus, or a damaged one.
        UsageError: a format that does not exist.
    """
    if format is not None and format not in FORMATS:
        raise UsageError(
            f"There is no format {format!r}.", "Rows cannot be read.", "Formats: " + ", ".join(FORMATS) + "."
        )
    found: str = format or detect(path)
    root = images or (path if path.is_dir() else path.parent)
    match found:
        case "corpus":
            return _open_corpus(path, images, split)
        case "datasets":
            folder, shards = saved_shards(path, split)
            return TableSource(folder, found, shards, images or folder, count_rows(shards))
        case "parquet":
            shards = _of_split(path, files_of(path, found), split)
            return TableSource(path, found, shards, root, count_rows(shards))
        case "webdataset":
            return WebDatasetSource(path, found, _of_split(path, files_of(path, found), split), root)
    if split != TRAIN:
        raise _no_split(path, split)
    if found == "messages":
        return MessagesSource(path, found, files_of(path, found), root)
    roots = read_roots(path.parent) if path.is_file() else {}
    return LlavaSource(path, found, files_of(path, "llava"), root, roots)


def splits_of(path: Path, format: str | None = None) -> tuple[str, ...]:
    """The splits that an input tells of, "train" first; "train" alone where it tells of none.

    Raises:
        DataError: nothing is there, or its format is unclear.
    """
    found = format or detect(path)
    names: set[str] = set()
    if found == "corpus":
        names = {file.stem for file in path.glob("*.json") if not _is_ours(file)}
        if (path / INDEX_FILE).is_file():
            names &= CorpusIndex.read(path).splits.keys() or names
    elif found == "datasets":
        names = set(saved_splits(path))
    return tuple(sorted(names, key=lambda name: (name != TRAIN, name))) or (TRAIN,)


def _open_corpus(path: Path, images: Path | None, split: str) -> RowSource:
    if (path / MANIFEST_FILE).is_file():
        open_artifact(path, "corpus")
    file = path / f"{split}.json"
    if not file.is_file():
        there = ", ".join(sorted(entry.stem for entry in path.glob("*.json") if not _is_ours(entry))) or "none"
        raise DataError(f"{file} does not exist.", "It holds the rows.", f"Splits of this corpus: {there}.")
    if rows_of_json(file) == "messages":
        return MessagesSource(path, "messages", (file,), images or path)
    if not (path / INDEX_FILE).is_file():
        return LlavaSource(path, "corpus", (file,), images or path)
    index = CorpusIndex.read(path)
    rows = index.splits[split].rows if split in index.splits else None
    return LlavaSource(path, "corpus", (file,), images or path, read_roots(path, images), rows)


def _is_ours(file: Path) -> bool:
    return file.name in (MANIFEST_FILE, RUN_FILE, INDEX_FILE, "report.json")


def _of_split(path: Path, files: Sequence[Path], split: str) -> tuple[Path, ...]:
    """The files that say they are of a split (`train-00000-of-00004.parquet`, `train/…`); where none does, all of them
    are for training.
    """
    named = tuple(file for file in files if file.stem.split("-")[0] == split or file.parent.name == split)
    if not named and split != TRAIN:
        raise _no_split(path, split)
    return named or tuple(files)


def _no_split(path: Path, split: str) -> DataError:
    return DataError(
        f"{path} tells of no split {split!r}.", "Its rows would be taken for those of that split.", "Leave it away."
    )
