"""A short storm: some faults of every kind on the stages that take seconds; `recipes/faults.sh` is the long one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.injuries import KINDS
from tests.faults.pipeline import stages
from tests.faults.storm import table

QUICK = ("corpus", "checked", "mixed", "tiles", "tile-shards")


def test_every_pair_of_stage_and_kind_comes_up() -> None:
    names = [stage.name for stage in stages(Path())]
    for chosen in (names, list(QUICK)):
        count = len(chosen) * len(KINDS)
        met = {(number % len(chosen), (number + number // len(chosen)) % len(KINDS)) for number in range(count)}
        assert len(met) == count


def test_the_table(tmp_path: Path) -> None:
    rows = [
        {"stage": "tiles", "kind": "kill", "problem": None},
        {"stage": "tiles", "kind": "kill", "problem": "half"},
        {"stage": "onnx", "kind": "no memory", "problem": None},
    ]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = table(tmp_path / "r.jsonl").splitlines()
    assert lines[0] == "| stage | kill | no memory |"
    assert lines[2] == "| tiles | 2 (1 failed) | – |"
    assert lines[-1] == "3 faults, 1 with a problem."


@pytest.mark.slow
def test_a_short_storm_and_going_on_with_it(tmp_path: Path, project_root: Path) -> None:
    results = tmp_path / "results.jsonl"
    words = [sys.executable, "-m", "tests.faults.storm", "--results", str(results), "--base", str(tmp_path / "base")]
    for name in QUICK:
        words += ["--stage", name]
    for faults in (6, 2 * len(KINDS)):
        done = subprocess.run(
            [*words, "--faults", str(faults)], capture_output=True, text=True, cwd=project_root, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(results.read_text().splitlines()) == faults
