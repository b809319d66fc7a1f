"""`bluelm finetune` on the command line: its plan, its result, Ctrl-C and a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from stages.artifacts.folder import ArtifactSpec, create
from stages.device.imaging.presets import imaging_preset
from stages.workshop.model.checkpoint import save_checkpoint
from stages.workshop.model.image_processing import BlueLMVImageProcessor
from stages.workshop.model.presets import build_model, preset_config
from stages.workshop.model.processing import BlueLMVProcessor
from stages.workshop.model.tokenizer import train_tokenizer

STEPS = 40
# Muon orthogonalizes in bfloat16: sums in another order would show in its steps.
EXACT = ("--set", "optimizer.matrices=adamw", "--set", "learning_rate=1e-3")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "corpus"
    rows: list[dict[str, Any]] = []
    with create(out, ArtifactSpec(kind="corpus", stage="data", config={})) as draft:
        (draft.path / "images").mkdir()
        for number, colour in enumerate(("red", "lime", "blue", "white")):
            name = f"images/{number}.png"
            Image.new("RGB", (60, 50), colour).save(draft.path / name)
            turns = [{"from": "human", "value": "<image>\nWhich colour?"}, {"from": "gpt", "value": colour}]
            rows.append({"id": str(number), "image": name, "conversations": turns})
        (draft.path / "train.json").write_text(json.dumps(rows))
    return out


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One layer each of the tiny preset."""
    folder = tmp_path_factory.mktemp("models") / "micro"
    tokenizer = train_tokenizer(["Which colour? red lime blue white"], 300)
    processor = BlueLMVProcessor(BlueLMVImageProcessor.from_preset(imaging_preset("tiny")), tokenizer)
    config = preset_config(
        "tiny", vocab_size=len(tokenizer), eos_token_id=2, pad_token_id=0, text_layers=1, vision_layers=1
    )
    save_checkpoint(build_model(config), processor, folder)
    return folder


def newest(states: Path) -> int:
    """Steps of the newest complete state."""
    return max((int(marker.parent.name.split("-")[1]) for marker in states.glob("*/complete.json")), default=0)


@pytest.fixture
def words(checkpoint: Path, corpus: Path) -> list[str]:
    values = {"steps": STEPS, "warmup_steps": 1, "global_batch": 2, "log_every": 7, "execution.save_every": 5}
    sets = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    return [
        "finetune",
        str(checkpoint),
        "--data",
        str(corpus),
        "--recipe",
        "tiny/finetune.yaml",
        "--threads",
        "1",
        *sets,
    ]


def test_plan_shows_the_layers_learning_rates(bluelm: Callable[..., Any], words: list[str]) -> None:
    plan = bluelm(*words, "--set", "learning_rate=1e-4", "--dry-run", "--json").json()
    # One layer: embeddings 0.9, the layer and everything above 1.
    assert sorted({group["learning_rate"] for group in plan["groups"]}) == [pytest.approx(9e-5), 1e-4]
    assert all(found["trained"] == found["parameters"] for found in plan["parts"].values())
    assert plan["stage"] == "finetune"


@pytest.mark.slow
def test_interrupted_and_killed_it_goes_on_to_the_same_weights(
    bluelm: Callable[..., Any], words: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    states = tmp_path / ".out.partial" / ".states"

    def start(after: int) -> subprocess.Popen[str]:
        """Runs the command until it has written a state of at least so many steps."""
        run = subprocess.Popen(
            [sys.executable, "-m", "bluelm_cli", *words, "--out", str(out)],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        deadline = time.monotonic() + 120
        while newest(states) < after:
            assert run.poll() is None, run.stderr.read() if run.stderr else ""
            assert time.monotonic() < deadline
            time.sleep(0.005)
        return run

    run = start(after=5)
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    assert "go on from there" in err
    assert "Traceback" not in err
    assert not out.exists()
    reached = newest(states)
    assert 5 <= reached < STEPS

    run = start(after=reached + 5)
    run.kill()
    run.communicate(timeout=60)
    assert run.returncode == -signal.SIGKILL
    assert not out.exists()
    assert newest(states) > reached

    done = bluelm(*words, "--out", out, "--json")
    assert done.code == 0, done.err
    assert "Going on after step" in done.err
    whole = bluelm(*words, "--out", tmp_path / "whole", "--json")
    assert whole.code == 0, whole.err
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()
    assert done.json()["digest"] == whole.json()["digest"]
    assert not states.exists()


@pytest.mark.slow
def test_two_processes_train_as_one(words: list[str], bluelm: Callable[..., Any], tmp_path: Path) -> None:
    few = [*words, *EXACT, "--set", "steps=4", "--set", "global_batch=4", "--device", "cpu", "--json"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, "-m", "bluelm_cli", *few, "--out", str(tmp_path / "two")],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # One of them speaks.
    assert json.loads(done.stdout)["steps"] == 4
    one = bluelm(*few, "--out", tmp_path / "one")
    assert one.code == 0, one.err
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, weight in first.items():
        if not name.endswith("k_proj.bias"):
            torch.testing.assert_close(weight, second[name], rtol=1e-4, atol=1e-5, msg=name)
