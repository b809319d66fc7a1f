"""What became of the rows on their way to samples: counts for the manifest, and every row that was not taken as it is.

`data_report.jsonl` in the artifact names each of them on a line of its own, with the reason and the figures.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from stages.artifacts.atomic_file import atomic_file
from stages.workshop.corpus.row import Place

REPORT_FILE = "data_report.jsonl"
Fate = Literal["cut", "shrunk", "too_long", "pictures_too_long", "nothing_to_learn", "broken"]
# What is told of each fate, with the limit in its place; all but the first two are left out.
_TOLD: dict[Fate, str] = {
    "cut": "cut at their end to {limit} tokens",
    "shrunk": "given fewer tiles to fit into {limit} tokens",
    "too_long": "left out: they do not fit into {limit} tokens",
    "pictures_too_long": "left out: their pictures alone leave no room in {limit} tokens",
    "nothing_to_learn": "left out: no answer within {limit} tokens",
    "broken": "left out: they cannot be used",
}
_TAKEN = ("cut", "shrunk")
_NAMED = 5


@dataclass(frozen=True)
class Case:
    """A row that was not taken as it is.

    Attributes:
        row: its name.
        fate: what became of it.
        place: its file and number there; the same on every machine.
        tokens: how many it has.
        kept: how many of them its sample has; 0 where it is left out.
        tiles: its pictures' tiles before, and after where they were shrunk.
        problems: what is wrong with it.
        data_pass: which pass over a stream met it, from 0.
    """

    row: str
    fate: Fate
    place: str = ""
    tokens: int | None = None
    kept: int = 0
    tiles: tuple[int, ...] = ()
    problems: tuple[str, ...] = ()
    data_pass: int = 0

    def line(self) -> str:
        """One line of the report file; what does not apply is left away."""
        entry = {key: value for key, value in asdict(self).items() if value not in (None, (), "")}
        if not self.data_pass:
            del entry["data_pass"]
        return json.dumps(entry, ensure_ascii=False) + "\n"


def place_name(place: Place) -> str:
    """A row's file and number without the folder."""
    return f"{place.file.name}, {place.unit} {place.number}"


@dataclass
class SampleReport:
    """What became of the conversations.

    Attributes:
        fates: how many rows had each fate.
        named: the first few rows of each.
        cases: every case, where they are kept in memory (a stream writes them down instead).
    """

    samples: int = 0
    answer_tokens: int = 0
    tokens: int = 0
    tiles: int = 0
    fates: Counter[str] = field(default_factory=Counter)
    named: dict[str, list[str]] = field(default_factory=dict)
    cases: list[Case] | None = field(default_factory=list)

    def take(self, tokens: int, answer_tokens: int, tiles: int) -> None:
        """A sample was made."""
        self.samples += 1
        self.tokens += tokens
        self.answer_tokens += answer_tokens
        self.tiles += tiles

    def note(self, case: Case) -> None:
        """A row was not taken as it is."""
        self.fates[case.fate] += 1
        names = self.named.setdefault(case.fate, [])
        if len(names) < _NAMED:
            names.append(case.row)
        if self.cases is not None:
            self.cases.append(case)

    @property
    def rows(self) -> int:
        """Rows that were looked at."""
        return self.samples + self.left_out

    @property
    def left_out(self) -> int:
        """Rows that gave no sample."""
        return sum(count for fate, count in self.fates.items() if fate not in _TAKEN)

    def as_dict(self) -> dict[str, Any]:
        """Counts for the manifest."""
        return {
            "samples": self.samples,
            "tokens": self.tokens,
            "answer_tokens": self.answer_tokens,
            "tiles": self.tiles,
            "cut": self.fates["cut"],
            "shrunk": self.fates["shrunk"],
            "left_out": self.left_out,
        }

    def warnings(self, limit: int) -> list[str]:
        """One line for each kind of sample that was not taken as it is."""
        return [
            f"{self.fates[fate]} samples were {told.format(limit=limit)}: {self._first(fate)}"
            for fate, told in _TOLD.items()
            if self.fates[fate]
        ]

    def _first(self, fate: str) -> str:
        names = self.named[fate]
        more = self.fates[fate] - len(names)
        return ", ".join(names) + (f" and {more} more" if more else "")

    def state_dict(self) -> dict[str, Any]:
        """The counts as JSON; a stream's position holds them."""
        counts = {key: getattr(self, key) for key in ("samples", "tokens", "answer_tokens", "tiles")}
        return {**counts, "fates": dict(self.fates), "named": {key: list(names) for key, names in self.named.items()}}

    def reset(self, state: dict[str, Any]) -> None:
        """Goes back to such counts."""
        self.samples = self.tokens = self.answer_tokens = self.tiles = 0
        self.fates, self.named = Counter(), {}
        self.add(state)

    def add(self, state: dict[str, Any]) -> None:
        """Adds such counts: those of another process."""
        for key in ("samples", "tokens", "answer_tokens", "tiles"):
            setattr(self, key, getattr(self, key) + state[key])
        self.fates.update(state["fates"])
        for fate, names in state["named"].items():
            self.named[fate] = [*self.named.get(fate, []), *names][:_NAMED]


def write_report(folder: Path, lines: Iterable[str], report: SampleReport) -> None:
    """Writes the report file of an artifact in one step: a line for each case, and the totals as the last.

    Args:
        folder: the artifact's.
        lines: of the cases; read before the totals are asked for.
        report: the totals.
    """
    with atomic_file(folder / REPORT_FILE, durable=False) as part, part.open("w", encoding="utf-8") as stream:
        stream.writelines(lines)
        stream.write(json.dumps({"totals": report.as_dict()}) + "\n")


def read_totals(folder: Path) -> dict[str, Any]:
    """The totals of a report file that `write_report` wrote."""
    with (folder / REPORT_FILE).open(encoding="utf-8") as lines:
        last = deque(lines, maxlen=1).pop()
    totals: dict[str, Any] = json.loads(last)["totals"]
    return totals
