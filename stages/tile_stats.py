"""`bluelm tile --stats`: what every tiling rule makes of a corpus, and what that costs (Sec. 5.1).

    bluelm tile SIZES.csv --stats --max-grid 3x3

Only sizes are read: from headers of pictures wherever they lie, or from a list of them. Memory does not grow with the
corpus.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from PIL import Image
from pydantic import Field

from stages.artifacts.errors import BluelmError, DataError, ImageError, raise_all
from stages.artifacts.events import Events, Finished, Notice, Progress
from stages.device.imaging.config import TilingConfig
from stages.device.imaging.loading import load_image
from stages.device.imaging.rules import RULES
from stages.device.imaging.sizes import SizeCounter
from stages.device.imaging.spec import Alpha, AnyRule
from stages.device.imaging.statistics import ALL_RULES, REFERENCE, Statistics
from stages.device.imaging.sweep import USUAL_ALPHAS, AlphaSweep
from stages.measure.tiling_costs import TilingCosts, with_costs
from stages.measure.tiling_report import check_report_place, report_file, write_report
from stages.workshop.corpus.picture import Picture
from stages.workshop.corpus.picture_sizes import Measured, picture_sizes
from stages.workshop.corpus.picture_streams import Unusable

# Broken pictures that are named; the rest is counted.
_NAMED = 10
_EXAMPLES = 4
# Examples are cropped to about this size for figures.
_EXAMPLE_SIDE = 400

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class StatsConfig(TilingConfig):
    """What is counted. `rule` is not looked at: all of `rules` are.

    Attributes:
        rules: the rules to compare, all where none is named; the relaxed one always.
        worst: how many of the sizes that a rule enlarges most are named.
        alpha_sweep: also count the relaxed rule for each of `alphas`.
        seconds_per_tile: what encoding a tile costs; None: as the bench says, if there is one.
        seconds_per_token: what reading an image token costs; likewise.
    """

    rules: tuple[AnyRule, ...] = ()
    worst: Annotated[int, Field(ge=0, le=1000)] = 10
    alpha_sweep: bool = False
    alphas: Annotated[tuple[Alpha, ...], Field(min_length=1, max_length=200)] = USUAL_ALPHAS
    seconds_per_tile: Seconds | None = None
    seconds_per_token: Seconds | None = None

    @property
    def compared(self) -> tuple[AnyRule, ...]:
        """The rules in their usual order."""
        return tuple(rule for rule in ALL_RULES if not self.rules or rule in self.rules or rule == REFERENCE)

    def costs(self, measured: TilingCosts | None) -> TilingCosts:
        """What is given, and what was measured for the rest."""
        given = self.seconds_per_tile, self.seconds_per_token
        if measured is None or None not in given:
            return TilingCosts(*given)
        kept = given[0] or measured.seconds_per_tile, given[1] or measured.seconds_per_token
        return TilingCosts(*kept, source=measured.source if given == (None, None) else f"given; {measured.source}")


@dataclass
class Unread:
    """What could not be read: how much of it, and the first by name."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, what: str) -> None:
        """Counts one."""
        self.count += 1
        self.first += [what] if len(self.first) < _NAMED else []


@dataclass(frozen=True)
class StatsResult:
    """The statistics of all inputs.

    Attributes:
        examples: some pictures of the inputs, to draw figures from.
        report: where a report was written.
    """

    inputs: tuple[str, ...]
    config: StatsConfig
    statistics: Statistics
    sweep: AlphaSweep | None
    costs: TilingCosts
    unread: Unread
    examples: tuple[Picture, ...] = ()
    report: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """images, rules, relaxed_vs, the mix of sizes, alpha_sweep, costs, unread, report, config."""
        figures = self.statistics.as_dict()
        if self.costs.known:
            with_costs(figures["rules"], self.costs, RULES)
        return {
            **figures,
            "alpha_sweep": None if self.sweep is None else self.sweep.as_rows(),
            "costs": self.costs.as_dict() if self.costs.known else None,
            "unread": {"count": self.unread.count, "first": self.unread.first},
            "inputs": list(self.inputs),
            "report": None if self.report is None else self.report.as_posix(),
            "config": self.config.model_dump(mode="json"),
        }


@dataclass(frozen=True)
class StatsPlan:
    """What would be counted, and where a report would go."""

    inputs: tuple[str, ...]
    config: StatsConfig
    report: Path | None

    def as_dict(self) -> dict[str, Any]:
        """inputs, report, config."""
        report = None if self.report is None else self.report.as_posix()
        return {"inputs": list(self.inputs), "report": report, "config": self.config.model_dump(mode="json")}


def plan(config: StatsConfig, inputs: Sequence[Path], *, report: Path | None = None, force: bool = False) -> StatsPlan:
    """What `run` would do; no picture is looked at.

    Raises:
        BluelmError: inputs that do not exist, or something else lies where the report would go.
    """
    _check_inputs(inputs)
    file = _report_place(report, force)
    return StatsPlan(tuple(path.as_posix() for path in inputs), config.resolved(), file)


def run(
    config: StatsConfig,
    inputs: Sequence[Path],
    *,
    images: Path | None = None,
    measured: TilingCosts | None = None,
    report: Path | None = None,
    figures_from: Sequence[Path] = (),
    force: bool = False,
    threads: int | None = None,
) -> Events[StatsResult]:
    """Reads all sizes and counts.

    A picture of a corpus that cannot be read is left out, counted and told.

    Args:
        config: what is counted.
        inputs: pictures, folders, conversation data, shards, and lists of sizes (CSV).
        images: where pictures lie that the data names, if not beside it.
        measured: what a bench says of tiles and tokens.
        report: an HTML file to write, or a folder for it.
        figures_from: pictures to draw the report's figures from; some of the inputs' own where none is named.
        force: replace what lies where the report goes.
        threads: of reading headers.

    Raises:
        BluelmError: inputs that cannot be used, or hold no picture that can be read; the report cannot be written.
    """
    resolved = plan(config, inputs, report=report, force=force).config
    drawn = [load_image(path) for path in figures_from]
    for text in resolved.warnings(compare=True):
        yield Notice(text, "warning")
    statistics = Statistics(resolved.spec, resolved.compared, resolved.worst)
    sweep = AlphaSweep(resolved.spec, resolved.alphas) if resolved.alpha_sweep else None
    unread = Unread()
    examples = yield from _count(inputs, images, threads, [statistics, *filter(None, [sweep])], unread)
    if not statistics.images:
        first = f"; the first of {unread.count:,} problems: {unread.first[0]}" if unread.count else ""
        raise ImageError(
            f"{', '.join(map(str, inputs))}: no picture{first}.", "There is nothing to count.", "Name other inputs."
        )
    if unread.count:
        some = "\n  ".join(unread.first)
        yield Notice(f"{unread.count:,} pictures or rows cannot be read and are left out:\n  {some}", "warning")
    names = tuple(path.as_posix() for path in inputs)
    file = _report_place(report, force)
    result = StatsResult(names, resolved, statistics, sweep, resolved.costs(measured), unread, tuple(examples), file)
    if file is not None:
        write_report(file, result.as_dict(), drawn or list(_loaded(examples)))
    yield Finished(result)


def _report_place(report: Path | None, force: bool) -> Path | None:
    if report is None:
        return None
    file = report_file(report)
    check_report_place(file, force)
    return file


def _loaded(pictures: Sequence[Picture]) -> Iterator[Image.Image]:
    """Those that can be decoded: a header alone said that they are pictures."""
    for picture in pictures:
        try:
            yield picture.load()
        except ImageError:
            continue


def _check_inputs(inputs: Sequence[Path]) -> None:
    """Raises: BluelmError: inputs that do not exist, all together."""
    problems: list[BluelmError] = []
    for path in inputs:
        try:
            path.stat()
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            problems.append(DataError(f"{path} cannot be read: {why}.", "It is an input.", "Check the path."))
    raise_all(problems)


def _count(
    inputs: Sequence[Path],
    images: Path | None,
    threads: int | None,
    sums: Sequence[Statistics | AlphaSweep],
    unread: Unread,
) -> Generator[Progress | Notice, None, list[Picture]]:
    """Adds the sizes of all inputs to the sums; returns some pictures as examples, large ones if there are."""
    counter = SizeCounter()
    done = 0
    large: list[Picture] = []
    small: list[Picture] = []
    for path in inputs:
        for batch in picture_sizes(path, images, threads):
            for item in batch:
                if isinstance(item, Unusable):
                    unread.add(item.what)
                    continue
                counter.add(item.sized)
                done += item.sized.count
                _offer(item, large, small)
                if counter.is_full:
                    _add(counter, sums)
            yield Progress("reading sizes", done, None, "pictures")
    _add(counter, sums)
    return (large + small)[:_EXAMPLES]


def _add(counter: SizeCounter, sums: Sequence[Statistics | AlphaSweep]) -> None:
    block = counter.take()
    if len(block):
        for sum in sums:
            sum.add(block)


def _offer(item: Measured, large: list[Picture], small: list[Picture]) -> None:
    kept = large if min(item.sized.size) >= _EXAMPLE_SIDE else small
    if item.picture is not None and len(kept) < _EXAMPLES and item.picture not in kept:
        kept.append(item.picture)
