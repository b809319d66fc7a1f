"""data check: every row of a set looked at; a report, and a corpus of the rows that can be used.

bluelm data check llava.json --images data/images --preset bluelm-v-3b --out build/clean
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from stages.artifacts.digest import digest_json
from stages.artifacts.errors import UsageError
from stages.artifacts.events import Events, Finished, Notice, Progress
from stages.artifacts.folder import ArtifactSpec, create, open_artifact, up_to_date
from stages.artifacts.guarding import refuse_inputs
from stages.artifacts.manifest import Parent, parent_of, read_manifest
from stages.artifacts.recipes import RecipeModel
from stages.device.imaging.presets import imaging_preset
from stages.workshop.corpus.checking import Length
from stages.workshop.corpus.checking_output import FINDINGS_FILE, REPORT_FILE, CleanCorpus
from stages.workshop.corpus.checking_pool import replayed
from stages.workshop.corpus.picture import PictureFile
from stages.workshop.corpus.processes import cores
from stages.workshop.corpus.readers.opening import open_rows, splits_of
from stages.workshop.corpus.readers.source import RowSource, parent_of_rows
from stages.workshop.corpus.row import Row
from stages.workshop.training.recipe import Tiling

if TYPE_CHECKING:
    from stages.workshop.training.sources import Outline

_PROGRESS_EVERY = 64


class CheckConfig(RecipeModel):
    """What is checked."""

    format: str | None = Field(default=None, description="the input's format; absent: seen in its content")
    splits: tuple[str, ...] = Field(default=(), description="splits to check; none named: all that the input has")
    preset: str | None = Field(
        default=None, description="count tokens for this shape, with a tokenizer taught by these rows"
    )
    sequence_length: int = Field(default=4096, ge=2, description="most tokens of a row, image tokens included")
    tiling: Tiling = Field(default_factory=Tiling, description="how pictures become tiles when tokens are counted")
    copy_pictures: bool = Field(default=False, description="copy the pictures into the corpus, each once")


@dataclass(frozen=True)
class CheckInputs:
    """What is on disk.

    Attributes:
        data: the set to check.
        images: the folder that names of pictures are relative to, where it is not the set's own.
        model: count tokens for this checkpoint.
    """

    data: Path
    images: Path | None = None
    model: Path | None = None


@dataclass(frozen=True)
class CheckResult:
    """What was found; before a run, what would be looked at."""

    report: Mapping[str, Any]
    format: str
    bytes: int | None
    out: Path | None
    config: CheckConfig

    @property
    def dropped(self) -> int:
        """Rows that were left out."""
        return int(self.report.get("dropped", 0))

    def as_dict(self) -> dict[str, Any]:
        """The report with where it was written."""
        return {
            **self.report,
            "format": self.format,
            "bytes": self.bytes,
            "out": str(self.out) if self.out is not None else None,
            "config": self.config.model_dump(mode="json"),
        }


def plan(config: CheckConfig, inputs: CheckInputs, out: Path | None = None) -> CheckResult:
    """What would be read: splits, their files and, where it costs nothing to know, their rows; looks at no row.

    Raises:
        BluelmError: the input cannot be opened.
    """
    sources = _sources(config, inputs)
    splits = {name: {"rows": source.count, "files": len(source.shards)} for name, source in sources.items()}
    return CheckResult({"splits": splits}, _format(sources), None, out, config)


def run(
    config: CheckConfig, inputs: CheckInputs, out: Path, force: bool = False, threads: int | None = None
) -> Events[CheckResult]:
    """Checks a set and writes the corpus of the rows that can be used. Interrupted, the same call goes on.

    Args:
        config: what to check.
        inputs: the set, its pictures, a model.
        out: the artifact folder.
        force: replace an artifact that differs.
        threads: processes that decode pictures; all cores when None. They change nothing in what is found.

    Raises:
        BluelmError: the input cannot be opened, or something else lies at `out`.
    """
    sources = _sources(config, inputs)
    refuse_inputs(out, (place for source in sources.values() for place in source.places))
    surveys = {}
    for split, source in sources.items():
        surveys[split] = yield from _survey(split, source)
    spec = ArtifactSpec(
        "corpus", "data check", config.model_dump(mode="json"), parents=_parents(inputs, sources, surveys)
    )
    done = up_to_date(out, spec, force=force)
    if done is not None:
        yield Notice(f"{out} is up to date")
        report = json.loads((out / REPORT_FILE).read_text(encoding="utf-8"))
        yield Finished(CheckResult(report, _format(sources), done.size, out, config))
        return
    with create(out, spec, force=force, resumable=True) as draft, tempfile.TemporaryDirectory() as scratch:
        if draft.resumed:
            yield Notice("going on where an earlier run stopped")
        length = _length(config, inputs, sources, Path(scratch))
        corpus = CleanCorpus(draft.path, config.copy_pictures)
        for split, source in sources.items():
            log = draft.path / FINDINGS_FILE.format(split=split)
            # Closed here: what its log could not write, on a full disk say, is then an error, no warning of Python.
            with closing(replayed(log, source, length, threads or cores())) as found:
                for number in corpus.write(split, found):
                    if number % _PROGRESS_EVERY == 0 or number == surveys[split].rows:
                        yield Progress(f"checking {split}", number, surveys[split].rows, "rows")
        corpus.finish()
        if not corpus.report.kept:
            yield Notice("no row can be used: the corpus is empty", "warning")
        report = corpus.report.as_dict()
        draft.metrics.update({key: report[key] for key in ("rows", "kept", "dropped", "splits")})
    yield Finished(CheckResult(report, _format(sources), read_manifest(out).size, out, config))


def _sources(config: CheckConfig, inputs: CheckInputs) -> dict[str, RowSource]:
    if config.preset is not None and inputs.model is not None:
        raise UsageError("A preset and --model are both given.", "Each says how tokens are counted.", "Leave one away.")
    if config.preset is not None:
        imaging_preset(config.preset)
    splits = config.splits or splits_of(inputs.data, config.format)
    return {split: open_rows(inputs.data, config.format, inputs.images, split) for split in splits}


def _format(sources: Mapping[str, RowSource]) -> str:
    return next(iter(sources.values())).format


@dataclass(frozen=True)
class _Survey:
    """How many rows a split has, and a digest of the names and sizes of the picture files they name."""

    rows: int
    digest: str


def _survey(split: str, source: RowSource) -> Generator[Progress, None, _Survey]:
    """Lists a split: what is up to date is decided by the pictures too, which no row's text tells."""
    listed = hashlib.sha256()
    rows = 0
    for row in source:
        rows += 1
        for picture in row.pictures if isinstance(row, Row) else ():
            if isinstance(picture, PictureFile):
                listed.update(f"{picture.name}\0{_size(picture.path)}\0".encode("utf-8", "surrogateescape"))
        if rows % (100 * _PROGRESS_EVERY) == 0:
            yield Progress(f"listing {split}", rows, source.count, "rows")
    return _Survey(rows, listed.hexdigest())


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return None


def _parents(
    inputs: CheckInputs, sources: Mapping[str, RowSource], surveys: Mapping[str, _Survey]
) -> tuple[Parent, ...]:
    """The set, the pictures it names, and the model."""
    data = dict.fromkeys(parent_of_rows(source) for source in sources.values())
    pictures = Parent(path="pictures", digest=digest_json([survey.digest for survey in surveys.values()]))
    model = [parent_of(open_artifact(inputs.model, "checkpoint").path)] if inputs.model is not None else []
    return (*data, pictures, *model)


def _length(config: CheckConfig, inputs: CheckInputs, sources: Mapping[str, RowSource], scratch: Path) -> Length | None:
    """How tokens are counted: as training with this model, tiling and length does."""
    if config.preset is None and inputs.model is None:
        return None
    outline = _outline(config, inputs, sources)
    prompts = outline.processor.prompts
    prompts.tokenizer.save(str(scratch / "tokenizer.json"))
    return Length(
        tokenizer=scratch / "tokenizer.json",
        template=prompts.template.source,
        image_token=prompts.image_token,
        variables=tuple(prompts.variables.items()),
        tiling=config.tiling.spec(outline.processor.image_processor.spec),
        most=config.sequence_length,
    )


def _outline(config: CheckConfig, inputs: CheckInputs, sources: Mapping[str, RowSource]) -> Outline:
    from stages.workshop.training.data import texts_of
    from stages.workshop.training.sources import FreshPreset, FromCheckpoint

    if inputs.model is not None:
        return FromCheckpoint(inputs.model).outline(())
    rows = (row for source in sources.values() for row in source if isinstance(row, Row))
    return FreshPreset(config.preset or "").outline(texts_of(rows))
