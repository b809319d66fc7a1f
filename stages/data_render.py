"""data render: pictures drawn from a seed, with questions and their answers.

bluelm data render --task colour --task shape --out build/corpus
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from stages.artifacts.errors import BluelmError, RecipeError, raise_all
from stages.artifacts.events import Events, Finished, Notice, Progress
from stages.artifacts.folder import ArtifactSpec, create, up_to_date
from stages.artifacts.recipes import RecipeModel
from stages.device.imaging.geometry import Grid
from stages.workshop.corpus.index import CorpusIndex, SplitCount
from stages.workshop.corpus.llava import Row, write_llava
from stages.workshop.corpus.rendering.backgrounds import TEXTURES
from stages.workshop.corpus.rendering.degradations import DEGRADATIONS, Degradation
from stages.workshop.corpus.rendering.generation import Job, cores, render
from stages.workshop.corpus.rendering.scene import SPLITS, Split
from stages.workshop.corpus.rendering.tasks import TASKS, families_of

Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class GridShare(RecipeModel):
    """Training pictures of one size."""

    cols: int = Field(ge=1, le=8, description="width in tiles")
    rows: int = Field(ge=1, le=8, description="height in tiles")
    share: float = Field(gt=0, allow_inf_nan=False, description="how many of the pictures, relative to the others")


class DegradationShare(RecipeModel):
    """Pictures that one kind of degradation befalls."""

    kind: str = Field(description="one of " + ", ".join(DEGRADATIONS))
    probability: Share = Field(description="share of the pictures that have it")
    strength: Share = Field(default=1.0, description="greatest amount; 1 is as bad as a reader can still read")


class RenderConfig(RecipeModel):
    """What is rendered."""

    tasks: tuple[str, ...] = Field(default=tuple(TASKS), description="tasks to draw and ask", min_length=1)
    train: int = Field(default=2000, ge=0, description="training pictures; each asks about all its tasks")
    heldout: int = Field(default=500, ge=0, description="held-out questions per task")
    side: int = Field(default=112, ge=16, le=2048, description="side of a picture of one tile, in pixels")
    grids: tuple[GridShare, ...] = Field(
        default=(GridShare(cols=1, rows=1, share=1),), description="sizes of pictures in tiles", min_length=1
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
    form: Literal["jpeg", "png"] = Field(default="jpeg", description="file format of the pictures")
    degradations: tuple[DegradationShare, ...] = Field(
        default=(), description="what befalls pictures once they are drawn: blur, shadows, a page that lies askew …"
    )
    degraded: tuple[Split, ...] = Field(default=SPLITS, description="splits whose pictures it befalls")
    seed: int = Field(default=0, ge=0, description="seed of everything drawn")

    @model_validator(mode="after")
    def _fits(self) -> RenderConfig:
        problems: list[BluelmError] = []
        try:
            families_of(self.tasks)
        except BluelmError as error:
            problems += error.problems
        for name in self.backgrounds:
            if name not in TEXTURES:
                fix = "Backgrounds: " + ", ".join(TEXTURES) + "."
                problems.append(RecipeError(f"There is no background {name!r}.", "It cannot be drawn.", fix))
        kinds = [item.kind for item in self.degradations]
        for index, kind in enumerate(kinds):
            if kind not in DEGRADATIONS:
                fix = "Kinds: " + ", ".join(DEGRADATIONS) + "."
                problems.append(RecipeError(f"There is no degradation {kind!r}.", "It cannot be applied.", fix))
            elif kind in kinds[:index]:
                what = f"The degradation {kind!r} stands twice."
                problems.append(RecipeError(what, "A picture has each kind at most once.", "Remove one."))
        if self.least_cover > self.most_cover:
            what = f"least_cover is {self.least_cover}, most_cover {self.most_cover}."
            problems.append(RecipeError(what, "No shape is both.", "Exchange them."))
        if self.nameless_colours + self.nameless_shapes > 1:
            what = f"nameless_colours is {self.nameless_colours}, nameless_shapes {self.nameless_shapes}."
            problems.append(RecipeError(what, "Together they are more than all pictures.", "Lower one."))
        if not self.train and not self.heldout:
            problems.append(RecipeError("train and heldout are both 0.", "Nothing is drawn.", "Ask for some pictures."))
        raise_all(problems)
        return self

    @property
    def job(self) -> Job:
        """The same as the generator takes it."""
        return Job(
            seed=self.seed,
            families=families_of(self.tasks),
            side=self.side,
            grids={Grid(item.cols, item.rows): item.share for item in self.grids},
            least=self.least_cover,
            most=self.most_cover,
            backgrounds=self.backgrounds,
            saturation=self.background_saturation,
            nameless_colours=self.nameless_colours,
            nameless_shapes=self.nameless_shapes,
            turns=self.turns,
            form=self.form,
            degradations=tuple(Degradation(**item.model_dump()) for item in self.degradations),
            degraded=self.degraded,
        )

    def pictures(self, split: Split) -> int:
        """How many pictures of a split are drawn: families take turns, a held-out one is asked once per task."""
        return self.train if split == "train" else self.heldout * len(families_of(self.tasks))


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
    """What would be drawn; draws nothing. Questions of training pictures are at most so many."""
    families = families_of(config.tasks)
    counts: dict[str, SplitCount] = {}
    for split in SPLITS:
        pictures = config.pictures(split)
        questions: Counter[str] = Counter()
        for index, tasks in enumerate(families.values()):
            drawn = len(range(index, pictures, len(families)))
            questions.update(dict.fromkeys(tasks, drawn))
        rows = pictures if split == "train" else questions.total()
        counts[split] = SplitCount(pictures, rows, dict(questions))
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
    """
    spec = ArtifactSpec("corpus", "data", config.model_dump(mode="json"), seed=config.seed)
    done = up_to_date(out, spec, force=force)
    if done is not None:
        yield Notice(f"{out} is up to date")
        yield Finished(RenderResult(CorpusIndex.read(out), done.size, out, config))
        return
    counts: dict[str, SplitCount] = {}
    with create(out, spec, force=force) as draft:
        for split in SPLITS:
            rows: list[Row] = []
            total = config.pictures(split)
            drawing = render(config.job, split, total, draft.path, threads or cores())
            for number, made in enumerate(drawing, start=1):
                rows += made
                yield Progress(f"drawing {split}", number, total, "pictures")
            write_llava(draft.path / f"{split}.json", rows)
            counts[split] = SplitCount(total, len(rows), dict(_tasks(rows)))
        index = CorpusIndex(counts)
        index.write(draft.path)
        draft.metrics.update(index.as_dict())
    yield Finished(RenderResult(index, _size(out), out, config))


def _tasks(rows: list[Row]) -> Mapping[str, int]:
    """Questions per task, in alphabetical order."""
    return dict(sorted(Counter(task for row in rows for task in row.tasks).items()))


def _size(out: Path) -> int:
    return sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
