"""The comparison with peers: turns, ratios and table, with workers that only pretend; and words it cannot take."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from stages.artifacts.errors import ModelError
from stages.measure.peer_process import PeerProcess

PEERS = Path(__file__).resolve().parents[2] / "recipes" / "peers"
PRETENDER = """
import sys
sys.path.insert(0, {peers!r})
from worker import answers, serve
stream = answers()
print("a library that prints to stdout")
times = iter([float(word) for word in sys.argv[1:]])
serve(stream, (), {{"prefill": lambda case: {{"seconds": next(times), "case": case}}}})
"""


@pytest.fixture(scope="module")
def compare() -> ModuleType:
    spec = importlib.util.spec_from_file_location("peers_compare", PEERS / "compare.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def pretender(tmp_path: Path, name: str, *times: float) -> Any:
    script = tmp_path / "pretender.py"
    script.write_text(PRETENDER.format(peers=str(PEERS)), encoding="utf-8")
    return PeerProcess([sys.executable, str(script), *map(str, times)], tmp_path / f"{name}.log")


def stopped(process: int) -> bool:
    """Whether a process is stopped, or soon is; true where the system doesn't tell."""
    status = Path(f"/proc/{process}/stat")
    for _ in range(100):
        if not status.exists() or status.read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] == "T":
            return True
        time.sleep(0.05)
    return False


def test_contenders_take_turns_and_the_first_does_not_count(compare: ModuleType, tmp_path: Path) -> None:
    contenders = (
        compare.Contender("peer slow", "peer", "p", "slow"),
        compare.Contender("ours x", "ours", "o", "x"),
        compare.Contender("peer fast", "peer", "p", "fast"),
    )
    comparison = compare.Comparison("prefill", contenders, 100, "token")
    # Warm-up, then two turns; the peer's worker answers for both of its cases.
    with (
        pretender(tmp_path, "p", 90, 91, 8, 4, 8, 6) as p,
        pretender(tmp_path, "o", 99, 2, 2) as o,
    ):
        records = list(compare.run_turns(comparison, {"p": p, "o": o}, warmup=1, pairs=2))
        assert stopped(o.process.pid) and stopped(p.process.pid)
    assert [(record["contender"], record["turn"], record["seconds"]) for record in records] == [
        *(("peer slow", 0, 8.0), ("ours x", 0, 2.0), ("peer fast", 0, 4.0)),
        *(("peer slow", 1, 8.0), ("ours x", 1, 2.0), ("peer fast", 1, 6.0)),
    ]
    assert p.versions["python"] and (tmp_path / "p.log").read_text() == "a library that prints to stdout\n"
    assert p.process.returncode == o.process.returncode == 0
    (row,) = compare.ratios(records)
    # Of the peer's two, the faster counts: 4/2 and 6/2.
    assert (row["ours"], row["peer"], row["median"], row["low"], row["high"]) == ("ours x", "peer fast", 2.5, 2, 3)
    assert [row["speed"] for row in compare.speeds(records)] == ["12.5 tok/s", "50.0 tok/s", "20.0 tok/s"]


def test_disturbed_turns_are_done_again(compare: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    others = iter([0.9, 0.0, 0.9, 0.0, 0.0, 0.3, 0.2, 0.0, 0.0])
    taken: list[int] = []

    def one_run(_: Any, one: Any, __: Any, turn: int) -> dict[str, Any]:
        taken.append(turn)
        return {"turn": turn, "contender": one.name, "others": next(others)}

    monkeypatch.setattr(compare, "_one_run", one_run)
    comparison = compare.Comparison("prefill", (compare.Contender("a", "ours", "o", ""),), 1, "token")
    records = list(compare.run_turns(comparison, {}, warmup=1, pairs=2, calm=0.1))
    # The warm-up turn may be disturbed; turn 1 is done again.
    assert [record["turn"] for record in records] == [0, 2] and taken == [-1, 0, 1, 2]
    records = list(compare.run_turns(comparison, {}, warmup=0, pairs=1, calm=-1.0))
    # After three turns the calmest counts.
    assert [record["others"] for record in records] == [0.0] and taken[4:] == [0, 1, 2]


def test_a_worker_that_dies_is_told_with_its_last_words(tmp_path: Path) -> None:
    with (
        pytest.raises(ModelError, match=r"(?s)ended with 1.*StopIteration"),
        pretender(tmp_path, "p") as worker,
    ):
        worker.ask("prefill", "x")


def test_the_table_names_everything(compare: ModuleType) -> None:
    row = {"test": "vit", "ours": "ours, int8", "peer": "OpenVINO", "median": 0.8, "low": 0.7, "high": 0.9}
    result = {
        "ratios": [{**row, "coverage": 0.98, "pairs": 7}, {**row, "coverage": 0.5, "pairs": 2}],
        "speeds": [{"test": "vit", "contender": "OpenVINO", "seconds": 1.0, "speed": "250.0 ms/tile", "others": 0.04}],
        "errors": [{"what": "OpenVINO", "vit_features": 0.021, "image_features": 0.03}],
        "versions": {"openvino_vit": "openvino 1"},
        "machine": {"cpu": "CPU", "cores": 2, "instruction_sets": ["avx2"]},
        "settings": "2 threads",
    }
    text = compare.markdown(result)
    assert "| vit | ours, int8 | OpenVINO | **0.80** | 0.70 – 0.90 | 1.25 | 7 |" in text
    assert "0.70 – 0.90 (50 % only)" in text and "| OpenVINO | 0.02100 | 0.03000 |" in text
    assert "| vit | OpenVINO | 1.000 | 250.0 ms/tile | 4 % |" in text and "- openvino_vit: openvino 1" in text


def test_every_ours_meets_every_peer(compare: ModuleType) -> None:
    options = compare.options_of(["work", "--policies", "mix,paper"])
    commands, comparisons = compare.decoder_side(options, Path("work"))
    assert [comparison.test for comparison in comparisons] == ["prefill", "decode"]
    names = [contender.name for contender in comparisons[0].contenders]
    assert names == ["llama.cpp, f16 KV, ubatch 128", "ours mix", "llama.cpp, f16 KV, ubatch 512", "ours paper"]
    assert {contender.worker for contender in comparisons[1].contenders} == set(commands)
    only = compare.options_of(["work", "--only", "decode"])
    assert [comparison.test for comparison in compare.decoder_side(only, Path("work"))[1]] == ["decode"]
    commands, (vit,) = compare.vision_side(options, Path("work"))
    assert {contender.worker for contender in vit.contenders} == set(commands)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ([], "compare.sh WORK"),
        (["--only", "decode"], "compare.sh WORK"),
        (["WORK", "--only", "decoding"], "invalid choice: 'decoding'"),
        (["WORK", "--pairs", "0"], "0 is not at least 1"),
        (["WORK", "--policies", ","], "--policies names none"),
        (["WORK", "--policies", "mix,int4"], "--policies names int4; there are mix, paper"),
        (["WORK", "--tiles", "13"], "at most 12"),
        (["WORK", "--fast"], "unrecognized arguments: --fast"),
    ],
)
def test_bad_words_end_with_2_before_anything_is_built(tmp_path: Path, words: list[str], what: str) -> None:
    work = tmp_path / "work"
    line = [str(work) if word == "WORK" else word for word in words]
    plain = {key: value for key, value in os.environ.items() if not key.startswith("BLUELM_PEER")}
    done = subprocess.run(
        [str(PEERS / "compare.sh"), *line],
        env={**plain, "BLUELM_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and what in done.stderr, done.stderr
    assert not work.exists()


def test_results_are_plain_data(compare: ModuleType) -> None:
    records = [
        {"test": "decode", "turn": 0, "contender": name, "side": side, "seconds": 1.0, "others": 0.0}
        for name, side in (("ours", "ours"), ("llama.cpp", "llama.cpp"))
    ]
    assert json.loads(json.dumps(compare.ratios(records))) == compare.ratios(records)
