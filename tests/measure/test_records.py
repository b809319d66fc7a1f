"""Records: rates follow from times, and the fields scripts rely on are there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stages.measure.records import Work, record_of, write_records

PROMISED = {
    *("test", "chunk", "tiles_per_batch", "n_prompt", "kv", "seconds", "tok_s", "ms_per_tile"),
    *("model", "avg_ts", "stddev_ts", "median_ts", "samples_ts"),
}


def test_prefill_rates_follow_from_the_times() -> None:
    record = record_of("prefill", "m", [1.0, 2.0, 4.0], tokens=100, chunk=128, n_prompt=100, kv="int8")
    assert record.samples_ts == (100.0, 50.0, 25.0)
    assert record.samples_s == (1.0, 2.0, 4.0)
    assert record.seconds == 2.0
    assert record.tok_s == record.median_ts == 50.0
    assert record.avg_ts == pytest.approx(175 / 3)
    # squared distances of 100, 50, 25 to 175/3: 15625/9 + 625/9 + 10000/9 = 26250/9, halved
    assert record.stddev_ts == pytest.approx((26250 / 18) ** 0.5)
    assert record.ms_per_tile is None and record.tiles_per_batch is None


def test_encode_gives_milliseconds_a_tile() -> None:
    record = record_of("encode", "m", [0.9], tokens=9 * 196, tiles_per_batch=4, tiles=9, n_prompt=9 * 196)
    assert record.ms_per_tile == pytest.approx(100.0)
    assert record.tok_s == pytest.approx(1960.0)


def test_rates_stand_beside_the_ceiling_of_their_own_turn() -> None:
    # 10 GB in 1, 2 and 4 s, while the machine reached 20, 10 and 10 GB/s: half of it, half of it, a quarter.
    work = Work(10e9, [20.0, 10.0, 10.0])
    decode = record_of("decode", "m", [1.0, 2.0, 4.0], tokens=4, work=work)
    assert (decode.gb_s, decode.gop_s, decode.ceiling_share) == (5.0, None, 0.5)
    assert decode.ms_per_token == 500.0
    prefill = record_of("prefill", "m", [1.0, 2.0, 4.0], tokens=4, work=Work(10e9))
    assert (prefill.gb_s, prefill.gop_s, prefill.ceiling_share) == (None, 5.0, None)
    with pytest.raises(ValueError, match="zip"):
        record_of("decode", "m", [1.0], tokens=4, work=work)


def test_load_has_no_rate() -> None:
    row = record_of("load", "m", [0.5, 0.7]).as_dict()
    assert row["seconds"] == pytest.approx(0.6)
    assert {row[name] for name in ("tok_s", "avg_ts", "stddev_ts", "median_ts", "samples_ts", "chunk", "kv")} == {None}


def test_a_time_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="took 0"):
        record_of("decode", "m", [0.1, 0.0], tokens=1)


def test_json_lines_hold_every_promised_field(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    write_records(path, [record_of("load", "ä", [0.5]), record_of("decode", "ä", [0.5], tokens=32, n_gen=32)])
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [row["test"] for row in rows] == ["load", "decode"]
    for row in rows:
        assert set(row) >= PROMISED
        assert row["schema"] == 3 and row["model"] == "ä"
    assert rows[1]["samples_ts"] == [64.0]
