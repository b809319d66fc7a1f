"""A bench beside the machine's ceilings: each run against that of its own turn, counted by hand."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stages import bench
from stages.artifacts.events import result_of
from stages.bench import BenchConfig
from stages.device.contract.device_config import read_device_config
from stages.measure.ceilings import Ceilings
from stages.measure.decoder_work import decoder_work


def test_rates_are_shares_of_the_turns_own_ceiling(tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Ceilings] = []

    @contextmanager
    def pretended(threads: int) -> Iterator[Callable[[], Ceilings]]:
        assert threads == 1

        def measure() -> Ceilings:
            taken.append(Ceilings(*[factor * (len(taken) + 1) for factor in (10.0, 100.0, 1000.0)]))
            return taken[-1]

        yield measure

    monkeypatch.setattr("stages.measure.ceilings.ceiling_process", pretended)
    config = BenchConfig(prompt_tokens=(20,), generate=3, runs=3, warmup=1, threads=1)
    summary = result_of(bench.run(config, tiny_onnx))
    # The warm-up turn's ceiling does not count, as its times don't.
    assert len(taken) == 4 and summary.ceilings is not None
    assert summary.ceilings["read_gb_s"] == {"best": 40.0, "median": 30.0}
    work = decoder_work(tiny_onnx, read_device_config(tiny_onnx).decoder)
    rows = {row["test"]: row for row in summary.rows}
    # Three tokens behind 20, 21 and 22 positions, each with its own.
    read = 3 * work.weight_bytes + (21 + 22 + 23) * work.kv_bytes
    rates = [read / seconds / 1e9 for seconds in rows["decode"]["samples_s"]]
    assert rows["decode"]["gb_s"] == pytest.approx(statistics.median(rates))
    shares = [rate / moment.read_gb_s for rate, moment in zip(rates, taken[1:], strict=True)]
    assert rows["decode"]["ceiling_share"] == pytest.approx(statistics.median(shares))
    rates = [work.operations(20) / seconds / 1e9 for seconds in rows["prefill"]["samples_s"]]
    shares = [rate / moment.int8_gop_s for rate, moment in zip(rates, taken[1:], strict=True)]
    assert rows["prefill"]["gop_s"] == pytest.approx(statistics.median(rates))
    assert rows["prefill"]["ceiling_share"] == pytest.approx(statistics.median(shares))
    assert rows["load"]["cached"] is True and rows["encode"]["ceiling_share"] is None


def test_nothing_to_decode_gives_no_decode_rows(tiny_onnx: Path) -> None:
    config = BenchConfig(prompt_tokens=(8, 16), generate=0, runs=1, warmup=0, threads=1, ceilings=False, cache=False)
    rows = result_of(bench.run(config, tiny_onnx)).rows
    assert [(row["test"], row["n_prompt"]) for row in rows if row["test"] in ("prefill", "decode")] == [
        ("prefill", 8),
        ("prefill", 16),
    ]
    assert rows[0]["cached"] is False
