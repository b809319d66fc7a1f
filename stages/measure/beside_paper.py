"""Ours beside the paper's, wherever the same quantity was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from stages.measure.findings import Finding
from stages.measure.paper import PaperTable, paper_tables
from stages.measure.records import OURS, Record

THEIRS, THEIR_PRESET = "BlueLM-V-3B", "bluelm-v-3b"


@dataclass(frozen=True)
class Beside:
    """One quantity.

    Attributes:
        quantity: what it is.
        section: where the paper has it.
        unit: of both values.
        ours: measured here.
        paper: the paper's, on its phone.
        differs: what is not as it was there, beside the machine; empty where nothing is known to be.
    """

    quantity: str
    section: str
    unit: str
    ours: float
    paper: float
    differs: str

    def as_dict(self) -> dict[str, Any]:
        """The row as plain data."""
        return asdict(self)


def beside_paper(records: Iterable[Record], peak_mb: float | None = None) -> tuple[Beside, ...]:
    """Every quantity of Table 5 and Sec. 3.4 that the records hold, each in its fastest setting.

    Args:
        records: what was measured; peers are left out.
        peak_mb: largest memory of all parts of a chat, in 10^6 bytes; None where only some were run.
    """
    ours = [record for record in records if record.engine == OURS]
    return tuple(_rows(ours, peak_mb, paper_tables()))


def beside_fastest(quantity: str, table: str, row: str, unit: str, fastest: int, finding: Finding) -> Beside:
    """The fastest of several settings, by the median, beside the paper's.

    Args:
        quantity: what it is.
        table: the paper's table.
        row: of the table.
        unit: of the setting.
        fastest: ours.
        finding: whether the paper's holds; where it is undecided, ours is not beyond doubt.
    """
    found = paper_tables()[table]
    differs = "not beyond doubt" if finding.verdict == "undecided" else ""
    return Beside(quantity, found.section, unit, float(fastest), found.value(row, "value"), differs)


def _rows(records: Sequence[Record], peak_mb: float | None, tables: dict[str, PaperTable]) -> Iterator[Beside]:
    table = tables["table5"]
    tiles, tokens = table.settings["tiles"], table.settings["prompt_tokens"]
    assert isinstance(tiles, int) and isinstance(tokens, int)

    def row(
        quantity: str, key: str, record: Record | None, unit: str, value: Callable[[Record], Any]
    ) -> Iterator[Beside]:
        if record is not None and (measured := value(record)) is not None:
            theirs = table.value(THEIRS, key)
            differs = ", ".join(_differences(record, tiles, tokens))
            yield Beside(quantity, table.section, unit, float(measured), theirs, differs)

    encode = _best(one for one in records if one.test == "encode" and one.pipeline is not False)
    yield from row("load", "load_s", _best(one for one in records if one.test == "load"), "s", lambda one: one.seconds)
    yield from row("picture to image tokens", "encode_s", encode, "s", lambda one: one.seconds)
    prefill = _best(_longest(records, "prefill"))
    yield from row("prefill", "prefill_s", prefill, "s", lambda one: one.seconds)
    decode = _best(_longest(records, "decode"))
    yield from row("decode", "decode_tok_s", decode, "token/s", lambda one: one.tok_s)
    if peak_mb is not None and records:
        memory = tables["memory"]
        differs = ", ".join(_model(records[0]))
        yield Beside("peak memory", memory.section, "GB", peak_mb / 1000, memory.value("peak_gb", "value"), differs)


def _longest(records: Sequence[Record], test: str) -> list[Record]:
    """Those with the longest prompt."""
    longest = max((one.n_prompt or 0 for one in records if one.test == test), default=0)
    return [one for one in records if one.test == test and one.n_prompt == longest]


def _best(records: Iterable[Record]) -> Record | None:
    """The fastest by what it handles: tiles and tokens may differ."""
    return min(records, key=lambda one: one.seconds / (one.tiles or one.n_gen or one.n_prompt or 1), default=None)


def _differences(record: Record, tiles: int, tokens: int) -> Iterator[str]:
    yield from _model(record)
    if record.test == "encode" and record.tiles != tiles:
        yield f"{record.tiles} tiles, not {tiles}"
    if record.test in ("prefill", "decode") and record.n_prompt != tokens:
        yield f"{record.n_prompt:,} tokens, not {tokens:,}"


def _model(record: Record) -> Iterator[str]:
    if record.model != THEIR_PRESET:
        yield f"model {record.model}"
