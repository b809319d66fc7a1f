"""data mix: rows of several sources in given shares, drawn, shuffled, and told apart from what was asked.

bluelm data mix --recipe mix-table1.yaml --source text-public=PATH … --total 1000000 --out build/mixture
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stages.artifacts.errors import DataError, UsageError
from stages.artifacts.events import Events, Finished, Notice, Progress
from stages.artifacts.folder import ArtifactSpec, create, up_to_date
from stages.artifacts.guarding import refuse_inputs
from stages.artifacts.manifest import parent_of
from stages.workshop.corpus.copied import roots_or_copies
from stages.workshop.corpus.index import CorpusIndex, SplitCount
from stages.workshop.corpus.llava import LlavaWriter, Refer
from stages.workshop.corpus.mixture import Mixture
from stages.workshop.corpus.mixture_draw import DiskShuffle, SequentialDraw, generator
from stages.workshop.corpus.mixture_report import Tally, report, warnings
from stages.workshop.corpus.mixture_rows import (
    line_of,
    of_source,
    picture_key,
    token_counter,
    tokenizer_file,
)
from stages.workshop.corpus.mixture_scan import HELDOUT, Scanner, heldout_of, open_sources
from stages.workshop.corpus.mixture_shares import Draw, share_out
from stages.workshop.corpus.readers.source import RowSource, parent_of_rows
from stages.workshop.corpus.row import BadRow, Row

TRAIN = "train"
LEFT_OUT_FILE = "left_out.jsonl"
REPORT_FILE = "report.json"
_WORK = ".mixing"
_PROGRESS_EVERY = 1000


@dataclass(frozen=True)
class MixResult:
    """What was drawn, or would be; `report` is what `report.json` holds."""

    report: dict[str, Any]
    out: Path | None
    config: Mixture

    def as_dict(self) -> dict[str, Any]:
        """The report, with `out` and `config`."""
        config = self.config.model_dump(mode="json")
        return {**self.report, "out": str(self.out) if self.out is not None else None, "config": config}


def plan(config: Mixture, out: Path | None = None) -> Events[MixResult]:
    """What would be drawn, from the numbers of rows; what cannot be used and what is kept apart is not looked for.

    Raises:
        BluelmError: sources that cannot be opened, all of them together.
    """
    sources = open_sources(_given(config))
    rows: dict[str, int] = {}
    for name, source in sources.items():
        yield Progress(f"counting {name}", len(rows), len(sources), "sources")
        counted = source.count
        rows[name] = counted if counted is not None else sum(1 for _ in source)
    kept = config.heldout.share if config.heldout is not None and config.heldout.share is not None else 0.0
    draws = share_out(config, {name: round(count * (1 - kept)) for name, count in rows.items()})
    content = report(config, draws, {}, None, False)
    yield from (Notice(text, "warning") for text in warnings(content, config))
    yield Finished(MixResult(content, out, config))


def run(
    config: Mixture, out: Path, *, copy_pictures: bool = False, tokenizer: Path | None = None, force: bool = False
) -> Events[MixResult]:
    """Draws a mixture. Sources are read twice, row by row; no source is ever whole in memory.

    Args:
        config: what to draw.
        out: the artifact folder.
        copy_pictures: copy pictures into it, instead of referring to where they lie.
        tokenizer: count the drawn rows' tokens with it.
        force: replace an artifact that differs.

    Raises:
        BluelmError: sources that cannot be opened or used; something else lies at `out`, or it cannot be written.
    """
    sources = open_sources(_given(config))
    own = heldout_of(config.given)
    apart = own if config.heldout is not None and config.heldout.own else {}
    if config.heldout is not None and config.heldout.own and not own:
        why = "Nothing would be kept apart."
        raise UsageError(
            "No source has a held-out split of its own.", why, "Say how much: --heldout SHARE, or a number."
        )
    refuse_inputs(out, (place for source in sources.values() for place in source.places))
    count_tokens = token_counter(tokenizer) if tokenizer is not None else None
    spec = _spec(config, sources, apart, copy_pictures, tokenizer)
    if up_to_date(out, spec, force=force) is not None:
        yield Notice(f"{out} is up to date")
        content = json.loads((out / REPORT_FILE).read_text(encoding="utf-8"))
        yield Finished(MixResult(content, out, config))
        return
    with create(out, spec, force=force) as draft:
        work = draft.path / _WORK
        work.mkdir()
        with (draft.path / LEFT_OUT_FILE).open("w", encoding="utf-8") as left_out:
            scanner = Scanner(config, work, left_out)
            yield from scanner.run(sources)
            draws = share_out(config, {name: scan.train for name, scan in scanner.scans.items()})
            if not sum(draw.drawn for draw in draws):
                raise DataError(
                    "The mixture has no row.", "Nothing would be written.", "Raise total, or give more sources."
                )
            refer, roots = roots_or_copies(draft.path, copy_pictures)
            drawing = _Drawing(config, draft.path, work, refer, draws, count_tokens)
            yield from drawing.run(sources, apart, scanner)
        yield from drawing.write()
        shutil.rmtree(work)
        scans = {name: replace(scan, heldout=drawing.heldout.rows[name]) for name, scan in scanner.scans.items()}
        content = report(config, draws, scans, drawing.tally, count_tokens is not None)
        index = CorpusIndex(drawing.splits(), roots.folders)
        index.write(draft.path)
        (draft.path / REPORT_FILE).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
        draft.metrics.update({**index.as_dict(), "mixture": content})
    yield from (Notice(text, "warning") for text in warnings(content, config))
    if own and config.heldout is None:
        yield Notice(f"{', '.join(own)}: held-out rows of their own are not taken; --heldout own takes them", "warning")
    yield Finished(MixResult(content, out, config))


class _Drawing:
    """Takes rows from their sources to the files of the corpus."""

    def __init__(
        self,
        config: Mixture,
        folder: Path,
        work: Path,
        refer: Refer,
        draws: list[Draw],
        count_tokens: Callable[[Row], int] | None,
    ) -> None:
        self.tally, self.heldout = Tally(), Tally()
        self._config, self._folder, self._refer = config, folder, refer
        self._draws = {draw.name: draw for draw in draws}
        self._total = sum(draw.drawn for draw in draws)
        self._count_tokens = count_tokens
        self._shuffle = DiskShuffle(work / "lines", self._total, config.seed)
        self._done = 0

    def run(
        self, sources: Mapping[str, RowSource], apart: Mapping[str, RowSource], scanner: Scanner
    ) -> Iterator[Progress]:
        """Reads all sources again and keeps what is drawn, and the whole of what is kept apart.

        Raises:
            DataError: a source changed since it was counted.
        """
        with ExitStack() as stack:
            heldout = None
            if self._config.heldout is not None:
                heldout = stack.enter_context(LlavaWriter(self._folder / f"{HELDOUT}.json", self._refer))
            for name, rows in sources.items():
                yield from self._draw(name, rows, scanner, heldout)
            for name, rows in apart.items():
                for row in scanner.usable_of(name, rows):
                    self._keep_apart(name, row, heldout)

    def _draw(self, name: str, rows: RowSource, scanner: Scanner, heldout: LlavaWriter | None) -> Iterator[Progress]:
        scan, draw = scanner.scans[name], self._draws[name]
        chance = SequentialDraw(scan.train, draw.drawn, generator(self._config.seed, "draw", name))
        number = -1
        for number, row in enumerate(rows):
            if number >= scan.read:
                break
            side = scanner.side_of(name, number, row)
            if side is None or isinstance(row, BadRow):
                continue
            if side == TRAIN:
                self._take(name, row, chance.next(), chance.most)
            elif side == HELDOUT:
                self._keep_apart(name, row, heldout)
            if number % _PROGRESS_EVERY == 0:
                yield Progress("drawing", self._done, self._total, "rows drawn")
        if number + 1 != scan.read or chance.left:
            raise DataError(
                f"{rows.path} changed while it was read.", "What was counted is not there any more.", "Run it again."
            )

    def _take(self, name: str, row: Row, times: int, most: int) -> None:
        for copy in range(times):
            self._shuffle.add(line_of(name, of_source(name, row, copy, most), self._refer))
        if times:
            self._done += times
            self._count(self.tally, name, row, times)
            if self._count_tokens is not None:
                self.tally.tokens[name] += times * self._count_tokens(row)

    def _keep_apart(self, name: str, row: Row, heldout: LlavaWriter | None) -> None:
        assert heldout is not None
        heldout.write(of_source(name, row))
        self._count(self.heldout, name, row, 1)

    def _count(self, tally: Tally, name: str, row: Row, times: int) -> None:
        tally.rows[name] += times
        tally.add_pictures(name, [picture_key(picture) for picture in row.pictures])
        for task in row.tasks:
            tally.questions[task] += times

    def write(self) -> Iterator[Progress]:
        """Writes what was drawn, in its random order."""
        with LlavaWriter(self._folder / f"{TRAIN}.json", self._refer) as writer:
            for line in self._shuffle.lines():
                writer.write_line(line)
                if writer.rows % _PROGRESS_EVERY == 0:
                    yield Progress("writing", writer.rows, self._total, "rows written")

    def splits(self) -> dict[str, SplitCount]:
        """Counts for the corpus' index."""
        sides = {TRAIN: self.tally}
        if self._config.heldout is not None:
            sides[HELDOUT] = self.heldout
        return {
            name: SplitCount(tally.pictures(), tally.rows.total(), dict(sorted(tally.questions.items())))
            for name, tally in sides.items()
        }


def _given(config: Mixture) -> Mapping[str, Any]:
    """The sources that have a place.

    Raises:
        UsageError: none has.
    """
    if not config.given:
        names = ", ".join(config.sources)
        fix = f"Say where they lie: --source NAME=PATH, or set the variables that the recipe names. Sources: {names}."
        raise UsageError("No source has a path.", "There is nothing to draw from.", fix)
    return config.given


def _spec(
    config: Mixture,
    sources: Mapping[str, RowSource],
    apart: Mapping[str, RowSource],
    copied: bool,
    tokenizer: Path | None,
) -> ArtifactSpec:
    """What decides the mixture: not where sources lie, but which were given and what is in them."""
    mixture = config.model_dump(mode="json")
    for name, source in mixture["sources"].items():
        del source["path"], source["images"]
        source["given"] = name in sources
    made = {"verb": "mix", **mixture, "copy_pictures": copied, "tokens": tokenizer is not None}
    parents = tuple(dict.fromkeys(parent_of_rows(rows) for rows in (*sources.values(), *apart.values())))
    if tokenizer is not None:
        parents += (parent_of(tokenizer_file(tokenizer)),)
    return ArtifactSpec("corpus", "data", made, seed=config.seed, parents=parents)
