"""data render: pictures drawn from a seed, with questions and their answers.

bluelm data render --task colour --task shape --out build/corpus
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from stages.artifacts.errors import BluelmError, RecipeError, raise_all
from stages.artifacts.events import Events, Finished, Notice, Progress
from stages.artifacts.folder import ArtifactSpec, create, up_to_date
from stages.artifacts.manifest import Parent
from stages.artifacts.recipes import RecipeModel
from stages.device.imaging.geometry import Grid, Size
from stages.workshop.corpus.index import CorpusIndex, SplitCount
from stages.workshop.corpus.llava import write_llava
from stages.workshop.corpus.processes import cores
from stages.workshop.corpus.rendering.backgrounds import TEXTURES
from stages.workshop.corpus.rendering.degradation_shares import DegradationShare, problems_of
from stages.workshop.corpus.rendering.fonts import FontShelf, find_fonts
from stages.workshop.corpus.rendering.generation import probe, render
from stages.workshop.corpus.rendering.job import GridChoice, Job
from stages.workshop.corpus.rendering.scene import SPLITS, Look, Split
from stages.workshop.corpus.rendering.scripts import SCRIPTS
from stages.workshop.corpus.rendering.tasks import FAMILIES, families_of
from stages.workshop.corpus.row import Row

# What is drawn where nothing is named: what also fits small pictures.
DEFAULT_TASKS = ("colour", "shape", "place", "count", "word", "number", "table")
Weight = Annotated[float, Field(gt=0, le=100)]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class GridShare(RecipeModel):
    """Training pictures of one size."""

    cols: int = Field(ge=1, le=8, description="width in tiles")
    rows: int = Field(ge=1, le=8, description="height in tiles")
    share: float = Field(gt=0, allow_inf_nan=False, description="how many of the pictures, relative to the others")
    families: tuple[str, ...] = Field(
        default=(), description="only these families, which then have no other sizes; all others where empty"
    )


class RenderConfig(RecipeModel):
    """What is rendered."""

    tasks: tuple[str, ...] = Field(default=DEFAULT_TASKS, description="tasks to draw and ask", min_length=1)
    train: int = Field(default=2000, ge=0, description="training pictures; each asks about all its tasks")
    heldout: int = Field(default=500, ge=0, description="held-out questions per task")
    side: int = Field(default=112, ge=16, le=2048, description="side of a picture of one tile, in pixels")
    grids: tuple[GridShare, ...] = Field(
        default=(GridShare(cols=1, rows=1, share=1),), description="sizes of pictures in tiles", min_length=1
    )
    weights: dict[str, Weight] = Field(
        default={}, description="how often a family draws a training picture, relative to the others; 1 if not named"
    )
    least_text: float = Field(default=10.0, ge=4, le=2048, description="least height of printed text, in pixels")
    most_text: float = Field(default=40.0, ge=4, le=2048, description="greatest height of printed text, in pixels")
    fonts: tuple[str, ...] = Field(default=(), description="folders with fonts, beside those that typst carries")
    scripts: tuple[str, ...] = Field(default=(), description="scripts of foreign texts; all that fonts cover if none")
    train_fonts: tuple[str, ...] = Field(default=(), description="names of the fonts of training pages; all if none")
    heldout_fonts: tuple[str, ...] = Field(default=(), description="names of the fonts of held-out pages; all if none")
    heldout_layouts: tuple[str, ...] = Field(
        default=(), description='layouts of held-out pages, which training never shows, such as "table/ledger"'
    )
    least_cover: Share = Field(default=0.15, description="least share of the picture that a single shape's box covers")
    most_cover: Share = Field(default=0.6, description="greatest share of the picture that a single shape's box covers")
    backgrounds: tuple[str, ...] = Field(
        default=("gradient", "stripes", "noise", "blobs"), description="textures behind shapes", min_length=1
    )
    background_saturation: float = Field(default=0.3, ge=0, le=1, description="most saturated a background may be")
    nameless_colours: float = Field(
        default=0.6,
        ge=0,
        lt=1,
        description="share of training pictures whose shape has a colour without a name and is asked for its name; "
        "if any, shapes of named colours are asked for their colour alone",
    )
    nameless_shapes: float = Field(
        default=0.25, ge=0, lt=1, description="share of training pictures whose shape has a named colour, but no name"
    )
    turns: int = Field(default=8, ge=1, description="most questions about one training picture")
    form: Literal["jpeg", "png", "text"] = Field(
        default="jpeg",
        description="file format of the pictures; text: none are drawn, what stands on a page stands in its question",
    )
    degradations: tuple[DegradationShare, ...] = Field(
        default=(), description="what befalls pictures once they are drawn: blur, shadows, a page that lies askew …"
    )
    degraded: tuple[Split, ...] = Field(default=SPLITS, description="splits whose pictures it befalls")
    seed: int = Field(default=0, ge=0, description="seed of everything drawn")
    shard: int = Field(default=1, ge=1, description="which part of the pictures to draw, the first is 1")
    shards: int = Field(default=1, ge=1, description="how many parts there are; together they are the whole set")

    @model_validator(mode="after")
    def _fits(self) -> RenderConfig:
        problems: list[BluelmError] = []
        for check in (self._families, self._layouts, self._font_names):
            try:
                check()
            except BluelmError as error:
                problems += error.problems
        for name in self.backgrounds:
            if name not in TEXTURES:
                fix = "Backgrounds: " + ", ".join(TEXTURES) + "."
                problems.append(RecipeError(f"There is no background {name!r}.", "It cannot be drawn.", fix))
        for name in self.scripts:
            if name not in SCRIPTS:
                fix = "Scripts: " + ", ".join(SCRIPTS) + "."
                problems.append(RecipeError(f"There is no script {name!r}.", "No text is written in it.", fix))
        problems += problems_of(self.degradations)
        if self.least_cover > self.most_cover:
            what = f"least_cover is {self.least_cover}, most_cover {self.most_cover}."
            problems.append(RecipeError(what, "No shape is both.", "Exchange them."))
        if self.nameless_colours + self.nameless_shapes > 1:
            what = f"nameless_colours is {self.nameless_colours}, nameless_shapes {self.nameless_shapes}."
            problems.append(RecipeError(what, "Together they are more than all pictures.", "Lower one."))
        if not self.train and not self.heldout:
            problems.append(RecipeError("train and heldout are both 0.", "Nothing is drawn.", "Ask for some pictures."))
        if self.least_text > self.most_text:
            what = f"least_text is {self.least_text}, most_text {self.most_text}."
            problems.append(RecipeError(what, "No text is both.", "Exchange them."))
        if self.shard > self.shards:
            what = f"shard is {self.shard}, but there are {self.shards} shards."
            problems.append(RecipeError(what, "There is no such part.", "Shards count from 1."))
        raise_all(problems)
        return self

    def _families(self) -> None:
        drawn = families_of(self.tasks)
        problems: list[BluelmError] = []
        for name in (*self.weights, *(name for item in self.grids for name in item.families)):
            if name not in FAMILIES:
                fix = "Families: " + ", ".join(FAMILIES) + "."
                problems.append(RecipeError(f"There is no family {name!r}.", "It cannot be drawn.", fix))
        limited = {name for item in self.grids for name in item.families}
        lacking = [name for name in drawn if name not in limited]
        if lacking and all(item.families for item in self.grids):
            what = f"No size in grids is for {', '.join(lacking)}."
            problems.append(RecipeError(what, "Every picture needs a size.", "Add a size without families."))
        raise_all(problems)

    def _layouts(self) -> None:
        known = {name: {f"{name}/{layout}" for layout in family.layouts} for name, family in FAMILIES.items()}
        problems: list[BluelmError] = []
        for layout in self.heldout_layouts:
            if not any(layout in layouts for layouts in known.values()):
                fix = "Layouts: " + ", ".join(sorted(set().union(*known.values()))) + "."
                problems.append(RecipeError(f"There is no layout {layout!r}.", "It cannot be held out.", fix))
        for name, layouts in known.items():
            if layouts and layouts <= set(self.heldout_layouts):
                what = f"All layouts of {name} are held out."
                problems.append(RecipeError(what, "Training would have none.", "Leave one for training."))
        raise_all(problems)

    def _font_names(self) -> None:
        find_fonts(self.fonts, self.train_fonts, self.heldout_fonts)

    @property
    def shelf(self) -> FontShelf:
        """The fonts of its pages."""
        return replace(find_fonts(self.fonts, self.train_fonts, self.heldout_fonts), written=self.scripts)

    @property
    def job(self) -> Job:
        """The same as the generator takes it."""
        return Job(
            seed=self.seed,
            families=families_of(self.tasks),
            side=self.side,
            grids=tuple(GridChoice(Grid(item.cols, item.rows), item.share, item.families) for item in self.grids),
            look=Look(
                Size(self.side, self.side),
                least=self.least_cover,
                most=self.most_cover,
                backgrounds=self.backgrounds,
                saturation=self.background_saturation,
                nameless_colours=self.nameless_colours,
                nameless_shapes=self.nameless_shapes,
                heights=(self.least_text, self.most_text),
                fonts=self.shelf,
                heldout_layouts=frozenset(self.heldout_layouts),
                families=tuple(families_of(self.tasks)),
            ),
            weights=self.weights,
            turns=self.turns,
            form=self.form,
            degradations=tuple(item.degradation for item in self.degradations),
            degraded=self.degraded,
        )

    def numbers(self, split: Split) -> range:
        """Which pictures of a split this shard draws; a held-out one is asked once per task."""
        pictures = self.train if split == "train" else self.heldout * len(families_of(self.tasks))
        return range(pictures * (self.shard - 1) // self.shards, pictures * self.shard // self.shards)


@dataclass(frozen=True)
class RenderResult:
    """Counts per split, and the folder the corpus was (or would be) written to. Questions are exact once drawn."""

    index: CorpusIndex
    bytes: int | None
    out: Path | None
    config: RenderConfig

    def as_dict(self) -> dict[str, Any]:
        """`{"splits": {"train" | "heldout": {"pictures", "rows", "questions": {task: count}}}, "bytes", …}`."""
        return {
            **self.index.as_dict(),
            "bytes": self.bytes,
            "out": str(self.out) if self.out is not None else None,
            "config": self.config.model_dump(mode="json"),
        }


def plan(config: RenderConfig, out: Path | None = None) -> RenderResult:
    """What would be drawn; keeps nothing. Questions of training pictures are at most so many.

    Raises:
        DataError: families that cannot be drawn.
    """
    job = config.job
    probe(job)
    counts: dict[str, SplitCount] = {}
    for split in SPLITS:
        numbers, turns = config.numbers(split), job.order(split)
        rounds, rest = divmod(len(numbers), len(turns))
        whole = Counter(turns)
        last = Counter(turns[number % len(turns)] for number in numbers[:rest])
        questions: Counter[str] = Counter()
        for family, tasks in job.families.items():
            questions.update(dict.fromkeys(tasks, rounds * whole[family] + last[family]))
        rows = len(numbers) if split == "train" else questions.total()
        counts[split] = SplitCount(len(numbers), rows, dict(questions))
    return RenderResult(CorpusIndex(counts), None, out, config)


def run(config: RenderConfig, out: Path, force: bool = False, threads: int | None = None) -> Events[RenderResult]:
    """Draws a corpus.

    Args:
        config: what to draw.
        out: the artifact folder.
        force: replace an artifact that differs.
        threads: processes that draw; all cores when None. They change nothing in what is drawn.

    Raises:
        ArtifactError: something else lies at `out`, or it cannot be written.
        DataError: families that cannot be drawn.
    """
    job = config.job
    fonts = job.look.fonts
    parents = tuple(Parent(path=name, digest=digest) for font in fonts.fonts for name, digest in font.files)
    spec = ArtifactSpec("corpus", "data", config.model_dump(mode="json"), seed=config.seed, parents=parents)
    done = up_to_date(out, spec, force=force)
    if done is not None:
        yield Notice(f"{out} is up to date")
        yield Finished(RenderResult(CorpusIndex.read(out), done.size, out, config))
        return
    probe(job)
    counts: dict[str, SplitCount] = {}
    with create(out, spec, force=force) as draft:
        for split in SPLITS:
            rows: list[Row] = []
            numbers = config.numbers(split)
            drawing = render(job, split, numbers, draft.path, threads or cores())
            for number, made in enumerate(drawing, start=1):
                rows += made
                yield Progress(f"drawing {split}", number, len(numbers), "pictures")
            write_llava(draft.path / f"{split}.json", rows)
            counts[split] = SplitCount(len(numbers), len(rows), dict(_tasks(rows)))
        index = CorpusIndex(counts)
        index.write(draft.path)
        draft.metrics.update(index.as_dict(), fonts=fonts.as_dict())
    yield Finished(RenderResult(index, _size(out), out, config))


def _tasks(rows: list[Row]) -> Mapping[str, int]:
    """Questions per task, in alphabetical order."""
    return dict(sorted(Counter(task for row in rows for task in row.tasks).items()))


def _size(out: Path) -> int:
    return sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
