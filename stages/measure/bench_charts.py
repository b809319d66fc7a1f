"""The figures of benches, made of records: Figs. 5, 7 and 8, Table 5, and whatever else was run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence

from stages.device.runtime.timeline import Span as Ran
from stages.measure.charts import Bar, Bars, Colour, Lane, Lanes, Panel, Span, ordered
from stages.measure.paired import median_interval
from stages.measure.records import OURS, Record

_CLAIMED: Colour = "second"


def speed_charts(records: Sequence[Record]) -> tuple[Bars, ...]:
    """Whatever a bench measured: time of a tile, rates of reading and writing, seconds of loading."""
    panels = [
        _panel("Encoding, time of a tile", "ms", records, "encode", _ms_per_tile),
        _panel("Reading a prompt", "token/s", records, "prefill", _rates),
        _panel("Writing", "token/s", records, "decode", _rates),
        _panel("Loading", "s", records, "load", _seconds),
    ]
    kept = tuple(panel for panel in panels if panel.bars)
    about = "Medians; the line is the interval of the median, each dot a run."
    return (Bars("speeds", "Speeds", about, kept),) if kept else ()


def fig7_chart(records: Sequence[Record], claimed: int) -> Bars:
    """ViT latency of a picture against tiles per batch; the paper's fastest stands out."""
    encodes = [one for one in records if one.test == "encode"]
    tiles = encodes[0].tiles
    bars = [
        _bar(
            f"{one.tiles_per_batch} per batch", one.samples_s, _CLAIMED if one.tiles_per_batch == claimed else "accent"
        )
        for one in encodes
    ]
    about = (
        f"Seconds to encode a picture of {tiles} tiles. {claimed} per batch is fastest on the paper's phone. {_DOTS}"
    )
    return Bars("fig7", "Tiles per batch", about, (Panel(f"{tiles} tiles", "s", tuple(bars)),))


_DOTS = "Lines are intervals of the median, dots single runs; less is better where the unit is seconds."


def fig8_chart(records: Sequence[Record], claimed: int) -> Bars:
    """Prefill latency and decode rate against tokens a call; the paper's fastest stands out."""

    def bars(test: str, value: Callable[[Record], Sequence[float]]) -> Iterator[Bar]:
        for one in records:
            if one.test == test:
                label = f"t{one.chunk}" if test == "prefill" else f"t{one.chunk}/t1"
                yield _bar(label, value(one), _CLAIMED if one.chunk == claimed else "accent")

    prompt = next(one.n_prompt for one in records if one.test == "prefill")
    panels = [Panel(f"Reading {prompt:,} tokens", "s", tuple(bars("prefill", lambda one: one.samples_s)))]
    writing = tuple(bars("decode", _rates))
    if writing:
        panels.append(Panel(f"Writing behind {prompt:,} tokens, one a call", "token/s", writing))
    about = f"t128/t1 is fastest in both on the paper's phone. {_DOTS}"
    return Bars("fig8", "Tokens a call", about, tuple(panels))


def fig5_chart(
    overlapped: Sequence[Ran], after: Sequence[Ran], first_token_s: float, decode_s: float, generated: int
) -> Lanes:
    """What ran when: the overlapped encoding with the language model behind it, and the same one after the other.

    Args:
        overlapped: spans of one encoding, in seconds.
        after: spans of one without overlap.
        first_token_s: seconds of reading the prompt.
        decode_s: seconds of writing.
        generated: tokens written.
    """
    end = max(span.end for span in overlapped)
    writes = (Span(end + first_token_s, end + first_token_s + decode_s, f"{generated} tokens", "plain"),)
    language = (Span(end, end + first_token_s, "prefill", "second"), *(writes if generated else ()))
    lanes = [
        *_encoding("overlapped (the pipeline)", overlapped),
        Lane("overlapped (the pipeline)", "language model", language),
        *_encoding("one after the other", after),
    ]
    about = (
        "The run of median length of each kind; numbers are batches. Patch embedding (Conv2D) of the next tiles runs "
        "in a thread of its own beside the ViT blocks of these."
    )
    return Lanes("fig5", "What runs when", about, ordered(lanes))


def _encoding(group: str, ran: Sequence[Ran]) -> Iterator[Lane]:
    for part, label, colour in (("patch", "patch embedding", "second"), ("blocks", "ViT blocks", "accent")):
        spans = tuple(
            Span(span.start, span.end, f"{span.batch + 1}", colour)  # type: ignore[arg-type]
            for span in ran
            if span.part == part
        )
        yield Lane(group, label, spans)


def table5_chart(rows: Iterable[tuple[str, str, Iterable[Bar]]]) -> Bars:
    """Table 5: a panel for each quantity: title, unit, bars of ours, peers and the paper."""
    panels = tuple(Panel(title, unit, tuple(bars)) for title, unit, bars in rows)
    about = "Ours on this machine, peers on this machine, and the paper's on its phone (grey). "
    return Bars("table5", "Table 5", about + _DOTS, tuple(panel for panel in panels if panel.bars))


def record_bar(record: Record, value: Callable[[Record], Sequence[float]], label: str | None = None) -> Bar:
    """A record as a bar."""
    return _bar(label or label_of(record), value(record), "accent" if record.engine == OURS else "plain")


def _panel(
    title: str, unit: str, records: Sequence[Record], test: str, value: Callable[[Record], Sequence[float]]
) -> Panel:
    return Panel(title, unit, tuple(record_bar(one, value) for one in records if one.test == test))


def label_of(record: Record) -> str:
    """What tells a record from others of its test."""
    parts = [
        record.engine if record.engine != OURS else "",
        record.policy or "",
        f"{record.tiles} tiles" if record.tiles else "",
        f"{record.tiles_per_batch} a batch" if record.tiles_per_batch else "",
        "not overlapped" if record.pipeline is False else "",
        f"{record.n_prompt:,} tokens" if record.n_prompt and record.test != "encode" else "",
        f"t{record.chunk}" if record.chunk else "",
        f"{record.threads} threads" if record.threads else "",
    ]
    return ", ".join(part for part in parts if part)


def _bar(label: str, samples: Sequence[float], colour: Colour) -> Bar:
    low, high = median_interval(samples)
    return Bar(label, statistics.median(samples), colour, low, high, tuple(samples))


def _ms_per_tile(record: Record) -> Sequence[float]:
    return [1000 * sample / (record.tiles or 1) for sample in record.samples_s]


def _rates(record: Record) -> Sequence[float]:
    return record.samples_ts or ()


def _seconds(record: Record) -> Sequence[float]:
    return record.samples_s
