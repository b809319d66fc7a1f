"""One record for every figure: a superset of llama-bench's fields, so that its readers can read ours.

A record is one test under one setting, a line of JSON. `seconds` and `samples_s` are times; `tok_s`, `avg_ts`,
`stddev_ts`, `median_ts` and `samples_ts` are rates in tokens per second. A field that a test does not have is null.
`record.schema.json` beside this file says the same to programs (`bluelm bench schema` prints it).

Schema 3 added where a record comes from (engine, run, model_digest, seed, machine, versions, test_time), pipeline,
peak_rss_mb and samples_others; `record_files` reads schema 2 too.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from stages.measure.machine import describe_machine, describe_versions
from stages.measure.spread import spread_of

RECORD_SCHEMA: Literal[3] = 3
SCHEMA_FILE = Path(__file__).with_name("record.schema.json")
Test = Literal["load", "encode", "prefill", "decode"]
OURS = "bluelm"

GIGA = 1e9

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Work:
    """What one run of a test has to do (bytes or operations), and the machine's ceiling in each turn, 10^9 a second."""

    amount: float
    ceilings: Sequence[float] | None = None


def _field(text: str, default: Any = None) -> Any:
    return Field(default=default, description=text)


class Record(BaseModel):
    """One test under one setting."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    version: Literal[3] = Field(default=RECORD_SCHEMA, alias="schema", description="version of this format")
    test: Test = Field(
        description='"load" (all sessions), "encode" (tiles to image tokens), "prefill" (a prompt) or "decode"'
    )
    model: str = Field(description="name of the model")
    engine: str = _field("what ran it: bluelm, or a peer such as llama.cpp", OURS)
    run: str | None = _field("id of the run: what shares one was measured in turns, sample by sample")
    model_digest: str | None = _field("sha256 of the exported artifact; null for random weights")
    threads: int | None = _field("CPU threads of the runtime, or null for its default")
    seed: int | None = _field("of prompts, noise and random weights")
    chunk: int | None = _field("prefill: tokens a call takes; decode: the chunk of the prefill before it")
    tiles_per_batch: int | None = _field("encode: tiles a call takes")
    tiles: int | None = _field("encode: tiles of the picture, thumbnail included")
    pipeline: bool | None = _field("encode: whether patch embedding overlaps the ViT blocks (Fig. 5)")
    n_prompt: int | None = _field(
        "prefill: tokens of the prompt; decode: tokens in the cache when it starts; encode: image tokens made"
    )
    n_gen: int | None = _field("decode: tokens generated")
    kv: str | None = _field("prefill, decode: what the KV cache holds, such as int8 or float32")
    policy: str | None = _field("of random weights: what the inputs of products are rounded to")
    cached: bool | None = _field("load: whether large weights came prepacked from a cache on disk")
    forms: str | None = _field("how many products of which form the test runs")
    seconds: Positive = Field(description="median time of the whole test")
    tok_s: float | None = _field("median rate (same as median_ts)")
    ms_per_tile: float | None = _field("encode: median time of one tile, in milliseconds")
    ms_per_token: float | None = _field("prefill, decode: median time of one token, in milliseconds")
    gb_s: float | None = _field("decode: bytes that must be read each second, median, in 10^9")
    gop_s: float | None = _field("prefill: operations of the Linears each second, median, in 10^9")
    ceiling_share: float | None = _field(
        "gb_s or gop_s as a share of what the machine reached in the same turn; the median over all turns"
    )
    peak_rss_mb: float | None = _field("largest memory of the process until the end of this test, in 10^6 bytes")
    avg_ts: float | None = _field("mean of samples_ts")
    stddev_ts: float | None = _field("sample standard deviation of samples_ts")
    median_ts: float | None = _field("median of samples_ts")
    samples_ts: tuple[float, ...] | None = _field("tokens per second of each run, in the order they ran")
    samples_s: Annotated[tuple[Positive, ...], Field(min_length=1, description="seconds of each run")]
    samples_others: tuple[Share | None, ...] | None = _field(
        "share of the processor that others had during each run; null where a run was too short to tell"
    )
    machine: dict[str, Any] | None = _field("CPU, instruction sets, cores, memory, system")
    versions: dict[str, str] | None = _field("packages that ran the model")
    test_time: str | None = _field("when the run began, ISO 8601, UTC")

    def as_dict(self) -> dict[str, Any]:
        """The record as plain data, in the order of the fields."""
        return self.model_dump(mode="json", by_alias=True)


@dataclass(frozen=True)
class Origin:
    """Where records come from: what one run of one bench puts into each of them."""

    run: str
    seed: int | None
    model_digest: str | None
    machine: dict[str, Any]
    versions: dict[str, str]
    test_time: str

    @classmethod
    def here(cls, seed: int | None = None, model_digest: str | None = None) -> Origin:
        """This machine, now, under a new id."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(secrets.token_hex(8), seed, model_digest, describe_machine(), describe_versions(), now)

    def of(self, records: Iterable[Record]) -> tuple[Record, ...]:
        """The records with all this in them; what a record knows itself stays (a peer's versions)."""
        return tuple(
            record.model_copy(update={name: value for name, value in vars(self).items() if not getattr(record, name)})
            for record in records
        )


def record_schema() -> dict[str, Any]:
    """The JSON schema of a line of `results.jsonl`."""
    schema = Record.model_json_schema(mode="serialization", by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def record_of(
    test: Test,
    model: str,
    samples_s: Sequence[float],
    *,
    tokens: int | None = None,
    work: Work | None = None,
    **settings: Any,
) -> Record:
    """Makes a record of the times of one test's runs.

    Args:
        test: which test.
        model: name of the model.
        samples_s: seconds of each run, at least one, each above 0.
        tokens: tokens each run handled; None where the test handles none (load).
        work: what each run had to do, and what the machine reached beside it.
        settings: further fields of the record.

    Raises:
        ValueError: no samples, or a time that is not above 0.
    """
    if any(sample <= 0 for sample in samples_s):
        raise ValueError(f"a run of {test} took {min(samples_s)} s")
    times = spread_of(samples_s)
    rates = None if tokens is None else tuple(tokens / sample for sample in samples_s)
    pace = None if rates is None else spread_of(rates)
    speeds = None if work is None else [work.amount / sample / GIGA for sample in samples_s]
    tiles = settings.get("tiles")
    return Record(
        test=test,
        model=model,
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
        **settings,
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
