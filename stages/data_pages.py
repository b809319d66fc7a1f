"""data pages: pages of PDFs as pictures, with questions from their own text.

bluelm data pages papers/ --pages 1-10 --out build/pages
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from stages.artifacts.digest import digest_file
from stages.artifacts.errors import BluelmError, DataError, RecipeError, raise_all
from stages.artifacts.events import Events, Finished, Notice, Progress
from stages.artifacts.folder import ArtifactSpec, Draft, create, up_to_date
from stages.artifacts.guarding import refuse_inputs
from stages.artifacts.manifest import Parent
from stages.artifacts.recipes import RecipeModel
from stages.device.imaging.geometry import Size
from stages.workshop.corpus.index import CorpusIndex, SplitCount
from stages.workshop.corpus.llava import write_llava
from stages.workshop.corpus.picture import PictureFile
from stages.workshop.corpus.rendering.degradation_shares import DegradationShare, problems_of
from stages.workshop.corpus.rendering.degradations import degrade
from stages.workshop.corpus.rendering.generation import IMAGES, encode, rows_about
from stages.workshop.corpus.rendering.pdf_pages import Cut, PageRange, PdfScene, Skipped, read_pdf
from stages.workshop.corpus.rendering.scene import SPLITS, Split
from stages.workshop.corpus.row import IMAGE_MARK, Row

# So many skipped pages are told one by one; the manifest names all.
_TOLD = 20


class PagesConfig(RecipeModel):
    """What is made of each page."""

    pages: str = Field(default="", description="which pages of each PDF, such as 1-3,7,10-; all where empty")
    regions: int = Field(default=4, ge=1, description="most pictures from one page")
    width: int = Field(default=384, ge=32, le=4096, description="greatest width of a picture, in pixels")
    height: int = Field(default=384, ge=32, le=4096, description="greatest height of a picture, in pixels")
    least_text: float = Field(default=12.0, ge=4, le=200, description="least height of a line of text, in pixels")
    most_text: float = Field(default=28.0, ge=4, le=400, description="greatest height of a line of text, in pixels")
    longest: int = Field(default=800, ge=1, description="most letters of a text that is to be read whole")
    turns: int = Field(default=3, ge=1, description="most questions about one training picture")
    form: Literal["jpeg", "png"] = Field(default="jpeg", description="file format of the pictures")
    degradations: tuple[DegradationShare, ...] = Field(
        default=(), description="what befalls pictures once they are cut"
    )
    seed: int = Field(default=0, ge=0, description="seed of everything drawn")

    @model_validator(mode="after")
    def _fits(self) -> PagesConfig:
        problems: list[BluelmError] = problems_of(self.degradations)
        try:
            PageRange.parse(self.pages)
        except BluelmError as error:
            problems += error.problems
        if self.least_text > self.most_text:
            what = f"least_text is {self.least_text}, most_text {self.most_text}."
            problems.append(RecipeError(what, "No line is both.", "Exchange them."))
        raise_all(problems)
        return self

    @property
    def cut(self) -> Cut:
        """The same as pages take it."""
        largest = Size(self.width, self.height)
        return Cut(self.seed, self.regions, largest, self.least_text, self.most_text, self.longest)


@dataclass(frozen=True)
class PagesResult:
    """Counts per split, what gave nothing and why, and the folder the corpus was (or would be) written to."""

    index: CorpusIndex
    files: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    repeated: int
    out: Path | None
    config: PagesConfig

    def as_dict(self) -> dict[str, Any]:
        """`{"splits": {…}, "files", "skipped": [{"file", "page", "why"}], "repeated", "out", "config"}`."""
        return {
            **self.index.as_dict(),
            "files": list(self.files),
            **_skipped_as_dict(self.skipped, self.repeated),
            "out": str(self.out) if self.out is not None else None,
            "config": self.config.model_dump(mode="json"),
        }


@dataclass
class _Made:
    """What was made so far: rows and the pictures' texts by split."""

    rows: dict[Split, list[Row]] = field(default_factory=lambda: {split: [] for split in SPLITS})
    skipped: list[Skipped] = field(default_factory=list)
    trained: set[str] = field(default_factory=set)
    repeated: int = 0


def find_pdfs(paths: Sequence[Path]) -> dict[str, Path]:
    """PDFs by name: files as they are named, folders with all that they hold, in order.

    Raises:
        DataError: a path does not exist, or a folder holds none (all of them together).
    """
    problems: list[BluelmError] = []
    found: dict[str, Path] = {}
    for path in paths:
        inside = sorted(file for file in path.rglob("*") if file.suffix.lower() == ".pdf" and file.is_file())
        if not path.exists():
            problems.append(DataError(f"{path} does not exist.", "Its pages cannot be drawn.", "Check the path."))
        elif path.is_dir() and not inside:
            why = "Files ending in .pdf are looked for, in its subfolders too."
            problems.append(DataError(f"There is no PDF in {path}.", why, "Name a folder that holds some."))
        for file in inside if path.is_dir() else [path] if path.exists() else []:
            name = file.relative_to(path).as_posix() if path.is_dir() else file.name
            if name in found and found[name].resolve() != file.resolve():
                name = file.as_posix()
            found[name] = file
    raise_all(problems)
    return found


def plan(config: PagesConfig, paths: Sequence[Path], out: Path | None = None) -> PagesResult:
    """Which files would be read; opens none of them.

    Raises:
        DataError: there is nothing to read.
    """
    return PagesResult(CorpusIndex({}), tuple(find_pdfs(paths)), (), 0, out, config)


def run(config: PagesConfig, paths: Sequence[Path], out: Path, force: bool = False) -> Events[PagesResult]:
    """Makes a corpus of the pages of PDFs.

    Args:
        config: what is made of each page.
        paths: PDFs, and folders that hold some.
        out: the artifact folder.
        force: replace an artifact that differs.

    Raises:
        ArtifactError: something else lies at `out`, or it cannot be written.
        DataError: there is nothing to read, or no page can be used (each file and page named).
    """
    files = find_pdfs(paths)
    refuse_inputs(out, files.values())
    parents = tuple(Parent(path=name, digest=digest_file(file)) for name, file in files.items())
    spec = ArtifactSpec("corpus", "data", config.model_dump(mode="json"), seed=config.seed, parents=parents)
    done = up_to_date(out, spec, force=force)
    if done is not None:
        yield Notice(f"{out} is up to date")
        skipped = tuple(Skipped(**item) for item in done.metrics["skipped"])
        index = CorpusIndex.read(out)
        yield Finished(PagesResult(index, tuple(files), skipped, done.metrics["repeated"], out, config))
        return
    made = _Made()
    with create(out, spec, force=force) as draft:
        (draft.path / IMAGES).mkdir(exist_ok=True)
        for number, (name, file) in enumerate(files.items()):
            yield from _read_file(config, number, name, file, draft, made)
        yield from _tell(made.skipped)
        if not any(made.rows.values()):
            raise_all([_problem(item) for item in made.skipped])
        index = _write(draft, made)
    yield Finished(PagesResult(index, tuple(files), tuple(made.skipped), made.repeated, out, config))


def _problem(skipped: Skipped) -> DataError:
    why = "No other page could be used either, so there is nothing to write."
    return DataError(f"{skipped}.", why, "Name PDFs that open without a password and whose text can be marked.")


def _read_file(
    config: PagesConfig, number: int, name: str, file: Path, draft: Draft, made: _Made
) -> Iterator[Progress]:
    count = 0
    for found in read_pdf(file, name, PageRange.parse(config.pages), config.cut):
        yield Progress(f"reading {name}", found.page or 0, None, "pages")
        if isinstance(found, Skipped):
            made.skipped.append(found)
            continue
        picture = f"{number:04d}-{found.page:04d}-{count:04d}"
        image = f"{IMAGES}/{picture}.{'jpg' if config.form == 'jpeg' else 'png'}"
        found = _degraded(config, found, number, count)
        (draft.path / image).write_bytes(encode(found.scene.picture, config.form))
        pictures = (PictureFile(Path(), image),)
        rows = rows_about(picture, found.split, found.scene.exchanges, config.turns, IMAGE_MARK, pictures)
        made.rows[found.split] += rows
        if found.split == "train":
            made.trained.update(found.scene.texts)
        count += 1


def _degraded(config: PagesConfig, found: PdfScene, number: int, count: int) -> PdfScene:
    if not config.degradations:
        return found
    rng = np.random.default_rng([config.seed, number, found.page, count])
    picture, _ = degrade(found.scene.picture, rng, [share.degradation for share in config.degradations])
    return replace(found, scene=replace(found.scene, picture=picture))


def _write(draft: Draft, made: _Made) -> CorpusIndex:
    """Writes the rows; a held-out one whose answer has a line that training shows is left out and counted."""
    kept = [row for row in made.rows["heldout"] if not _lines(row) & made.trained]
    made.repeated = len(made.rows["heldout"]) - len(kept)
    made.rows["heldout"] = kept
    used = {row.pictures[0].name for rows in made.rows.values() for row in rows}
    for image in (draft.path / IMAGES).iterdir():
        if f"{IMAGES}/{image.name}" not in used:
            image.unlink()
    counts: dict[str, SplitCount] = {split: _count(rows) for split, rows in made.rows.items()}
    for split, rows in made.rows.items():
        write_llava(draft.path / f"{split}.json", rows)
    index = CorpusIndex(counts)
    index.write(draft.path)
    draft.metrics.update(index.as_dict(), **_skipped_as_dict(made.skipped, made.repeated))
    return index


def _lines(row: Row) -> set[str]:
    return {line for turn in row.turns if turn.role == "assistant" for line in turn.text.split("\n")}


def _count(rows: Sequence[Row]) -> SplitCount:
    questions = Counter(task for row in rows for task in row.tasks)
    return SplitCount(len({picture.name for row in rows for picture in row.pictures}), len(rows), dict(questions))


def _tell(skipped: Sequence[Skipped]) -> Iterator[Notice]:
    for item in skipped[:_TOLD]:
        yield Notice(f"skipped {item}", "warning")
    if len(skipped) > _TOLD:
        yield Notice(f"skipped {len(skipped) - _TOLD} more; artifact.json names them all", "warning")


def _skipped_as_dict(skipped: Sequence[Skipped], repeated: int) -> dict[str, Any]:
    return {
        "skipped": [{"file": item.file, "page": item.page, "why": item.why} for item in skipped],
        "repeated": repeated,
    }
