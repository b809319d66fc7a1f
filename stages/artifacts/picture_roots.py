"""Where pictures of a corpus lie that refers to them in place: `roots` of its `index.json`, by their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from stages.artifacts.errors import DataError, raise_all
from stages.artifacts.llava_rows import PictureReference, split_root
from stages.artifacts.plain_json import parse_json

INDEX_FILE = "index.json"


def read_roots(corpus: Path, images: Path | None = None) -> dict[int, Path]:
    """The folders of pictures by number, all of them there; none for a corpus that holds its pictures.

    Args:
        corpus: a folder, with or without an index.
        images: where the pictures lie now, for a corpus with a single root.

    Raises:
        DataError: the index is broken, or folders were moved or removed.
    """
    path = corpus / INDEX_FILE
    if not path.is_file():
        return {}
    try:
        folders = [Path(folder) for folder in parse_json(path.read_text(encoding="utf-8")).get("roots", [])]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is no index of a corpus: {error}.", "It says where pictures lie.", "Make the corpus again."
        ) from error
    if images is not None and len(folders) == 1:
        return {0: images}
    raise_all(
        [
            DataError(
                f"{corpus}: its pictures lie in {folder}, which does not exist any more.",
                "The corpus refers to them where they were.",
                "Move them back, name their folder with --images where that is a flag and the corpus has only one, "
                "or make the corpus again with --copy-pictures.",
            )
            for folder in folders
            if not folder.is_dir()
        ]
    )
    return dict(enumerate(folders))


def root_of(number: int | None, beside: Path, roots: Mapping[int, Path], file: Path) -> Path:
    """The folder that a reference's name is relative to.

    Args:
        number: the root's, as `split_root` finds it.
        beside: where names without a number begin.
        roots: the corpus' other folders.
        file: the file that refers, for messages.

    Raises:
        DataError: there is no such root.
    """
    if number is None:
        return beside
    if number not in roots:
        raise DataError(
            f"{file} names pictures in root {number}, which its corpus' {INDEX_FILE} does not know.",
            "They cannot be found.",
            f"Keep the file with the {INDEX_FILE} it was written with.",
        )
    return roots[number]


def picture_file(reference: PictureReference, roots: Mapping[int, Path], file: Path) -> tuple[Path, str]:
    """The file of a picture and its name, for readers that take nothing but files.

    Args:
        reference: as a row of `file` has it.
        roots: other folders of the corpus.
        file: the file that refers.

    Raises:
        DataError: the picture lies in a shard.
    """
    if not isinstance(reference, str):
        raise DataError(
            f"{file} names pictures inside {reference['shard']}.",
            "Picture files are needed here.",
            f"Copy the pictures out: bluelm data check {file.parent} --copy-pictures --out CORPUS",
        )
    number, name = split_root(reference)
    return root_of(number, file.parent, roots, file) / name, name
