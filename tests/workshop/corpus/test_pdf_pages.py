"""Text read from PDFs is the text that was typeset into them; what is cut out shows whole lines and nothing else."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import typst
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from stages.artifacts.errors import UsageError
from stages.device.imaging.geometry import Size
from stages.workshop.corpus.rendering import pdf_pages, pdf_text
from stages.workshop.corpus.rendering.pdf_pages import Cut, PageRange, PdfScene, Skipped, read_pdf
from stages.workshop.corpus.rendering.pdf_text import Area, Line, runs_of

CUT = Cut(seed=0, regions=6, largest=Size(384, 384), least=12, most=28, longest=800)
LINES = ["The harbour lies still.", "Boats come in at 17:45,", "12 of them, from Lund.", "(Fish: 3.20 a kilo!)"]
ALL = PageRange.parse("")


def typeset(tmp_path: Path, body: str, name: str = "page.pdf", before: str = "") -> Path:
    source = (
        f'#set page(width: 300pt, height: 200pt, margin: 20pt)\n#set text(font: "Libertinus Serif")\n{before}\n{body}'
    )
    path = tmp_path / name
    compiled = typst.Compiler(ignore_system_fonts=True).compile(source.encode(), format="pdf")
    assert isinstance(compiled, bytes)
    path.write_bytes(compiled)
    return path


def scenes(path: Path, cut: Cut = CUT, pages: PageRange = ALL) -> list[PdfScene]:
    found = list(read_pdf(path, path.name, pages, cut))
    assert all(isinstance(item, PdfScene) for item in found), found
    return [item for item in found if isinstance(item, PdfScene)]


def test_lines_are_those_that_were_typeset(tmp_path: Path) -> None:
    found = scenes(typeset(tmp_path, " \\\n".join(LINES)), Cut(0, 50, Size(384, 384), 12, 28, 800))
    texts = [text for item in found for text in item.scene.texts]
    assert sorted(texts) == sorted(LINES)
    for item in found:
        answers = {exchange.task: exchange for exchange in item.scene.exchanges}
        assert answers["page-read"].answer == "\n".join(item.scene.texts)
        if "page-line" in answers:
            number = int(
                next(word for word in answers["page-line"].question.split() if word.strip("?.").isdigit()).strip("?.")
            )
            assert item.scene.texts[number - 1] == answers["page-line"].answer


@pytest.mark.parametrize("turned", [0, 90, 180, 270])
def test_what_is_cut_out_is_what_the_page_shows(tmp_path: Path, turned: int) -> None:
    """The picture of a region equals that part of the whole page, however the PDF turns its pages."""
    import pypdfium2 as pdfium

    straight = typeset(tmp_path, " \\\n".join(LINES))
    document = pdfium.PdfDocument(straight)
    document[0].set_rotation(turned)
    path = tmp_path / "turned.pdf"
    document.save(path)
    if turned:
        # Text that is shown turned is no text to read; what can be read then stands upright on a turned page.
        before = f"#let up(body) = place(center + horizon, rotate({-turned}deg, reflow: true, body))"
        again = typeset(tmp_path, f"#up([{' #linebreak() '.join(LINES)}])", "up.pdf", before)
        document = pdfium.PdfDocument(again)
        document[0].set_rotation(turned)
        document.save(path)
    for item in scenes(path):
        window, scale = item.scene.facts["window"], item.scene.facts["scale"]
        assert isinstance(window, Area) and isinstance(scale, float)
        whole = pdfium.PdfDocument(path)[0].render(scale=scale).to_pil().convert("L")
        # Within a pixel, and but for what neighbours paint into the margins of the whole.
        likeness = [_likeness(item.scene.picture, whole, window, scale, down) for down in (-1, 0, 1)]
        assert max(likeness) > 0.86 > 2 * abs(_likeness(item.scene.picture, whole, window, scale, 9))
        assert set(item.scene.texts) <= set(LINES)


def _likeness(picture: Image.Image, whole: Image.Image, window: Area, scale: float, down: int) -> float:
    """How a picture goes along with part of a page, so many pixels below where it should be; both a little blurred."""
    left, top = round(window.left * scale), round(window.top * scale) + down
    part = whole.crop((left, top, left + picture.width, top + picture.height))
    blurred = (one.convert("L").filter(ImageFilter.GaussianBlur(2)) for one in (picture, part))
    return float(np.corrcoef(*(np.asarray(one, float).ravel() for one in blurred))[0, 1])


def test_columns_are_not_mixed(tmp_path: Path) -> None:
    left, right = ["alpha one", "alpha two", "alpha three"], ["beta one", "beta two", "beta three"]
    body = f"#grid(columns: (1fr, 1fr), [{' #linebreak() '.join(left)}], [{' #linebreak() '.join(right)}])"
    for item in scenes(typeset(tmp_path, body)):
        assert len({text.split()[0] for text in item.scene.texts}) == 1


def test_a_frame_holds_its_answer(tmp_path: Path) -> None:
    """What lies inside the coloured frame, at the scale of the picture, is the answer's line."""
    framed = 0
    for seed in range(25):
        cut = Cut(seed, 6, Size(384, 384), 16, 20, 800)
        for item in scenes(typeset(tmp_path, " \\\n".join(LINES)), cut):
            answers = {exchange.task: exchange for exchange in item.scene.exchanges}
            if "page-frame" not in answers:
                continue
            framed += 1
            colour = next(name for name in pdf_pages.FRAMES if name in answers["page-frame"].question)
            levels = np.asarray(item.scene.picture, int)
            rows, _ = np.nonzero(np.abs(levels - np.array(pdf_pages.FRAMES[colour])).sum(axis=2) < 40)
            middle = (rows.min() + rows.max()) / 2 / item.scene.picture.height
            place = item.scene.texts.index(answers["page-frame"].answer)
            assert abs(middle - (place + 0.5) / len(item.scene.texts)) < 0.5 / len(item.scene.texts)
    assert framed > 5


def test_sizes_and_heights_are_kept(tmp_path: Path) -> None:
    path = typeset(tmp_path, " \\\n".join(LINES * 2))
    for width, height in [(384, 384), (200, 60), (90, 300)]:
        found = list(read_pdf(path, "a", ALL, Cut(1, 9, Size(width, height), 12, 28, 800)))
        for item in found:
            if isinstance(item, PdfScene):
                assert item.scene.picture.width <= width and item.scene.picture.height <= height
    (skipped,) = read_pdf(path, "a.pdf", ALL, Cut(1, 9, Size(40, 40), 30, 40, 800))
    assert isinstance(skipped, Skipped) and str(skipped) == "a.pdf, page 1: no run of lines fits 40×40 pixels"


def test_the_same_page_gives_the_same_pictures_and_split(tmp_path: Path) -> None:
    path = typeset(tmp_path, " \\\n".join(LINES))
    one, other = scenes(path), scenes(path)
    assert [item.scene.picture.tobytes() for item in one] == [item.scene.picture.tobytes() for item in other]
    assert len({item.split for item in one}) == 1
    three = typeset(tmp_path, " #pagebreak() ".join(f"Page {word}, more text" for word in ("one", "two", "three")))
    assert {item.page for item in scenes(three, pages=PageRange.parse("2-"))} == {2, 3}


def test_what_cannot_be_used_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken, locked, blank = (tmp_path / name for name in ("broken.pdf", "locked.pdf", "blank.pdf"))
    broken.write_bytes(b"%PDF-1.7 and nothing more")
    locked.write_bytes(_encrypted())
    stream = io.BytesIO()
    Image.new("RGB", (80, 80), "grey").save(stream, "PDF")
    blank.write_bytes(stream.getvalue())
    whys = {path.name: [str(item) for item in read_pdf(path, path.name, ALL, CUT)] for path in (broken, locked, blank)}
    assert whys["broken.pdf"][0].startswith("broken.pdf: it is broken or no PDF")
    assert whys["locked.pdf"] == ["locked.pdf: it is encrypted and asks for a password"]
    assert whys["blank.pdf"] == ["blank.pdf, page 1: it has no text layer"]
    assert next(str(item) for item in read_pdf(tmp_path / "no.pdf", "no.pdf", ALL, CUT)).startswith("no.pdf: it cannot")
    page = typeset(tmp_path, " \\\n".join(LINES))
    (beyond,) = read_pdf(page, "page.pdf", PageRange.parse("7-9"), CUT)
    assert str(beyond) == "page.pdf: it has 1 pages, none of them asked for"
    monkeypatch.setattr(pdf_text, "MOST_CHARACTERS", 10)
    (huge,) = read_pdf(page, "page.pdf", ALL, CUT)
    assert str(huge).startswith("page.pdf, page 1: it is huge: ")


def _encrypted() -> bytes:
    """A PDF whose password is not the empty one."""
    parts = [
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n",
        b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>endobj\n",
        b"4 0 obj<</Filter/Standard/V 1/R 2/P -44/O<" + b"41" * 32 + b">/U<" + b"42" * 32 + b">>>endobj\n",
        b"trailer<</Size 5/Root 1 0 R/Encrypt 4 0 R/ID[<00><00>]>>\n%%EOF",
    ]
    return b"".join(parts)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=4), st.integers(1, 40))
def test_page_ranges_name_the_pages_they_hold(numbers: list[int], count: int) -> None:
    text = ",".join(f"{number}-{number + 2}" for number in numbers)
    expected = {page for number in numbers for page in (number, number + 1, number + 2) if page <= count}
    assert PageRange.parse(text).numbers(count) == sorted(expected)
    assert PageRange.parse(f"{numbers[0]}-").numbers(count) == list(range(numbers[0], count + 1))
    assert PageRange.parse("").numbers(count) == list(range(1, count + 1))


@pytest.mark.parametrize("text", ["0", "a", "3-1", "1--2", "-", "1-b"])
def test_what_is_no_page_range_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no page range"):
        PageRange.parse(text)


def test_runs_hold_each_line_once() -> None:
    def line(text: str, left: float, top: float, width: float = 60, height: float = 10) -> Line:
        area = Area(left, top, left + width, top + height)
        return Line(text, area, area)

    lines = [line("a", 0, 0), line("b", 100, 0), line("c", 0, 12), line("d", 100, 12), line("e", 0, 80),
             line("large", 0, 93, height=30)]  # fmt: skip
    assert [[item.text for item in run] for run in runs_of(lines)] == [["a", "c"], ["b", "d"], ["e"], ["large"]]
    assert runs_of([]) == []


def test_real_pages(data_dir: Path) -> None:
    """Real documents: something is read from each, and answers stand in what pdfium itself says of the page."""
    import pypdfium2 as pdfium

    files = sorted((data_dir / "pdf").glob("*.pdf"))
    assert len(files) == 6
    for file in files:
        found = [item for item in read_pdf(file, file.name, PageRange.parse("1-2"), CUT) if isinstance(item, PdfScene)]
        assert found
        document = pdfium.PdfDocument(file)
        for item in found:
            layer = document[item.page - 1].get_textpage().get_text_bounded().replace("\ufffe", "-")
            squeezed = "".join(layer.split())
            assert all("".join(text.split()) in squeezed for text in item.scene.texts)
