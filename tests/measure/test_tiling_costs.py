"""What tiles and tokens cost, from what `bluelm bench` writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stages.artifacts.errors import UsageError
from stages.measure.records import Record, record_of
from stages.measure.tiling_costs import TilingCosts, costs_of_bench, with_costs


def encode(seconds: float, tiles: int = 9, model: str = "m") -> Record:
    return record_of("encode", model, [seconds], tokens=196 * tiles, tiles=tiles, tiles_per_batch=4)


def prefill(seconds: float, tokens: int = 1000) -> Record:
    return record_of("prefill", "m", [seconds], tokens=tokens, n_prompt=tokens, chunk=128)


def bench(path: Path, *records: Record) -> Path:
    path.write_text(json.dumps({"model": "m", "rows": [record.as_dict() for record in records]}))
    return path


def test_the_fastest_setting_of_a_bench_counts(tmp_path: Path) -> None:
    bench(tmp_path / "bench.json", encode(1.8), encode(0.9), prefill(2.0), prefill(3.0, 2000))
    for path in (tmp_path, tmp_path / "bench.json"):
        costs = costs_of_bench(path)
        assert (costs.seconds_per_tile, costs.seconds_per_token) == (pytest.approx(0.1), pytest.approx(0.0015))
        assert costs.source == f"{path.name}: m"


def test_peers_measured_beside_it_are_not_the_model(tmp_path: Path) -> None:
    peer = prefill(0.1).model_copy(update={"engine": "llama.cpp", "model": "another"})
    assert costs_of_bench(bench(tmp_path / "b.json", prefill(2.0), peer)).seconds_per_token == pytest.approx(0.002)


def test_a_bench_may_have_measured_one_of_them(tmp_path: Path) -> None:
    costs = costs_of_bench(bench(tmp_path / "b.json", encode(0.9)))
    assert costs.of(10, 1000) == {"encode_seconds": pytest.approx(1.0), "prefill_seconds": None}


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("{}", "is no bench"),
        ("[]", "is no bench"),
        ("no json", "is no bench"),
        ('{"rows": [{"test": "encode", "model": "m", "ms_per_tile": -1}]}', "is no bench"),
        ('{"rows": [{"test": "encode", "model": "m", "ms_per_tile": null}]}', "is no bench"),
        ('{"rows": [{"test": "load", "model": "m"}]}', "measured neither"),
        ('{"rows": [{"test": "load", "model": "a"}, {"test": "load", "model": "b"}]}', "several models: a, b"),
    ],
)
def test_what_is_no_bench_is_refused(tmp_path: Path, content: str, what: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(UsageError, match=what):
        costs_of_bench(tmp_path / "x.json")
    with pytest.raises(UsageError, match=r"absent cannot be read"):
        costs_of_bench(tmp_path / "absent")


def test_schemes_with_tiles_of_their_own_have_no_encoding_time() -> None:
    rules: dict[str, dict[str, Any]] = {"relaxed": {"tiles": 3, "tokens": 10}, "qwen2-vl": {"tiles": 1, "tokens": 5}}
    with_costs(rules, TilingCosts(0.5, 0.1), ["relaxed"])
    assert (rules["relaxed"]["encode_seconds"], rules["relaxed"]["prefill_seconds"]) == (1.5, 1.0)
    assert (rules["qwen2-vl"]["encode_seconds"], rules["qwen2-vl"]["prefill_seconds"]) == (None, 0.5)
