"""Two processes under torchrun (gloo) train as one does: copies of the model (DDP), and shares of it (FSDP2)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stages.artifacts.errors import BluelmError
from stages.artifacts.events import result_of
from stages.artifacts.folder import open_artifact
from stages.workshop.training.machine import Machine, check_machine
from stages.workshop.training.recipe import FinetuneRecipe
from stages.workshop.training.sources import FromCheckpoint
from stages.workshop.training.stage import StageInputs, run_stage

Make = Callable[..., FinetuneRecipe]
WORKER = Path(__file__).with_name("worker.py")
# Some step has a picture on one process only, and some step (not the first) has none at all.
SEED = 0


def train_both(
    torchrun: Callable[..., Any], recipe: FinetuneRecipe, checkpoint: Path, corpus: Path, folder: Path
) -> list[dict[str, Any]]:
    """Trains with one process and with two; returns what each of the two saw."""
    execution = recipe.execution.model_copy(update={"sharding": "none"})
    inputs = StageInputs("finetune", FromCheckpoint(checkpoint), corpus, None, Machine("cpu", 1), heldout=corpus)
    result_of(run_stage(recipe.model_copy(update={"execution": execution}), inputs, folder / "one"))
    torchrun(WORKER, folder / "two", checkpoint, corpus, recipe.model_dump_json())
    return [json.loads((folder / f"two-{rank}.json").read_text()) for rank in (0, 1)]


def assert_same(folder: Path) -> None:
    """One process and two: the same losses at every step, also held out, and the same checkpoint."""
    one, two = (json.loads((folder / name / "training.json").read_text())["losses"] for name in ("one", "two"))
    assert len(one) == len(two) > 3
    assert two == pytest.approx(one, rel=2e-5)
    first, second = (json.loads((folder / name / "run.json").read_text())["eval_loss"] for name in ("one", "two"))
    assert second == pytest.approx(first, rel=2e-5)
    weights = load_file(folder / "two/model.safetensors")
    for name, weight in load_file(folder / "one/model.safetensors").items():
        # A key's bias gets no gradient but rounding noise.
        if not name.endswith("k_proj.bias"):
            torch.testing.assert_close(weights[name], weight, rtol=1e-3, atol=2e-5, msg=name)
    assert open_artifact(folder / "two", "checkpoint").manifest is not None


def test_shares_of_the_model_train_as_the_whole(
    torchrun: Callable[..., Any], micro_recipe: Make, checkpoint: Path, corpus: Path, tmp_path: Path
) -> None:
    """FSDP2: every parameter and its optimizer state is shared out; batches and steps without pictures change nothing.

    Momentum alone would move the tower in such a step, where in one process it stands still.
    """
    execution = {"sharding": "fsdp2", "save_every": 3, "evaluate_every": 2}
    recipe = micro_recipe(steps=6, global_batch=2, log_every=1, seed=SEED, execution=execution)
    saw = train_both(torchrun, recipe, checkpoint, corpus, tmp_path)
    total = sum(weight.numel() for weight in load_file(checkpoint / "model.safetensors").values())
    for process in saw:
        assert process["sharded"] == process["parameters"]
        assert process["local"] < 0.6 * total
        assert process["moments"] < 0.6 * total
    pictures = list(zip(saw[0]["pictures"], saw[1]["pictures"], strict=True))
    assert any(first != second for first, second in pictures)
    assert not all(first or second for first, second in pictures[1:])
    assert_same(tmp_path)


@pytest.mark.slow
def test_copies_of_the_model_train_as_one(
    torchrun: Callable[..., Any], micro_recipe: Make, checkpoint: Path, corpus: Path, tmp_path: Path
) -> None:
    recipe = micro_recipe(steps=6, global_batch=4, accumulation=2, log_every=1, execution={"evaluate_every": 2})
    saw = train_both(torchrun, recipe, checkpoint, corpus, tmp_path)
    assert {process["wrapped"] for process in saw} == {"DistributedDataParallel"}
    assert saw[0]["sharded"] == []
    assert_same(tmp_path)


def test_accelerates_own_fsdp_is_refused(micro_recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(BluelmError, match="asks for FSDP") as caught:
        check_machine(micro_recipe(), Machine("cpu"))
    assert "execution.sharding=fsdp2" in caught.value.fix


def test_one_process_shares_with_nobody(micro_recipe: Make) -> None:
    with pytest.raises(BluelmError, match="there is one process") as caught:
        check_machine(micro_recipe(execution={"sharding": "fsdp2"}), Machine("cpu"))
    assert "torchrun" in caught.value.fix
