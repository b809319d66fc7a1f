"""Findings and comparisons: a verdict only where the intervals, the number of runs and a quiet machine allow one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from stages.artifacts.errors import UsageError
from stages.bench_compare import run as compare
from stages.measure.comparing import compare_benches, compare_settings
from stages.measure.findings import fastest_finding, gain_finding, withheld
from stages.measure.records import Record, record_of, write_records
from stages.measure.tuning import Runs, choose

JITTER = [1.0, 1.02, 0.99, 1.01, 0.98, 1.03, 1.0]


def around(seconds: float) -> list[float]:
    return [seconds * factor for factor in JITTER]


def finding(times: dict[int, Sequence[float]]) -> Any:
    return fastest_finding("4 is fastest", "5.3", times, 4, "{} a batch".format)


def test_the_fastest_holds_only_if_it_beats_all() -> None:
    assert finding({1: around(2.0), 2: around(1.5), 4: around(1.0)}).verdict == "holds"
    refuted = finding({1: around(0.5), 2: around(1.5), 4: around(1.0)})
    assert refuted.verdict == "does not hold" and "1 a batch is faster" in refuted.sentence
    assert refuted.ratios["1 a batch"]["median"] == pytest.approx(0.5)
    # The same jitter in another order: as fast within what is known.
    close = finding({1: around(2.0), 2: around(1.0)[::-1], 4: around(1.0)})
    assert close.verdict == "undecided" and "4 a batch and 2 a batch are too close" in close.sentence


def test_few_runs_decide_nothing() -> None:
    few = finding({1: [2.0] * 5, 4: [1.0] * 5})
    assert few.verdict == "undecided" and "too few runs to be sure (5" in few.sentence
    # Six bound one comparison with 97 %, but not three together with 95 %.
    assert finding({1: [2.0] * 6, 4: [1.0] * 6}).verdict == "holds"
    assert finding({1: [2.0] * 6, 2: [2.0] * 6, 6: [2.0] * 6, 4: [1.0] * 6}).verdict == "undecided"


def test_what_was_not_measured_is_not_claimed() -> None:
    alone = finding({4: around(1.0)})
    assert alone.verdict == "undecided" and "cannot be said here: 4 a batch was measured" in alone.sentence
    assert finding({1: around(1.0), 2: around(2.0)}).verdict == "undecided"


def test_a_gain_is_shown_refuted_or_open() -> None:
    def gain(subject: list[float], other: list[float]) -> Any:
        return gain_finding("a claim", "5.3", subject, other, ("overlapped", "one by one"))

    assert gain(around(1.0), around(1.2)).verdict == "holds"
    assert gain(around(1.2), around(1.0)).verdict == "does not hold"
    assert "No gain is shown" in gain(around(1.0), around(1.0)[::-1]).sentence
    assert gain([1.0] * 5, [2.0] * 5).verdict == "undecided"


def test_beside_too_much_other_work_nothing_is_said() -> None:
    held = withheld(finding({1: around(2.0), 4: around(1.0)}), 0.6)
    assert held.verdict == "undecided" and "other processes had 60%" in held.sentence


def record(samples: Sequence[float], **about: Any) -> Record:
    return record_of("prefill", "m", samples, tokens=10, n_prompt=10, **{"chunk": 32, "run": "r", **about})


def test_settings_of_one_bench_are_paired_by_turn() -> None:
    # Every second turn was twice as slow for both: paired it is no doubt, all with all it is.
    slow = [1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0]
    records = [record([1.2 * s for s in slow]), record(slow, chunk=128)]
    (row,) = compare_settings(records).rows
    assert row.paired and row.verdict == "faster" and row.ratio.median == pytest.approx(1.2)
    assert (row.first, row.second) == ("t32", "t128")
    assert "t128 is 1.20 [1.20, 1.20] times as fast as t32: faster" in row.sentence()
    (apart,) = compare_benches([record([1.2 * s for s in slow])], [record(slow, run="s")]).rows
    assert not apart.paired and apart.verdict == "no difference shown"


def test_two_benches_of_different_runs_are_compared_all_with_all_and_said_so() -> None:
    made = compare_benches([record(around(1.0))], [record(around(0.5), run="s", threads=4)])
    (row,) = made.rows
    assert (row.paired, row.verdict) == (False, "faster") and row.ratio.pairs == 49
    assert any("not measured in turns" in warning for warning in made.warnings)


@pytest.mark.parametrize(
    ("second", "why"),
    [
        (record([0.5] * 7, samples_others=(0.9,) * 7), "other processes had 90%"),
        (record([0.50, 0.52, 0.54, 0.56, 0.58, 0.60, 0.62], run="s"), "times changed by +2"),
    ],
)
def test_disturbance_and_drift_keep_a_verdict_back(second: Record, why: str) -> None:
    (row,) = compare_benches([record(around(1.0))], [second]).rows
    assert row.verdict == "nothing can be said" and why in row.why


def test_five_pairs_are_too_few() -> None:
    (row,) = compare_settings([record([1.0] * 5), record([0.5] * 5, chunk=64)]).rows
    assert row.verdict == "nothing can be said" and "94% only" in row.why


def test_what_else_differs_and_what_has_no_partner_is_told() -> None:
    first = [record(around(1.0), threads=2), record(around(1.0), chunk=64)]
    second = [record(around(1.0), threads=1, machine={"cpu": "B", "cores": 1}), record(around(1.0), kv="int8")]
    warnings = " ".join(compare_benches(first, second).warnings)
    assert "The threads differs: 2 and 1." in warnings
    assert "Only in the first: prefill 10 tokens, t64" in warnings and "Only in the second" in warnings


def test_what_one_bench_ran_with_several_of_is_matched_too() -> None:
    first = [record(around(4.0), threads=1), record(around(2.0), threads=2)]
    second = [record(around(2.0), threads=2, run="s"), record(around(8.0), threads=1, run="s")]
    made = compare_benches(first, second)
    assert [round(row.ratio.median, 2) for row in made.rows] == [0.5, 1.0]
    peers = [record(around(1.0)), record(around(3.0), engine="llama.cpp")]
    assert [round(row.ratio.median, 2) for row in compare_benches(peers, peers[::-1]).rows] == [1.0, 1.0]
    # The same setting twice: the later one counts, and that is said.
    twice = compare_benches([record(around(9.0)), record(around(1.0))], [record(around(1.0), run="s")])
    assert [round(row.ratio.median, 2) for row in twice.rows] == [1.0]
    assert any("1 records are left out" in warning for warning in twice.warnings)


def test_nothing_in_common_is_an_error(tmp_path: Any) -> None:
    write_records(tmp_path / "a.jsonl", [record([1.0])])
    write_records(tmp_path / "b.jsonl", [record([1.0], chunk=1)])
    with pytest.raises(UsageError, match="no test and setting in common"):
        compare([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
    with pytest.raises(UsageError, match="under two settings"):
        compare([tmp_path / "a.jsonl"])
    with pytest.raises(UsageError, match="3 benches"):
        compare([tmp_path] * 3)


def test_tuning_leaves_what_is_not_beaten_beyond_doubt() -> None:
    def choice(others: dict[int, list[float]], share: float | None = None) -> Any:
        runs = {256: around(1.0), **others}
        return choose({size: Runs(times, "r") for size, times in runs.items()}, 256, "chunks of {}".format, share)

    better = choice({128: around(0.8), 64: around(0.7), 512: around(2.0)})
    assert (better.value, better.kept) == (64, False) and "Chunks of 64: 1.43" in better.reason
    for kept in (choice({128: around(1.0)[::-1]}), choice({128: around(0.5)}, 0.4), choice({})):
        assert (kept.value, kept.kept) == (256, True)
    assert "other processes had 40%" in choice({128: around(0.5)}, 0.4).reason
    few = choose({1: Runs([1.0] * 3, "r"), 2: Runs([0.5] * 3, "r")}, 1, str)
    assert few.kept and "too few runs" in few.reason
