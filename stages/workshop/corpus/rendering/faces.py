"""Single faces of fonts (a file, a number in it) for drawing letter by letter, and which scripts each covers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typst

from stages.artifacts.errors import RecipeError
from stages.workshop.corpus.rendering.fonts import covered_scripts


@dataclass(frozen=True, order=True)
class Face:
    """One face of a family: regular, bold, italic …; `scripts` are those of the asked ones that it covers."""

    family: str
    path: str
    index: int
    scripts: tuple[str, ...]


def find_faces(folders: Sequence[str], families: Sequence[str], scripts: Sequence[str]) -> tuple[tuple[Face, ...], ...]:
    """All faces of some families that lie in folders and cover English, in an order that is always the same.

    Returns:
        A family after the other, its most usual face first: upright, of regular weight and width.

    Args:
        folders: searched with their subfolders.
        families: their names; each must be there.
        scripts: what is asked for; "latin" must be among them.

    Raises:
        RecipeError: a family is not there, or cannot print English.
    """
    found: dict[str, list[Face]] = {name: [] for name in families}
    for family, path, index in _faces_in(tuple(folders)):
        if family in found:
            known = covered_scripts(path, index)
            covered = tuple(script for script in scripts if script in known)
            face = Face(family, path, index, covered)
            if "latin" in covered and face not in found[family]:
                found[family].append(face)
    lacking = sorted(name for name, faces in found.items() if not faces)
    if lacking:
        raise RecipeError(
            f"No face of {', '.join(lacking)} in {', '.join(folders) or 'no folder'} covers English.",
            "Pages are drawn in the fonts that the recipe names, so that they are always the same.",
            "Put these fonts there (recipes/base/fonts.sh fetches the shipped recipe's), or name others.",
        )
    return tuple(tuple(found[name]) for name in sorted(found))


@functools.cache
def _faces_in(folders: tuple[str, ...]) -> tuple[tuple[str, str, int], ...]:
    """Family, file and number of every face below some folders, usual ones first: hundreds of fonts take a second."""
    fonts = typst.Fonts(include_system_fonts=False, include_embedded_fonts=False, font_paths=list(folders)).fonts()
    ordered = sorted((info for info in fonts if info.path is not None), key=_order)
    return tuple((info.family, str(info.path), info.index) for info in ordered)


def _order(face: typst.FontInfo) -> tuple[bool, int, float, str, int]:
    """By file name, not by place: the same fonts elsewhere give the same pages."""
    unusual = face.style != "normal", abs(face.weight - 400), abs(face.stretch - 1)
    return *unusual, Path(str(face.path)).name, face.index
