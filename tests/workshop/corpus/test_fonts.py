"""Fonts are known by what they can print: no page shows a box where a letter should be."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import typst

from stages.artifacts.errors import BluelmError
from stages.workshop.corpus.rendering.fonts import TYPST_FONTS, FontShelf, find_fonts
from stages.workshop.corpus.rendering.scripts import SCRIPTS, characters_of
from stages.workshop.corpus.rendering.typeset import quoted


def lacks(compiler: typst.Compiler, font: str, characters: frozenset[int]) -> set[str]:
    """Characters that a font shows as it shows one that no font has, each drawn and compared."""

    def drawn(character: int) -> object:
        page = f"#set page(width: 30pt, height: 30pt)\n#set text(font: {quoted(font)}, fallback: false)\n"
        return compiler.compile(f"{page}#text({quoted(chr(character))})".encode(), format="png", ppi=72.0)

    box = drawn(0x10FFFD)
    return {chr(character) for character in characters if drawn(character) == box}


@pytest.fixture(scope="module")
def compiler() -> typst.Compiler:
    return typst.Compiler(ignore_system_fonts=True)


@pytest.mark.parametrize("font", TYPST_FONTS.fonts, ids=lambda font: font.name)
def test_typst_s_own_fonts_print_what_is_said_and_no_more(compiler: typst.Compiler, font: object) -> None:
    name, scripts = font.name, font.scripts  # type: ignore[attr-defined]
    missing = {script: lacks(compiler, name, characters_of(script)) for script in SCRIPTS}
    assert tuple(script for script in SCRIPTS if not missing[script]) == scripts


def test_a_folder_s_fonts_print_what_is_said(data_dir: Path) -> None:
    shelf = find_fonts([str(data_dir / "fonts")])
    compiler = typst.Compiler(ignore_system_fonts=True, font_paths=[str(data_dir / "fonts")])
    own = {font.name: font for font in shelf.fonts if font.files}
    assert {"Noto Sans", "Amiri", "Sarabun", "Droid Sans Fallback"} <= set(own)
    # A font may also compose what its table lacks ("é" of two glyphs), so what is said is on the safe side.
    for font in own.values():
        assert font.scripts and not any(lacks(compiler, font.name, characters_of(script)) for script in font.scripts)
        boxes = [script for script in SCRIPTS if lacks(compiler, font.name, characters_of(script))]
        assert boxes and not set(boxes) & set(font.scripts)
    assert {"arabic", "thai", "han", "kana", "hebrew"} <= set(shelf.scripts()) and "devanagari" not in shelf.scripts()


def test_splits_have_the_fonts_that_a_recipe_names() -> None:
    shelf = find_fonts([], ["Libertinus Serif", "DejaVu Sans Mono"], ["New Computer Modern"])
    assert shelf.names("train", "latin") == ("DejaVu Sans Mono", "Libertinus Serif")
    assert shelf.names("heldout", "greek") == ("New Computer Modern",)
    # Nothing that is named covers Arabic for held-out pages: then all that do are used.
    assert shelf.names("train", "arabic") == shelf.names("heldout", "arabic") == ("DejaVu Sans Mono",)
    assert shelf.names("train", "thai") == ()
    told = {font["name"]: font["splits"] for font in shelf.as_dict()}
    assert told["New Computer Modern"] == ["heldout"] and told["Libertinus Serif"] == ["train"]
    assert find_fonts([]) == FontShelf(tuple(sorted(TYPST_FONTS.fonts, key=lambda font: font.name)))


def test_a_single_file_brings_only_itself(data_dir: Path, tmp_path: Path) -> None:
    for name in ("Amiri-Regular.ttf", "Sarabun-Regular.ttf"):
        shutil.copy(data_dir / "fonts" / name, tmp_path)
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    alone = find_fonts([str(tmp_path / "Amiri-Regular.ttf")])
    assert {font.name for font in alone.fonts if font.files} == {"Amiri"}
    both = find_fonts([str(tmp_path)])
    assert {font.name: len(font.files) for font in both.fonts if font.files} == {"Amiri": 1, "Sarabun": 1}


def test_missing_fonts_are_all_named(tmp_path: Path) -> None:
    with pytest.raises(BluelmError) as caught:
        find_fonts([str(tmp_path)], ["Futura"], ["Georgia"])
    empty, train, heldout = caught.value.problems
    assert str(tmp_path) in empty.what and ".ttf" in empty.why
    assert "'Futura'" in train.what and "Libertinus Serif" in train.fix and "'Georgia'" in heldout.what
