"""Killed with -9 at any moment, also in the middle of a write; SIGTERM; a full disk: what survives, and to what end."""

from __future__ import annotations

import errno
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

from stages.artifacts.errors import BluelmError
from stages.artifacts.events import result_of
from stages.workshop.training import stage, states
from stages.workshop.training.recipe import FinetuneRecipe
from stages.workshop.training.sources import FromCheckpoint
from stages.workshop.training.stage import StageInputs, run_stage
from stages.workshop.training.states import complete_states, newest_state
from stages.workshop.training.trainer import StageTrainer

Make = Callable[..., FinetuneRecipe]
STAGE_1 = [{"parameters": "multi_modal_projector.*"}]
ROOT = Path(__file__).resolve().parents[3]
# A child process forks from one that has everything imported already, so that a dozen kills take seconds.
NURSERY = Path(__file__).with_name("nursery.py")


@pytest.fixture
def inputs(checkpoint: Path, corpus: Path, machine: Any) -> StageInputs:
    return StageInputs("finetune", FromCheckpoint(checkpoint), corpus, None, machine)


@pytest.mark.parametrize("kills", [3, pytest.param(40, marks=pytest.mark.slow)])
def test_killed_at_random_steps_it_ends_with_the_same_weights(
    kills: int, micro_recipe: Make, inputs: StageInputs, checkpoint: Path, corpus: Path, tmp_path: Path
) -> None:
    """Both stages; some children die in the middle of writing a state."""
    common = {"steps": 8 + 3 * kills, "log_every": 4, "execution": {"save_every": 2}}
    recipes = {
        "one": micro_recipe(trained=STAGE_1, **common),
        "two": micro_recipe(accumulation=2, group_by_length=True, **common),
    }
    done = subprocess.run(
        [sys.executable, str(NURSERY), str(tmp_path), str(checkpoint), str(corpus), str(kills)],
        input=json.dumps({name: recipe.model_dump(mode="json") for name, recipe in recipes.items()}),
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name, story in json.loads(done.stdout).items():
        assert story["killed"] == kills
        # It went on from states, not from the start.
        assert max(story["resumed"]) >= 2
        assert story["half_written"] >= 1
        whole, cut = tmp_path / f"whole-{name}", tmp_path / name
        result_of(run_stage(recipes[name], inputs, whole))
        assert (cut / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
        files = [json.loads((path / "artifact.json").read_text())["files"] for path in (whole, cut)]
        assert files[0] == files[1]


def test_sigterm_stops_after_the_step_with_a_state(
    micro_recipe: Make, inputs: StageInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one, which schedulers send soon after, changes nothing; the handler of before is back."""
    original = StageTrainer.training_step

    def terminate(self: StageTrainer, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.state.global_step == 3:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.05)
        return original(self, *args, **kwargs)

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(StageTrainer, "training_step", terminate)
        with pytest.raises(KeyboardInterrupt):
            result_of(run_stage(micro_recipe(steps=50, execution={"save_every": None}), inputs, tmp_path / "out"))
    found = newest_state(tmp_path / ".out.partial" / stage.STATES)
    assert found is not None
    assert found.step == 4
    assert signal.getsignal(signal.SIGTERM) == before
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_sigterm_ends_the_command_as_ctrl_c_does(checkpoint: Path, corpus: Path, tmp_path: Path) -> None:
    out, recipe = tmp_path / "out", tmp_path / "long.yaml"
    recipe.write_text(
        "trained: [{parameters: '*'}]\nlearning_rate: 1e-3\nsteps: 100000\nwarmup_steps: 1\nglobal_batch: 2\n"
        "dtype: float32\nsequence_length: 128\ntiling: {max_cols: 2, max_rows: 1}\nexecution: {save_every: null}\n"
    )
    words = ["finetune", checkpoint, "--data", corpus, "--recipe", recipe, "--out", out, "--device", "cpu"]
    run = subprocess.Popen(
        [sys.executable, "-m", "bluelm_cli", *map(str, words), "--threads", "1"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    table = tmp_path / ".out.partial" / "training.csv"
    deadline = time.monotonic() + 120
    while not (table.is_file() and len(table.read_text().splitlines()) > 1):
        assert run.poll() is None, run.stderr.read() if run.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.01)
    run.send_signal(signal.SIGTERM)
    run.send_signal(signal.SIGTERM)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    assert "go on from there" in err
    assert "Traceback" not in err
    found = newest_state(tmp_path / ".out.partial" / stage.STATES)
    assert found is not None
    assert found.step >= 10
    assert not out.exists()


def torch_runs_out(*args: Any, **kwargs: Any) -> None:
    """As torch.save says it."""
    raise RuntimeError("[enforce fail at inline_container.cc:659] . PytorchStreamWriter failed writing file data/3")


def system_runs_out(*args: Any, **kwargs: Any) -> None:
    """As the system says it."""
    raise OSError(errno.ENOSPC, "No space left on device", "optimizer.pt")


@pytest.mark.parametrize("write", [torch_runs_out, system_runs_out])
def test_a_full_disk_keeps_the_last_good_state(
    write: Callable[..., None], micro_recipe: Make, inputs: StageInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third state does not fit: two are left, the half of the third is gone, and with room the run goes on."""
    recipe = micro_recipe(steps=8, execution={"save_every": 2, "keep_states": 2})
    original, saves = torch.save, []

    def save(held: Any, path: Any, *args: Any, **kwargs: Any) -> None:
        saves.append(path)
        if "checkpoint-6" in str(path):
            Path(path).write_bytes(b"half")
            write()
        original(held, path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", save)
        with pytest.raises(BluelmError, match="the disk is full") as caught:
            result_of(run_stage(recipe, inputs, tmp_path / "out"))
    assert caught.value.what.startswith("checkpoint-6, the state after step 6,")
    assert "after step 4" in caught.value.why
    assert "Free some space" in caught.value.fix
    left = tmp_path / ".out.partial" / stage.STATES
    assert sorted(path.name for path in left.iterdir()) == ["checkpoint-2", "checkpoint-4"]
    assert [state.step for state in complete_states(left)] == [4, 2]
    whole = result_of(run_stage(recipe, inputs, tmp_path / "whole"))
    assert result_of(run_stage(recipe, inputs, tmp_path / "out")).digest == whole.digest


def test_other_errors_of_writing_are_no_full_disk(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"), states.writing(tmp_path / "checkpoint-1", 1):
        raise RuntimeError("shapes do not match")


@pytest.mark.slow
def test_a_disk_that_is_really_full(checkpoint: Path, corpus: Path, tmp_path: Path) -> None:
    """A file system of one megabyte: the states of the micro model fill it."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted: {mounted.stderr.strip()}")
    try:
        sets = ["steps=40", "warmup_steps=0", "global_batch=2", "dtype=float32", "execution.save_every=1"]
        sets += ["execution.keep_states=50", "sequence_length=128", "optimizer.matrices=adamw"]
        words = ["finetune", checkpoint, "--data", corpus, "--recipe", "tiny/finetune.yaml", "--out", small / "out"]
        done = subprocess.run(
            [sys.executable, "-m", "bluelm_cli", *map(str, words), *(word for key in sets for word in ("--set", key))],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 2, done.stderr
        assert "the disk is full" in done.stderr
        assert "Fix: Free some space" in done.stderr
        assert newest_state(small / ".out.partial" / stage.STATES) is not None
    finally:
        subprocess.run(["umount", str(small)], check=False)
