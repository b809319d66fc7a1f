"""Records read from disk: ours of schema 2 and 3, and llama-bench's (`-o jsonl` or `-o json`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stages.artifacts.errors import ArtifactError
from stages.artifacts.plain_json import parse_json
from stages.measure.records import RECORD_SCHEMA, Record, record_of

RESULTS_FILE = "results.jsonl"
_WHY = "Measurements are compared and drawn from it."
_FIX = "Give a folder that bluelm bench wrote with --out, its results.jsonl, or what llama-bench -o jsonl printed."
LLAMA = "llama.cpp"
_NANO = 1e9


def read_records(path: Path) -> tuple[Record, ...]:
    """The records of a bench.

    Args:
        path: a bench folder, its `results.jsonl`, what `bluelm bench --json` printed, or llama-bench's lines.

    Raises:
        ArtifactError: it cannot be read, holds no record, or one of another schema; the line is named.
    """
    file = path / RESULTS_FILE if path.is_dir() else path
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ArtifactError(f"{file} cannot be read: {reason}.", _WHY, _FIX) from error
    records = tuple(_record(file, number, row) for number, row in _rows(file, text))
    if not records:
        raise ArtifactError(f"{file} holds no records.", _WHY, _FIX)
    return records


def _rows(file: Path, text: str) -> list[tuple[int, Any]]:
    """Rows with the line they stand in; of one JSON value, its own rows."""
    try:
        whole = parse_json(text)
    except ValueError:
        whole = None
    if isinstance(whole, list):
        return list(enumerate(whole, 1))
    if isinstance(whole, dict) and isinstance(whole.get("rows"), list):
        return list(enumerate(whole["rows"], 1))
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                rows.append((number, parse_json(line)))
            except ValueError as error:
                raise ArtifactError(f"{file}, line {number} is no JSON.", _WHY, _FIX) from error
    return rows


def _record(file: Path, number: int, row: Any) -> Record:
    place = f"{file}, record {number}"
    if not isinstance(row, dict):
        raise ArtifactError(f"{place} is no object.", _WHY, _FIX)
    version = row.get("schema")
    try:
        if version is None and "samples_ns" in row:
            return _of_llama_bench(row)
        if version in (2, RECORD_SCHEMA):
            # Schema 3 only added fields.
            return Record.model_validate({**row, "schema": RECORD_SCHEMA})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the record"
        raise ArtifactError(f"{place}: {where}: {first['msg']}.", _WHY, _FIX) from error
    except (TypeError, ValueError, KeyError) as error:
        raise ArtifactError(f"{place} lacks what llama-bench writes: {error}.", _WHY, _FIX) from error
    said = "no schema" if version is None else f"schema {version}"
    raise ArtifactError(f"{place} has {said}; this bluelm reads 2 and {RECORD_SCHEMA}.", _WHY, _FIX)


def _of_llama_bench(row: Mapping[str, Any]) -> Record:
    """A line of llama-bench: prompt processing is prefill, text generation decode behind `n_depth` tokens."""
    prompt, generated, depth = int(row["n_prompt"]), int(row["n_gen"]), int(row.get("n_depth", 0))
    if (prompt > 0) == (generated > 0):
        raise ValueError("a test of prompt and generation together, which ours keep apart")
    build = row.get("build_number", row.get("build_commit"))
    return record_of(
        "prefill" if prompt else "decode",
        str(row.get("model_type") or row["model_filename"]),
        [float(sample) / _NANO for sample in row["samples_ns"]],
        tokens=prompt or generated,
        engine=LLAMA,
        threads=row.get("n_threads"),
        chunk=row.get("n_ubatch"),
        n_prompt=prompt or depth,
        n_gen=generated or None,
        kv=row.get("type_k"),
        versions=None if build is None else {LLAMA: str(build)},
        machine={"cpu": row["cpu_info"]} if row.get("cpu_info") else None,
        test_time=row.get("test_time"),
    )
