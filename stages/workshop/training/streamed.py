"""A set larger than memory as training sees it: rows are read, measured and tokenized as it goes on.

Nothing is checked before the first step but that the data can be opened; unusable rows are counted on the way, and too
many of them stop the run (`bad_rows`).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from stages.artifacts.errors import DataError, ImageError
from stages.workshop.corpus.readers.source import RowSource
from stages.workshop.corpus.row import Row
from stages.workshop.training.data import check_positions, sample_builder, tile_source
from stages.workshop.training.machine import Machine
from stages.workshop.training.order import Steps
from stages.workshop.training.pictures import TileSource
from stages.workshop.training.recipe import TrainRecipe
from stages.workshop.training.sample_report import Case, SampleReport
from stages.workshop.training.sources import Outline
from stages.workshop.training.streamed_order import FiledReport, StreamedOrder
from stages.workshop.training.streaming import RowStream

# Rows from which a fresh tokenizer learns, and from which lengths are estimated.
SAMPLED_ROWS = 100_000


@dataclass(frozen=True)
class Streamed:
    """What there is to learn, unread.

    Attributes:
        rows: where it is read.
        outline: the model's configuration and processor.
        tiles: where pictures' tiles come from.
        report: what became of the rows of all processes, once the run is over.
    """

    rows: RowSource
    outline: Outline
    tiles: TileSource
    report: SampleReport = field(default_factory=SampleReport)

    def order(self, recipe: TrainRecipe, plan: Steps, states: Path) -> StreamedOrder:
        """The samples of one process, step by step; what becomes of its rows is written among the states."""
        stream = RowStream(self.rows, recipe.seed, recipe.shuffle_rows, plan.rank, plan.processes)
        report = FiledReport(_cases(states, plan.rank))
        builder = sample_builder(self.outline, recipe, self.tiles, report)
        return StreamedOrder(stream, builder, report, plan, packed=recipe.packing, bad_rows=recipe.bad_rows)


def open_stream(rows: RowSource, outline: Outline, recipe: TrainRecipe, tiles: Path | TileSource | None) -> Streamed:
    """A stream of rows, for a model and a recipe.

    Raises:
        RecipeError: the sequences are longer than the model's positions.
        ArtifactError: the tiles are of another size.
    """
    check_positions(outline, recipe)
    # A picture comes again only after all others: keeping its tiles would only fill the memory.
    return Streamed(rows, outline, tile_source(outline, recipe, tiles, budget=0))


def first_rows(rows: RowSource, count: int = SAMPLED_ROWS) -> Iterator[Row]:
    """The first usable rows.

    Raises:
        DataError: the data cannot be read, or there are none.
    """
    found = itertools.islice((row for row in rows if isinstance(row, Row)), count)
    first = next(found, None)
    if first is None:
        raise DataError(
            f"{rows.path} holds no conversation.", "There is nothing to learn from.", "Gather or render a larger set."
        )
    yield first
    yield from found


def measure_rows(streamed: Streamed, recipe: TrainRecipe, rows: Iterable[Row]) -> SampleReport:
    """What some rows come to; those whose pictures cannot be measured are left out."""
    report = SampleReport()
    builder = sample_builder(streamed.outline, recipe, streamed.tiles, report)
    for row in rows:
        try:
            builder.build(row)
        except ImageError as error:
            report.note(Case(row.name, "broken", problems=(error.what,)))
    if not report.samples:
        raise DataError(
            f"None of the first {report.rows} rows of {streamed.rows.path} gives a sample.",
            "All of them are too long, hold no answer, or cannot be used.",
            "Raise sequence_length, allow fewer tiles, or check the data.",
        )
    return report


def hand_in(order: StreamedOrder, states: Path, rank: int) -> None:
    """Writes what one process found out, once its run is over."""
    counts = order.close().state_dict()
    _counts(states, rank).write_text(json.dumps(counts), encoding="utf-8")


def gather(streamed: Streamed, machine: Machine, states: Path) -> Iterator[str]:
    """Adds up what all processes handed in; gives the lines of their cases."""
    for rank in range(machine.processes):
        streamed.report.add(json.loads(_counts(states, rank).read_text(encoding="utf-8")))
        with _cases(states, rank).open(encoding="utf-8") as lines:
            yield from lines


def _cases(states: Path, rank: int) -> Path:
    return states / f"cases-{rank}.jsonl"


def _counts(states: Path, rank: int) -> Path:
    return states / f"counts-{rank}.json"
