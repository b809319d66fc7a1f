"""One record for every figure: a superset of llama-bench's fields, so that its readers can read ours.

A record is one test under one setting. `seconds` and `samples_s` are times; `tok_s`, `avg_ts`, `stddev_ts`,
`median_ts` and `samples_ts` are rates in tokens per second. A field that a test does not have is null.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stages.measure.spread import spread_of

RECORD_SCHEMA = 2
Test = Literal["load", "encode", "prefill", "decode"]


GIGA = 1e9


@dataclass(frozen=True)
class Work:
    """What one run of a test has to do (bytes or operations), and the machine's ceiling in each turn, 10^9 a second."""

    amount: float
    ceilings: Sequence[float] | None = None


@dataclass(frozen=True)
class Record:
    """One test under one setting.

    Attributes:
        test: "load" (all sessions), "encode" (tiles to image tokens), "prefill" or "decode".
        model: name of the model.
        threads: CPU threads of the runtime, or None for its default.
        chunk: prefill: tokens a call takes; decode: the chunk of the prefill before it. Decoding itself is one token a
            call (the paper's t1).
        tiles_per_batch: encode: tiles a call takes.
        tiles: encode: tiles of the picture, thumbnail included.
        n_prompt: prefill: tokens of the prompt; decode: tokens in the cache when it starts; encode: image tokens made.
        n_gen: decode: tokens generated.
        kv: prefill, decode: what the KV cache holds ("int8", "float32").
        policy: of random weights: what the inputs of products are rounded to ("paper", "mix", "int8", "float").
        cached: load: whether large weights came prepacked from a cache on disk.
        forms: how many products of which form the test runs, see `product_forms`.
        seconds: median time of the whole test.
        tok_s: median rate (same as `median_ts`).
        ms_per_tile: encode: median time of one tile, in milliseconds.
        ms_per_token: prefill, decode: median time of one token, in milliseconds.
        gb_s: decode: bytes read each second, counted by `decoder_work`; median, in 10^9.
        gop_s: prefill: operations of the Linears each second, counted the same; median, in 10^9.
        ceiling_share: gb_s or gop_s as a share of what the machine reached in the same turn (reading memory; INT8
            products); the median over all turns.
        avg_ts, stddev_ts, median_ts: mean, sample standard deviation and median of `samples_ts`.
        samples_ts: rate of each run, in the order they ran.
        samples_s: time of each run.
    """

    test: Test
    model: str
    threads: int | None
    chunk: int | None
    tiles_per_batch: int | None
    tiles: int | None
    n_prompt: int | None
    n_gen: int | None
    kv: str | None
    policy: str | None
    cached: bool | None
    forms: str | None
    seconds: float
    tok_s: float | None
    ms_per_tile: float | None
    ms_per_token: float | None
    gb_s: float | None
    gop_s: float | None
    ceiling_share: float | None
    avg_ts: float | None
    stddev_ts: float | None
    median_ts: float | None
    samples_ts: tuple[float, ...] | None
    samples_s: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """The record as plain data, in the order of the fields."""
        return {"schema": RECORD_SCHEMA, **dataclasses.asdict(self)}


def record_of(
    test: Test,
    model: str,
    samples_s: Sequence[float],
    *,
    tokens: int | None = None,
    threads: int | None = None,
    chunk: int | None = None,
    tiles_per_batch: int | None = None,
    tiles: int | None = None,
    n_prompt: int | None = None,
    n_gen: int | None = None,
    kv: str | None = None,
    policy: str | None = None,
    cached: bool | None = None,
    forms: str | None = None,
    work: Work | None = None,
) -> Record:
    """Makes a record of the times of one test's runs.

    Args:
        samples_s: seconds of each run, at least one, each above 0.
        tokens: tokens each run handled; None where the test handles none (load).
        work: what each run had to do, and what the machine reached beside it.

    Raises:
        ValueError: no samples, or a time that is not above 0.
    """
    if any(sample <= 0 for sample in samples_s):
        raise ValueError(f"a run of {test} took {min(samples_s)} s")
    times = spread_of(samples_s)
    rates = None if tokens is None else tuple(tokens / sample for sample in samples_s)
    pace = None if rates is None else spread_of(rates)
    speeds = None if work is None else [work.amount / sample / GIGA for sample in samples_s]
    return Record(
        test=test,
        model=model,
        threads=threads,
        chunk=chunk,
        tiles_per_batch=tiles_per_batch,
        tiles=tiles,
        n_prompt=n_prompt,
        n_gen=n_gen,
        kv=kv,
        policy=policy,
        cached=cached,
        forms=forms,
        seconds=times.median,
        tok_s=pace and pace.median,
        ms_per_tile=None if tiles is None else 1000 * times.median / tiles,
        ms_per_token=None if tokens is None or test == "encode" else 1000 * times.median / tokens,
        gb_s=spread_of(speeds).median if speeds and test == "decode" else None,
        gop_s=spread_of(speeds).median if speeds and test == "prefill" else None,
        ceiling_share=_share(speeds, work),
        avg_ts=pace and pace.mean,
        stddev_ts=pace and pace.stddev,
        median_ts=pace and pace.median,
        samples_ts=rates,
        samples_s=tuple(samples_s),
    )


def _share(speeds: Sequence[float] | None, work: Work | None) -> float | None:
    """Median share of the ceiling, each run against that of its own turn."""
    if speeds is None or work is None or work.ceilings is None:
        return None
    return spread_of([speed / top for speed, top in zip(speeds, work.ceilings, strict=True)]).median


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Writes records as JSON lines."""
    lines = [json.dumps(record.as_dict(), ensure_ascii=False, allow_nan=False) + "\n" for record in records]
    path.write_text("".join(lines), encoding="utf-8")
