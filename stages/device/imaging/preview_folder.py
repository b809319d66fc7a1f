"""A folder of previews: readable unique names, and nothing overwritten that is not a preview."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePath

from PIL import Image

from stages.artifacts.errors import BluelmError, UsageError, raise_all
from stages.device.imaging.preview import is_preview, save_preview

# Bytes of the stem; with the rule, a number and the suffix it stays well under the usual limit of 255.
_LONGEST_STEM = 150


def preview_stems(names: Iterable[str]) -> list[str]:
    """One stem per picture, from its file name; a repeated one gets a number (case ignored, as some disks do)."""
    taken: set[str] = set()
    stems = []
    for name in names:
        base = PurePath(name).stem.encode("utf-8", "replace")[:_LONGEST_STEM].decode("utf-8", "ignore") or "picture"
        stem, number = base, 1
        while stem.lower() in taken:
            number += 1
            stem = f"{base}-{number}"
        taken.add(stem.lower())
        stems.append(stem)
    return stems


def preview_path(folder: Path, stem: str, rule: str) -> Path:
    """The file of one picture and rule."""
    return folder / f"{stem}.{rule}.png"


def prepare_preview_folder(folder: Path, files: Iterable[Path]) -> None:
    """Makes the folder.

    Raises:
        UsageError: it cannot be made, or one of the files exists and is no preview; all of them together.
    """
    problems: list[BluelmError] = [
        UsageError(
            f"{file} exists and is not a preview of bluelm.",
            "It would be overwritten.",
            "Choose another folder with --preview-to, or move the file away.",
        )
        for file in files
        if os.path.lexists(file) and not is_preview(file)
    ]
    raise_all(problems)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be made: {error.strerror}.", "Previews go there.", "Choose another folder."
        ) from error


def put_preview(drawing: Image.Image, file: Path) -> None:
    """Writes a preview in one step: whoever looks sees the old one or the new one.

    Raises:
        UsageError: the disk is full or refuses.
    """
    try:
        save_preview(drawing, file)
    except OSError as error:
        raise UsageError(
            f"{file} cannot be written: {error.strerror}.", "The preview goes there.", "Choose another folder."
        ) from error
