"""Pages of PDFs as pictures with questions from their own text: runs of lines, cut out whole at a height to be read."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from stages.artifacts.errors import UsageError
from stages.device.imaging.geometry import Size
from stages.workshop.corpus.rendering.pdf_text import Area, Line, read_lines, runs_of
from stages.workshop.corpus.rendering.scene import Exchange, Scene, Split, word_question
from stages.workshop.corpus.rendering.split import is_held_out

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument, PdfPage

READ_QUESTIONS = ("Read the text.", "Transcribe the text line by line.", "What is written here?")
LINE_QUESTIONS = ("What does line {number} say?", "Read line {number}.", "Which text stands in line {number}?")
FRAME_QUESTIONS = ("Read the text in the {colour} frame.", "What is written inside the {colour} frame?")
TASKS = ("page-read", "page-line", "page-frame")
FRAMES = {"red": (220, 30, 30), "blue": (30, 60, 220), "green": (20, 140, 50)}
# Of a line's height: paper around what is cut out, where nothing is near.
_MARGIN = 0.4
# Levels by which the darkest and the lightest pixel differ at least: text that is not painted asks for nothing.
_CONTRAST = 60
_FRAME_SHARE = 0.4
# Shortest text that is worth a question of its own.
_LETTERS = 3


@dataclass(frozen=True)
class Cut:
    """What is cut out of pages.

    Attributes:
        seed: where all chance comes from.
        regions: most pictures from one page.
        largest: of a picture, in pixels.
        least, most: heights of lines in pixels.
        longest: most letters of a text that is to be read whole.
    """

    seed: int
    regions: int
    largest: Size
    least: float
    most: float
    longest: int


@dataclass(frozen=True)
class Skipped:
    """A file, or one of its pages (from 1), that gave nothing, and why."""

    file: str
    page: int | None
    why: str

    def __str__(self) -> str:
        return f"{self.file}{'' if self.page is None else f', page {self.page}'}: {self.why}"


@dataclass(frozen=True)
class PdfScene:
    """A picture from a page (from 1), and the split of that page."""

    page: int
    split: Split
    scene: Scene


@dataclass(frozen=True)
class PageRange:
    """Which pages are taken: spans from 1, both ends included; an end of None is the last page."""

    spans: tuple[tuple[int, int | None], ...]

    @classmethod
    def parse(cls, text: str) -> PageRange:
        """Reads "1-3,7,10-"; an empty text is every page.

        Raises:
            UsageError: it is none.
        """
        spans: list[tuple[int, int | None]] = []
        for part in filter(None, (part.strip() for part in text.split(","))):
            found = re.fullmatch(r"(\d+)\s*(?:(-)\s*(\d+)?)?", part, re.ASCII)
            first = int(found[1]) if found else 0
            last = first if not found or not found[2] else int(found[3]) if found[3] else None
            if first < 1 or (last is not None and last < first):
                why = "Pages are numbers from 1, or spans of them."
                raise UsageError(f"{part!r} is no page range.", why, "Write it like 1-3,7,10- (10- is all from 10).")
            spans.append((first, last))
        return cls(tuple(spans) or ((1, None),))

    def numbers(self, count: int) -> list[int]:
        """The pages, from 1, of a document that has so many."""
        return [
            number
            for number in range(1, count + 1)
            if any(first <= number <= (count if last is None else last) for first, last in self.spans)
        ]


def read_pdf(path: Path, name: str, pages: PageRange, cut: Cut) -> Iterator[PdfScene | Skipped]:
    """Pictures from one PDF page by page; what cannot be used is said instead.

    A page is held out by the digest of its text, so that the same page is in the same split wherever it is found.
    No more than one page's text and one picture are held at a time.
    """
    import pypdfium2 as pdfium

    try:
        document = pdfium.PdfDocument(path)
    except pdfium.PdfiumError as error:
        yield Skipped(name, None, _explain(error))
        return
    except OSError as error:
        yield Skipped(name, None, f"it cannot be read: {error.strerror}")
        return
    try:
        numbers = pages.numbers(len(document))
        if not numbers:
            yield Skipped(name, None, f"it has {len(document)} pages, none of them asked for")
        for number in numbers:
            yield from _read_page(document, name, number, cut)
    finally:
        document.close()


def _explain(error: Exception) -> str:
    from pypdfium2.raw import FPDF_ERR_PASSWORD, FPDF_ERR_SECURITY

    if getattr(error, "err_code", None) in (FPDF_ERR_PASSWORD, FPDF_ERR_SECURITY):
        return "it is encrypted and asks for a password"
    return f"it is broken or no PDF ({error})"


def _read_page(document: PdfDocument, name: str, number: int, cut: Cut) -> Iterator[PdfScene | Skipped]:
    import pypdfium2 as pdfium

    page = None
    try:
        page = document[number - 1]
        lines = read_lines(page)
        if not lines:
            yield Skipped(name, number, "it has no text layer")
            return
        text = "\n".join(line.text for line in lines)
        digest = hashlib.sha256(text.encode("utf-8", "replace")).digest()
        split: Split = "heldout" if is_held_out(text) else "train"
        rng = np.random.default_rng([cut.seed, *digest[:8], number])
        found = 0
        for scene in _scenes(rng, page, lines, cut):
            yield PdfScene(number, split, scene)
            found += 1
        if not found:
            yield Skipped(name, number, f"no run of lines fits {cut.largest.width}×{cut.largest.height} pixels")
    except OverflowError as error:
        yield Skipped(name, number, f"it is huge: {error.args[0]:,} characters")
    except pdfium.PdfiumError as error:
        yield Skipped(name, number, f"it is broken ({error})")
    finally:
        if page is not None:
            page.close()


def _scenes(rng: np.random.Generator, page: PdfPage, lines: Sequence[Line], cut: Cut) -> Iterator[Scene]:
    """Pictures of runs of lines, in any order; no line is in two of them."""
    runs = [run for run in runs_of(lines) if any(len(line.text) >= _LETTERS for line in run)]
    made = 0
    # A run is taken the sooner the more it says.
    letters = np.array([sum(len(line.text) for line in run) for run in runs], dtype=float)
    for place in rng.choice(len(runs), len(runs), replace=False, p=letters / letters.sum()) if runs else ():
        rest = runs[place]
        while rest and made < cut.regions:
            scene, taken = _cut_out(rng, page, lines, rest, cut)
            rest = rest[taken:]
            if scene is not None:
                made += 1
                yield scene


def _cut_out(
    rng: np.random.Generator, page: PdfPage, lines: Sequence[Line], run: Sequence[Line], cut: Cut
) -> tuple[Scene | None, int]:
    """A picture of the first lines of a run, as many as fit, and how many lines of it are done with."""
    height = float(np.median([line.area.height for line in run]))
    target = cut.least * (cut.most / cut.least) ** rng.random()
    inside: list[Line] = []
    area, scale, most = run[0].area.joined(run[0].ink), 0.0, int(rng.integers(1, 13))
    for line in run[:most]:
        joined = area.joined(line.area).joined(line.ink)
        fitting = min(cut.largest.width / (joined.width + height), cut.largest.height / (joined.height + height))
        if not line.text or fitting < cut.least / height:
            break
        inside.append(line)
        area, scale = joined, min(fitting, target / height)
    if not inside or sum(len(line.text) for line in inside) < _LETTERS:
        return None, max(1, len(inside))
    others = [line.ink for line in lines if all(line is not one for one in inside)]
    window = area.free(_MARGIN * height, others)  # narrower where neighbours are near
    if window is None:
        return None, 1
    wanted = area.widened(_MARGIN * height)
    picture = _render(page, window, wanted, scale)
    levels = np.asarray(picture.convert("L"))
    if int(levels.max()) - int(levels.min()) < _CONTRAST:
        return None, len(inside)
    return _ask(rng, picture, wanted, inside, scale, cut), len(inside)


def _render(page: PdfPage, window: Area, wanted: Area, scale: float) -> Image.Image:
    """Paints a part of a page (memory is that of the part) on paper that is as large as wanted."""
    width, height = page.get_size()
    seen = Area(max(0.0, window.left), max(0.0, window.top), min(width, window.right), min(height, window.bottom))
    crop = (seen.left, height - seen.bottom, width - seen.right, seen.top)
    bitmap = page.render(scale=scale, crop=crop, rev_byteorder=True, draw_annots=False, may_draw_forms=False)
    try:
        painted = bitmap.to_pil().convert("RGB")
        paper = Image.new("RGB", _pixels(wanted, scale), _paper(painted))
        paper.paste(painted, (round((seen.left - wanted.left) * scale), round((seen.top - wanted.top) * scale)))
        return paper
    finally:
        bitmap.close()


def _pixels(area: Area, scale: float) -> tuple[int, int]:
    return max(1, round(area.width * scale)), max(1, round(area.height * scale))


def _paper(picture: Image.Image) -> tuple[int, ...]:
    """The colour that most of a picture's outermost pixels have."""
    levels = np.asarray(picture)
    edge = np.concatenate([levels[0], levels[-1], levels[:, 0], levels[:, -1]])
    colours, counts = np.unique(edge, axis=0, return_counts=True)
    return tuple(int(level) for level in colours[counts.argmax()])


def _ask(
    rng: np.random.Generator, picture: Image.Image, seen: Area, lines: Sequence[Line], scale: float, cut: Cut
) -> Scene:
    texts = tuple(line.text for line in lines)
    exchanges = []
    if sum(map(len, texts)) + len(texts) - 1 <= cut.longest:
        exchanges.append(Exchange("page-read", word_question(rng, READ_QUESTIONS), "\n".join(texts)))
    asked, framed = (int(place) for place in rng.integers(len(texts), size=2))
    if len(texts) > 1:
        question = word_question(rng, LINE_QUESTIONS, number=str(asked + 1))
        exchanges.append(Exchange("page-line", question, texts[asked]))
        if rng.random() < _FRAME_SHARE:
            colour = str(rng.choice(list(FRAMES)))
            _frame(picture, lines[framed].area, seen, scale, FRAMES[colour])
            exchanges.append(Exchange("page-frame", word_question(rng, FRAME_QUESTIONS, colour=colour), texts[framed]))
    return Scene(picture, tuple(exchanges), texts, facts={"scale": scale, "window": seen})


def _frame(picture: Image.Image, area: Area, seen: Area, scale: float, colour: tuple[int, int, int]) -> None:
    corners = (
        max(0.0, (area.left - seen.left) * scale - 2),
        max(0.0, (area.top - seen.top) * scale - 1),
        min(picture.width - 1.0, (area.right - seen.left) * scale + 2),
        min(picture.height - 1.0, (area.bottom - seen.top) * scale + 1),
    )
    ImageDraw.Draw(picture).rectangle(corners, outline=colour, width=1 if scale * area.height < 24 else 2)
