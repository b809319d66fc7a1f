"""Which pictures an input names: a picture, a folder of them, a LLaVA JSON or JSON lines, or a corpus folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.artifacts.digest import digest_json
from stages.artifacts.errors import BluelmError, DataError, ImageError, raise_all
from stages.artifacts.folder import open_artifact
from stages.artifacts.json_items import BrokenItem, json_items, json_layout
from stages.artifacts.llava_rows import PictureReference, read_pictures
from stages.artifacts.manifest import MANIFEST_FILE, Parent, parent_of
from stages.artifacts.picture_roots import picture_file, read_roots
from stages.device.imaging.preview import is_preview

# What a folder is searched for; a picture named by itself may have any name.
PICTURE_SUFFIXES = frozenset(
    {
        *(".apng", ".avif", ".bmp", ".gif", ".ico", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo"),
        *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
    }
)
_LONGEST = 60
_CORPUS_FILES = ("train.json", "heldout.json")


@dataclass(frozen=True)
class Picture:
    """A picture to read. `name` is its path inside the input that named it, the same on every machine."""

    path: Path
    name: str


def list_pictures(inputs: Sequence[Path]) -> list[Picture]:
    """All pictures the inputs name, in order; each file once per input.

    A picture named by itself is not looked at: whatever is wrong with it is told with the other broken ones, by whoever
    reads them.

    Raises:
        DataError: a JSON that is not LLaVA's, or names pictures outside its folder.
        ArtifactError: an artifact that is no corpus, or a damaged one.
        ImageError: a folder without pictures, or one that cannot be listed; all problems together.
    """
    pictures: list[Picture] = []
    problems: list[BluelmError] = []
    for path in inputs:
        try:
            pictures += _pictures_of(path)
        except BluelmError as error:
            problems.append(error)
    raise_all(problems)
    return pictures


def parent_of_pictures(path: Path, digests: Mapping[Path, str]) -> Parent:
    """An input's digest: an artifact's own; elsewhere that of the pictures it names, whatever else lies beside them.

    Args:
        path: a picture, a folder of pictures, a LLaVA JSON or a corpus folder.
        digests: of all pictures it names, by `Picture.path`.
    """
    if _is_artifact(path):
        return parent_of(path)
    named = [[picture.name, digests[picture.path]] for picture in list_pictures([path])]
    return Parent(path=path.as_posix(), digest=digest_json(named))


def _pictures_of(path: Path) -> list[Picture]:
    if _is(path, Path.is_dir):
        if _is_artifact(path):
            open_artifact(path, "corpus")
        corpus = [path / name for name in _CORPUS_FILES if _is(path / name, Path.is_file)]
        return _unique(item for file in corpus for item in _in_json(file)) if corpus else _in_folder(path)
    if path.suffix.lower() in (".json", ".jsonl") and _is(path, Path.is_file):
        return _unique(_in_json(path))
    if path.suffix.lower() == ".csv" and _is(path, Path.is_file):
        raise DataError(
            f"{path} is a list, and no picture.", "Sizes alone cannot be cut or drawn.", "Count them: add --stats."
        )
    return [Picture(path, path.name)]


def _in_folder(folder: Path) -> list[Picture]:
    """Pictures below a folder by their suffix, sorted by name.

    Hidden ones are left out, and so is what bluelm made: folders that are artifacts, and previews.
    """
    problems: list[BluelmError] = []

    def refuse(error: OSError) -> None:
        what = f"{error.filename or folder} cannot be listed: {error.strerror}."
        problems.append(ImageError(what, "Its pictures cannot be found.", "Check its rights, or move it away."))

    found = []
    for where, folders, files in os.walk(folder, onerror=refuse):
        here = Path(where)
        folders[:] = [name for name in folders if not name.startswith(".") and not _is_artifact(here / name)]
        found += [here / name for name in files if not name.startswith(".") and _is_picture(here / name)]
    raise_all(problems)
    if not found:
        raise ImageError(
            f"{folder} holds no pictures.",
            f"It was searched, with its folders, for {', '.join(sorted(PICTURE_SUFFIXES))}; "
            "previews and folders that bluelm made do not count.",
            "Name a folder with pictures, or the pictures themselves.",
        )
    return [Picture(path, path.relative_to(folder).as_posix()) for path in sorted(found)]


def _is_artifact(folder: Path) -> bool:
    return _is(folder / MANIFEST_FILE, Path.is_file)


def _is(path: Path, what: Callable[[Path], bool], unknown: bool = False) -> bool:
    """`unknown` where the system does not say: a name too long, a folder without rights. Reading it tells more."""
    try:
        return what(path)
    except OSError:
        return unknown


def _is_picture(path: Path) -> bool:
    """By its suffix; links that lead nowhere and previews are none."""
    suffix = path.suffix.lower()
    if suffix not in PICTURE_SUFFIXES or not _is(path, Path.is_file, unknown=True):
        return False
    return suffix != ".png" or not is_preview(path)


def _in_json(file: Path) -> list[Picture]:
    """The pictures that a file's rows name, in order of first use; rows without a picture are text.

    What else a row holds does not matter here.
    """
    layout = json_layout(file)
    references: dict[str, PictureReference] = {}
    for number, item in json_items(file, layout):
        if isinstance(item, BrokenItem):
            raise _not_llavas(file, number, item.what)
        # A line of JSON may be of anything; in a list, a row without a picture is one of text.
        if not isinstance(item, Mapping) or (layout == "lines" and not item.keys() & {"image", "conversations"}):
            raise _not_llavas(file, number, f"it is {_printed(item)}")
        given, problems = read_pictures(item)
        if any(problem.kind == "outside" for problem in problems):
            raise DataError(
                f"{file}, row {number}: {problems[0].text}.",
                "A data file may only reach the pictures beside it.",
                "Put the JSON above its pictures and make the paths relative to it.",
            )
        if problems:
            raise _not_llavas(file, number, f"its image is {_printed(item.get('image'))}")
        references.update((str(reference), reference) for reference in given)
    roots = read_roots(file.parent)
    return [Picture(*picture_file(reference, roots, file)) for reference in references.values()]


def _printed(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= _LONGEST else shown[:_LONGEST] + "…"


def _not_llavas(file: Path, number: int, why: str) -> DataError:
    return DataError(
        f"{file}: row {number} is not LLaVA's: {why}.",
        "Its picture cannot be found.",
        'Write rows like {"id": …, "image": "images/1.png", "conversations": […]}.',
    )


def _unique(pictures: Iterable[Picture]) -> list[Picture]:
    return list({picture.path: picture for picture in pictures}.values())
