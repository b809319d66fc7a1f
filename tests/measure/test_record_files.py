"""Records on disk: ours of both schemas, llama-bench's, and what is neither; the published JSON schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stages.artifacts.errors import ArtifactError
from stages.measure.record_files import read_records
from stages.measure.records import SCHEMA_FILE, Origin, Record, record_of, record_schema, write_records

# A line as schema 2 wrote it.
OLD = {
    "schema": 2,
    "test": "prefill",
    "model": "m",
    "threads": 2,
    "chunk": 128,
    "tiles_per_batch": None,
    "tiles": None,
    "n_prompt": 100,
    "n_gen": None,
    "kv": "int8",
    "policy": None,
    "cached": None,
    "forms": "6 a16",
    "seconds": 2.0,
    "tok_s": 50.0,
    "ms_per_tile": None,
    "ms_per_token": 20.0,
    "gb_s": None,
    "gop_s": 1.0,
    "ceiling_share": None,
    "avg_ts": 50.0,
    "stddev_ts": 0.0,
    "median_ts": 50.0,
    "samples_ts": [50.0],
    "samples_s": [2.0],
}
# As llama-bench prints with -o jsonl (fields it has beside these are left out).
LLAMA: dict[str, Any] = {
    "build_commit": "abc",
    "build_number": 7,
    "cpu_info": "EPYC",
    "model_filename": "m.gguf",
    "model_type": "llama 3B Q4_0",
    "n_threads": 2,
    "n_ubatch": 512,
    "type_k": "f16",
    "type_v": "f16",
    "n_prompt": 512,
    "n_gen": 0,
    "n_depth": 0,
    "test_time": "2026-11-21T10:00:00Z",
    "avg_ns": 2000000000,
    "stddev_ns": 0,
    "avg_ts": 256.0,
    "stddev_ts": 0.0,
    "samples_ns": [2000000000, 1000000000],
    "samples_ts": [256.0, 512.0],
}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_what_was_written_is_read(tmp_path: Path) -> None:
    made = Origin.here(seed=3, model_digest="d").of(
        [
            record_of("load", "ä", [0.5], cached=True),
            record_of("decode", "ä", [0.5, 0.4], tokens=32, n_gen=32, samples_others=(None, 0.25)),
        ]
    )
    write_records(tmp_path / "results.jsonl", made)
    assert read_records(tmp_path) == made == read_records(tmp_path / "results.jsonl")
    assert made[0].run == made[1].run and made[0].seed == 3 and made[0].machine and made[0].versions
    (tmp_path / "printed.json").write_text(json.dumps({"rows": [one.as_dict() for one in made]}), encoding="utf-8")
    assert read_records(tmp_path / "printed.json") == made


def test_what_a_record_knows_itself_stays() -> None:
    peer = record_of("decode", "m", [1.0], tokens=1, versions={"llama_cpp": "1"}, seed=0)
    (made,) = Origin.here(seed=0).of([peer])
    assert made.versions == {"llama_cpp": "1"} and made.run is not None


def test_schema_2_is_read(tmp_path: Path) -> None:
    (old,) = read_records(write(tmp_path / "old.jsonl", OLD))
    assert (old.version, old.chunk, old.samples_s, old.run, old.engine) == (3, 128, (2.0,), None, "bluelm")


def test_llama_benchs_lines_are_read(tmp_path: Path) -> None:
    generation = {**LLAMA, "n_prompt": 0, "n_gen": 64, "n_depth": 2048, "samples_ns": [4000000000]}
    prefill, decode = read_records(write(tmp_path / "llama.jsonl", LLAMA, generation))
    assert (prefill.test, prefill.engine, prefill.n_prompt, prefill.n_gen) == ("prefill", "llama.cpp", 512, None)
    assert prefill.samples_ts == tuple(LLAMA["samples_ts"]) and prefill.seconds == 1.5
    assert (decode.test, decode.n_prompt, decode.n_gen, decode.tok_s) == ("decode", 2048, 64, 16.0)
    array = tmp_path / "llama.json"
    array.write_text(json.dumps([LLAMA]), encoding="utf-8")
    assert read_records(array) == (prefill,)


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ([{**OLD, "schema": 9}], "record 1 has schema 9; this bluelm reads 2 and 3"),
        ([{"a": 1}], "has no schema"),
        ([OLD, {**OLD, "seconds": -1}], "record 2: seconds"),
        ([{**OLD, "speed": 1}], "speed: Extra inputs"),
        ([3], "is no object"),
        ([], "holds no records"),
        ([{**LLAMA, "n_gen": 5}], "lacks what llama-bench writes: a test of prompt and generation together"),
        ([{**LLAMA, "samples_ns": []}], "lacks what llama-bench writes"),
    ],
)
def test_what_is_no_record_is_named(tmp_path: Path, rows: list[Any], what: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        read_records(write(tmp_path / "x.jsonl", *rows))
    assert what in caught.value.what and "llama-bench" in caught.value.fix


def test_a_broken_line_and_a_missing_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps(OLD) + "\n{", encoding="utf-8")
    with pytest.raises(ArtifactError, match="line 2 is no JSON"):
        read_records(tmp_path / "x.jsonl")
    with pytest.raises(ArtifactError, match=r"results.jsonl cannot be read"):
        read_records(tmp_path)


def test_the_published_schema_is_that_of_the_code_and_takes_what_is_written(tmp_path: Path) -> None:
    published = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    assert published == record_schema(), "write it again: bluelm bench schema > stages/measure/record.schema.json"
    assert set(published["properties"]) == set(record_of("load", "m", [1.0]).as_dict())
    assert all("description" in field for field in published["properties"].values())
    line = Origin.here().of([record_of("prefill", "m", [1.0], tokens=5, samples_others=(0.1,))])[0].as_dict()
    assert set(line) == set(published["properties"]) and set(published["required"]) <= set(line)
    # Names in the order of the schema, so that a line reads as its documentation.
    assert list(line) == list(published["properties"])


def test_llama_benchs_fields_are_among_ours() -> None:
    assert {"n_prompt", "n_gen", "avg_ts", "stddev_ts", "samples_ts", "test_time"} <= set(
        Record.model_json_schema()["properties"]
    )
