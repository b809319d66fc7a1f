"""Fonts that pages are printed with: typst's own, and those of folders that a recipe names; which scripts each covers.

A font counts for a script if it has every character that the shipped texts of that script use, so no page can hold a
box where a letter should be.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typst
from fontTools.ttLib import TTFont, TTLibError

from stages.artifacts.digest import digest_file
from stages.artifacts.errors import BluelmError, RecipeError, raise_all
from stages.workshop.corpus.rendering.scripts import SCRIPTS, characters_of
from stages.workshop.corpus.rendering.split import SPLITS, Split

# What typst carries, with the scripts of ours that each covers (a test renders every character).
_EUROPE = ("latin", "latin-extended", "vietnamese", "cyrillic", "greek")
_TYPST = {
    "Libertinus Serif": (*_EUROPE, "hebrew"),
    "New Computer Modern": (*_EUROPE, "hebrew"),
    "DejaVu Sans Mono": (*_EUROPE, "arabic"),
}


@dataclass(frozen=True)
class Font:
    """A font family: its name, the scripts that it covers, and its files with their sha256 (none: typst carries it)."""

    name: str
    scripts: tuple[str, ...]
    files: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class FontShelf:
    """The fonts of a recipe.

    Attributes:
        fonts: all that were found.
        folders: where typst looks for them.
        train, heldout: names that a split is limited to; all where empty.
        written: scripts that pages are limited to; all that the fonts cover where empty.
    """

    fonts: tuple[Font, ...]
    folders: tuple[str, ...] = ()
    train: tuple[str, ...] = ()
    heldout: tuple[str, ...] = ()
    written: tuple[str, ...] = ()

    def names(self, split: Split, script: str) -> tuple[str, ...]:
        """Names of the fonts in which a split prints a script; none where there is no font for it.

        A list that names no font of a script does not limit that script, so that it can be shown at all.
        """
        covering = tuple(font.name for font in self.fonts if script in font.scripts)
        limit = self.train if split == "train" else self.heldout
        return tuple(name for name in covering if name in limit) or covering

    def scripts(self) -> tuple[str, ...]:
        """All scripts that can be printed, in the order in which they are known."""
        wanted = self.written or SCRIPTS
        return tuple(name for name in SCRIPTS if name in wanted and any(name in font.scripts for font in self.fonts))

    def as_dict(self) -> list[dict[str, Any]]:
        """What the manifest says: each font with its scripts, the digests of its files and the splits that use it."""
        return [
            {
                **asdict(font),
                "files": dict(font.files),
                "splits": [split for split in SPLITS if self._uses(split, font)],
            }
            for font in self.fonts
        ]

    def _uses(self, split: Split, font: Font) -> bool:
        return any(font.name in self.names(split, script) for script in font.scripts)


TYPST_FONTS = FontShelf(tuple(Font(name, scripts) for name, scripts in _TYPST.items()))


def find_fonts(places: Sequence[str] = (), train: Sequence[str] = (), heldout: Sequence[str] = ()) -> FontShelf:
    """Typst's own fonts and all that lie in folders.

    Args:
        places: folders, searched with their subfolders, or single font files.
        train, heldout: names of the fonts that each split is limited to.

    Raises:
        RecipeError: a place holds no font, or a named font was not found (all of them together).
    """
    problems: list[BluelmError] = []
    found = dict(zip(_TYPST, TYPST_FONTS.fonts, strict=True))
    folders: dict[str, None] = {}
    for place in places:
        fonts = _read_place(place)
        if not fonts:
            why = "Typst reads TrueType and OpenType fonts (.ttf, .otf, .ttc, .otc)."
            problems.append(RecipeError(f"There is no font in {place}.", why, "Name a folder that holds some."))
        folders[str(Path(place).parent if Path(place).is_file() else place)] = None
        found |= fonts
    for name in dict.fromkeys((*train, *heldout)):
        if name not in found:
            fix = "Fonts: " + ", ".join(sorted(found)) + "."
            problems.append(RecipeError(f"There is no font {name!r}.", "No page can be printed with it.", fix))
    raise_all(problems)
    ordered = tuple(found[name] for name in sorted(found))
    return FontShelf(ordered, tuple(folders), tuple(train), tuple(heldout))


@functools.cache
def _read_place(place: str) -> Mapping[str, Font]:
    """Fonts of a folder or file by name; a family counts for what its upright regular face covers."""
    folder = str(Path(place).parent) if Path(place).is_file() else place
    faces = typst.Fonts(include_system_fonts=False, include_embedded_fonts=False, font_paths=[folder]).fonts()
    families: dict[str, list[typst.FontInfo]] = {}
    for face in faces:
        if face.path is not None and (not Path(place).is_file() or Path(face.path) == Path(place)):
            families.setdefault(face.family, []).append(face)
    fonts: dict[str, Font] = {}
    for name, members in families.items():
        usual = min(members, key=lambda face: (face.style != "normal", abs(face.weight - 400), abs(face.stretch - 1)))
        files = sorted({Path(face.path) for face in members if face.path is not None})
        digests = tuple((file.name, digest_file(file)) for file in files)
        fonts[name] = Font(name, covered_scripts(str(usual.path), usual.index), digests)
    return fonts


@functools.cache
def covered_scripts(path: str, index: int) -> tuple[str, ...]:
    """Scripts whose characters a face has all of; none where its tables cannot be read."""
    try:
        with TTFont(path, fontNumber=index, lazy=True) as font:
            characters = set(font.getBestCmap() or ())
    except (TTLibError, OSError, KeyError):
        return ()
    return tuple(script for script in SCRIPTS if characters_of(script) <= characters)
