"""A run that was killed goes on with the next layer and gives the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from stages.artifacts.events import Notice, Progress, result_of
from stages.artifacts.folder import open_artifact
from stages.artifacts.recipes import load_config
from stages.quantize import QuantizeConfig, run
from stages.workshop.quant.methods import gptq
from stages.workshop.quant.packed import Quantized

RULES = (
    'rules=[{"modules": "vision_tower.encoder.*", "weights": "int8"},'
    '{"modules": "multi_modal_projector.*", "weights": "int8", "method": "gptq"},'
    '{"modules": "*.layers.0.*", "weights": "int4", "method": "awq"},'
    '{"modules": "*.layers.1.*", "weights": "int4", "method": "gptq"}]'
)
SMOOTHING = 'smoothing=[{"modules": "vision_tower.*", "alpha": 0.5}]'
SETS = [RULES, SMOOTHING, "measure.questions=0"]


def config() -> QuantizeConfig:
    return load_config(QuantizeConfig, "quantize.yaml", SETS, {})


@pytest.fixture(scope="module")
def digest(checkpoint: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("through") / "q"
    result_of(run(config(), checkpoint, corpus, out))
    assert not (out / "blocks").exists()
    return open_artifact(out, "quantized").digest


# Two layers of the tower, the connector, two decoder layers, the head.
@pytest.mark.parametrize("done", [0, 1, 3, 4, 6])
def test_a_stopped_run_goes_on_with_the_next_block(
    checkpoint: Path, corpus: Path, tmp_path: Path, digest: str, done: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "q"
    events = run(config(), checkpoint, corpus, out)
    for event in events:
        if isinstance(event, Progress) and ((event.done == done and event.label == "calibrate") or not done):
            break
    events.close()
    assert not out.exists()
    assert len(list((tmp_path / ".q.partial" / "blocks").glob("*.json"))) == done
    worked: list[str] = []
    whole = gptq.quantize

    def noted(name: str, *rest: Any) -> Quantized:
        worked.append(name)
        return whole(name, *rest)

    monkeypatch.setattr(gptq, "quantize", noted)
    events_again = list(run(config(), checkpoint, corpus, out))
    assert any(isinstance(event, Notice) and "goes on" in event.text for event in events_again)
    assert open_artifact(out, "quantized").digest == digest
    # What was done is not done again.
    assert len(worked) == {0: 9, 1: 9, 3: 7, 4: 7, 6: 0}[done]


@pytest.mark.slow
def test_kill_9_at_random_moments(checkpoint: Path, corpus: Path, tmp_path: Path, digest: str) -> None:
    out = tmp_path / "q"
    sets = [word for one in SETS for word in ("--set", one)]
    command = [sys.executable, "-m", "bluelm_cli", "quantize", checkpoint, "--data", corpus, "--out", out, *sets]
    kills = 0
    for _ in range(60):
        process = subprocess.Popen(list(map(str, command)), env={**os.environ, "OMP_NUM_THREADS": "1"})
        blocks = tmp_path / ".q.partial" / "blocks"
        before = len(list(blocks.glob("*.json")))
        while process.poll() is None and len(list(blocks.glob("*.json"))) <= before:
            time.sleep(0.002)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        if out.exists():
            break
    assert kills >= 3
    assert open_artifact(out, "quantized").digest == digest
