"""`bluelm data pages`: what it writes from PDFs, what it names and leaves out, what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typst
from PIL import Image

from stages.artifacts.folder import open_artifact
from stages.workshop.corpus.readers.opening import open_rows
from stages.workshop.corpus.row import Row

Run = Callable[..., Any]
WORDS = (
    *("able", "acid", "arm", "atom", "aunt", "back", "ball", "bank", "barn", "bath", "bean", "bear", "belt"),
    *("bird", "bone", "book", "boot", "bowl", "box", "cake", "cat", "coat"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen pages of text that no two share, one PDF that is none, and one without text."""
    found = tmp_path_factory.mktemp("pdfs")
    pages = [" \\\n".join(f"{word} number {number} of {index}" for number, word in enumerate(WORDS[index : index + 6]))
             for index in range(16)]  # fmt: skip
    source = "#set page(width: 300pt, height: 200pt)\n" + " #pagebreak() ".join(pages)
    compiled = typst.Compiler(ignore_system_fonts=True).compile(source.encode(), format="pdf")
    assert isinstance(compiled, bytes)
    (found / "inner").mkdir()
    (found / "inner" / "sixteen.PDF").write_bytes(compiled)
    (found / "broken.pdf").write_bytes(b"not a PDF")
    Image.new("RGB", (60, 60), "grey").save(found / "scan.pdf", "PDF")
    return found


def rows_of(path: Path) -> list[Row]:
    return [row for row in open_rows(path) if isinstance(row, Row)]


def test_pages_become_a_corpus(bluelm: Run, folder: Path, tmp_path: Path) -> None:
    done = bluelm("data", "pages", folder, "--out", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    result = done.json()
    assert result["files"] == ["broken.pdf", "inner/sixteen.PDF", "scan.pdf"]
    assert {item["file"] for item in result["skipped"]} == {"broken.pdf", "scan.pdf"}
    assert "skipped broken.pdf: it is broken" in done.err and "scan.pdf, page 1: it has no text layer" in done.err
    manifest = open_artifact(tmp_path / "out", "corpus").manifest
    assert manifest is not None and manifest.metrics["skipped"] == result["skipped"]
    assert [parent.path for parent in manifest.parents] == result["files"]
    used = set()
    for split in ("train", "heldout"):
        rows = rows_of(tmp_path / "out" / f"{split}.json")
        used |= {picture.name for row in rows for picture in row.pictures}
        assert len(rows) == result["splits"][split]["rows"] > 0
        answers = {turn.text for row in rows for turn in row.turns if turn.role == "assistant"}
        assert all(" number " in line for answer in answers for line in answer.split("\n"))
    assert used == {f"images/{file.name}" for file in (tmp_path / "out" / "images").iterdir()}


def test_the_same_pages_give_the_same_artifact(bluelm: Run, folder: Path, tmp_path: Path) -> None:
    for name in ("one", "other"):
        flags = ("--pages", "2-9", "--regions", 2, "--width", 200)
        assert bluelm("data", "pages", folder, *flags, "--out", tmp_path / name).code == 0
    one, other = (open_artifact(tmp_path / name, "corpus") for name in ("one", "other"))
    assert one.digest == other.digest
    again = bluelm("data", "pages", folder, *flags, "--out", tmp_path / "one", "--json")
    assert "up to date" in again.err and len(again.json()["skipped"]) == 2
    pages = {file.name.split("-")[1] for file in (tmp_path / "one" / "images").iterdir()}
    assert pages <= {f"{number:04d}" for number in range(2, 10)} and len(pages) > 4
    assert all(Image.open(file).width <= 200 for file in (tmp_path / "one" / "images").iterdir())


def test_held_out_questions_ask_for_no_line_of_training(bluelm: Run, tmp_path: Path) -> None:
    """Every page repeats a heading: it is asked in training alone, and how often it was left out is told."""
    pages = [f"The same heading everywhere \\\n{word} and {word}s of page {index}" for index, word in enumerate(WORDS)]
    source = "#set page(width: 300pt, height: 100pt)\n" + " #pagebreak() ".join(pages)
    compiled = typst.Compiler(ignore_system_fonts=True).compile(source.encode(), format="pdf")
    assert isinstance(compiled, bytes)
    (tmp_path / "a.pdf").write_bytes(compiled)
    result = bluelm("data", "pages", tmp_path / "a.pdf", "--out", tmp_path / "out", "--json").json()
    lines = {
        split: {
            line
            for row in rows_of(tmp_path / "out" / f"{split}.json")
            for turn in row.turns
            if turn.role == "assistant"
            for line in turn.text.split("\n")
        }
        for split in ("train", "heldout")
    }
    assert "The same heading everywhere" in lines["train"]
    assert lines["train"].isdisjoint(lines["heldout"])
    assert result["repeated"] > 0


def test_degraded_pages_ask_the_same(bluelm: Run, folder: Path, tmp_path: Path) -> None:
    degradations = 'degradations=[{"kind":"noise","probability":1},{"kind":"rotation","probability":1}]'
    assert bluelm("data", "pages", folder, "--out", tmp_path / "plain").code == 0
    assert bluelm("data", "pages", folder, "--set", degradations, "--out", tmp_path / "worse").code == 0
    texts = [(tmp_path / name / "train.json").read_text() for name in ("plain", "worse")]
    assert texts[0] == texts[1]
    image = json.loads(texts[0])[0]["image"]
    assert (tmp_path / "plain" / image).read_bytes() != (tmp_path / "worse" / image).read_bytes()


def test_nothing_to_use_is_an_error_that_names_everything(bluelm: Run, folder: Path, tmp_path: Path) -> None:
    done = bluelm("data", "pages", folder / "broken.pdf", folder / "scan.pdf", "--out", tmp_path / "out")
    assert done.code == 2 and not (tmp_path / "out").exists()
    assert "broken.pdf: it is broken or no PDF" in done.err and "scan.pdf, page 1" in done.err


def test_wrong_flags_are_refused(bluelm: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    missing = bluelm("data", "pages", tmp_path / "no.pdf", tmp_path / "empty", "--out", tmp_path / "out")
    assert missing.code == 2 and "no.pdf does not exist" in missing.err and "There is no PDF in" in missing.err
    assert "no page range" in bluelm("data", "pages", folder, "--pages", "5-2", "--out", tmp_path / "out").err
    assert "--out is missing" in bluelm("data", "pages", folder).err
    sizes = bluelm("data", "pages", folder, "--set", "least_text=30", "--out", tmp_path / "out")
    assert sizes.code == 2 and "least_text is 30.0, most_text 28.0" in sizes.err


def test_a_dry_run_opens_nothing(bluelm: Run, folder: Path, tmp_path: Path) -> None:
    done = bluelm("data", "pages", folder, "--dry-run", "--out", tmp_path / "out", "--json")
    assert done.code == 0 and len(done.json()["files"]) == 3 and not (tmp_path / "out").exists()
