"""Whole stages on a micro model: what moves, what repeats, what survives a kill."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from stages.artifacts.errors import BluelmError, UsageError
from stages.artifacts.events import Notice, Progress, result_of
from stages.artifacts.folder import open_artifact
from stages.workshop.model.checkpoint import load_checkpoint, save_checkpoint
from stages.workshop.training import session, stage, trainer
from stages.workshop.training.curve import LossCurve
from stages.workshop.training.machine import Machine
from stages.workshop.training.recipe import TrainRecipe
from stages.workshop.training.sources import FromCheckpoint
from stages.workshop.training.stage import StageInputs, TrainResult, run_stage

Make = Callable[..., TrainRecipe]


@pytest.fixture
def inputs(checkpoint: Path, corpus: Path, machine: Machine) -> StageInputs:
    return StageInputs("finetune", FromCheckpoint(checkpoint), corpus, None, machine)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def run(recipe: TrainRecipe, inputs: StageInputs, out: Path) -> TrainResult:
    return result_of(run_stage(recipe, inputs, out))


def test_stage_1_moves_the_connector_and_nothing_else(
    micro_recipe: Make, inputs: StageInputs, checkpoint: Path, tmp_path: Path
) -> None:
    run(micro_recipe(trained=[{"parameters": "multi_modal_projector.*"}]), inputs, tmp_path / "out")
    before, after = weights(checkpoint), weights(tmp_path / "out")
    assert before.keys() == after.keys()
    for name, weight in before.items():
        moved = not torch.equal(weight, after[name])
        assert moved == name.startswith("multi_modal_projector."), name


def test_stage_2_moves_every_weight(micro_recipe: Make, inputs: StageInputs, checkpoint: Path, tmp_path: Path) -> None:
    run(micro_recipe(), inputs, tmp_path / "out")
    before, after = weights(checkpoint), weights(tmp_path / "out")
    # The bias of a key moves every score of a query alike, so softmax gives it no gradient but rounding noise.
    still = [name for name in before if torch.equal(before[name], after[name]) and not name.endswith("k_proj.bias")]
    assert still == []


def test_the_same_seed_gives_the_same_artifact(micro_recipe: Make, inputs: StageInputs, tmp_path: Path) -> None:
    first = run(micro_recipe(), inputs, tmp_path / "a")
    second = run(micro_recipe(), inputs, tmp_path / "b")
    other = run(micro_recipe(seed=1), inputs, tmp_path / "c")
    assert first.digest == second.digest
    assert first.digest != other.digest
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


def test_the_artifact_is_a_checkpoint_with_its_curve_and_no_state(
    micro_recipe: Make, inputs: StageInputs, checkpoint: Path, tmp_path: Path
) -> None:
    result = run(micro_recipe(steps=6, log_every=4), inputs, tmp_path / "out")
    manifest = open_artifact(tmp_path / "out", "checkpoint").manifest
    assert manifest is not None
    assert manifest.stage == "finetune"
    assert "execution" not in manifest.config
    assert not [name for name in manifest.files if name.endswith((".pt", ".pth", ".bin")) or name.startswith(".")]
    assert not [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]
    curve = json.loads((tmp_path / "out/training.json").read_text())
    assert curve["steps"] == [4, 6]
    assert (curve["losses"][0], curve["losses"][-1]) == (manifest.metrics["loss_first"], manifest.metrics["loss_last"])
    assert manifest.metrics["data"]["samples"] == 12
    assert result.run["samples_per_s"] > 0
    # Training leaves no trace of its own in the configuration.
    save_checkpoint(*load_checkpoint(checkpoint), tmp_path / "untrained")
    for name in ("config.json", "generation_config.json"):
        assert (tmp_path / "untrained" / name).read_text() == (tmp_path / "out" / name).read_text()
    _, processor = load_checkpoint(tmp_path / "out")
    assert (processor.image_processor.spec.max_cols, processor.image_processor.spec.max_rows) == (2, 1)


def test_loss_falls_when_a_corpus_is_learned_by_heart(micro_recipe: Make, inputs: StageInputs, tmp_path: Path) -> None:
    recipe = micro_recipe(steps=60, warmup_steps=5, global_batch=12, learning_rate=1e-2, log_every=10)
    metrics = run(recipe, inputs, tmp_path / "out").metrics
    assert metrics["loss_first"] > 2
    assert metrics["loss_last"] < 0.7


def test_accumulation_changes_nothing(micro_recipe: Make, inputs: StageInputs, tmp_path: Path) -> None:
    """2 passes of 2 samples with unequal numbers of learned tokens give the gradients of one pass of 4."""
    one = run(micro_recipe(global_batch=4, accumulation=1, steps=3), inputs, tmp_path / "one")
    two = run(micro_recipe(global_batch=4, accumulation=2, steps=3), inputs, tmp_path / "two")
    assert one.metrics["loss_last"] == pytest.approx(two.metrics["loss_last"], rel=1e-6)
    first, second = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, weight in first.items():
        if not name.endswith("k_proj.bias"):
            torch.testing.assert_close(weight, second[name], rtol=1e-4, atol=2e-6, msg=name)


@pytest.mark.parametrize("matrices", ["adamw", "muon"])
def test_resumed_equals_uninterrupted(
    matrices: str, micro_recipe: Make, inputs: StageInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dies in the fifth step, after the state of step 4; accumulation, length groups and a layer decay on."""
    recipe = micro_recipe(
        steps=7,
        accumulation=2,
        group_by_length=True,
        trained=[{"parameters": "*", "layer_decay": 0.9}],
        optimizer={"matrices": matrices},
    )
    whole = run(recipe, inputs, tmp_path / "whole")

    class KilledError(Exception):
        pass

    original = trainer.StageTrainer.training_step

    def die(self: trainer.StageTrainer, *args: object, **kwargs: object) -> torch.Tensor:
        if self.state.global_step == 5:
            raise KilledError
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.StageTrainer, "training_step", die)
        with pytest.raises(KilledError):
            run(recipe, inputs, tmp_path / "cut")
    assert not (tmp_path / "cut").exists()
    states = tmp_path / ".cut.partial" / stage.STATES
    assert sorted(folder.name for folder in states.iterdir()) == ["checkpoint-2", "checkpoint-4"]
    # A newer state that a kill left half-written must not be taken.
    half = states / "checkpoint-6"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")

    events = list(run_stage(recipe, inputs, tmp_path / "cut"))
    assert Notice("Going on after step 4 of 7.") in events
    steps = [event.done for event in events if isinstance(event, Progress) and event.unit == "steps"]
    assert steps == [5, 6, 7]
    assert (tmp_path / "whole/model.safetensors").read_bytes() == (tmp_path / "cut/model.safetensors").read_bytes()
    assert open_artifact(tmp_path / "cut", "checkpoint").digest == whole.digest


def test_killed_between_training_and_writing_the_manifest_trains_nothing_again(
    micro_recipe: Make, inputs: StageInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(micro_recipe(), inputs, tmp_path / "whole")
    write = LossCurve.write

    def write_and_die(curve: LossCurve, folder: Path) -> None:
        write(curve, folder)
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(LossCurve, "write", write_and_die)
        with pytest.raises(ZeroDivisionError):
            run(micro_recipe(), inputs, tmp_path / "cut")
    assert not (tmp_path / "cut").exists()
    events = list(run_stage(micro_recipe(), inputs, tmp_path / "cut"))
    assert not [event for event in events if isinstance(event, Progress) and event.unit == "steps"]
    assert open_artifact(tmp_path / "cut", "checkpoint").digest == whole.digest


def test_up_to_date_runs_nothing_and_ignores_how_the_machine_goes_about_it(
    micro_recipe: Make, inputs: StageInputs, tmp_path: Path
) -> None:
    first = run(micro_recipe(), inputs, tmp_path / "out")
    events = list(run_stage(micro_recipe(execution={"picture_memory_mb": 0}), inputs, tmp_path / "out"))
    assert events[0] == Notice(f"{tmp_path / 'out'} is up to date")
    again = events[-1].result  # type: ignore[union-attr]
    assert (again.up_to_date, again.digest, again.as_dict()["samples_per_s"]) == (True, first.digest, None)
    with pytest.raises(BluelmError, match="steps is 6, not 7"):
        run(micro_recipe(steps=7), inputs, tmp_path / "out")


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("x"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_no_memory_says_what_to_change(
    error: BaseException, micro_recipe: Make, inputs: StageInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(trainer, "answer_loss", fail)
    with pytest.raises(UsageError) as caught:
        run(micro_recipe(), inputs, tmp_path / "out")
    assert caught.value.what == "Memory ran out with 4 samples per device and pass (cpu)."
    assert "--set accumulation=2" in caught.value.fix


def test_interrupted_writes_a_state_at_once(micro_recipe: Make, inputs: StageInputs, tmp_path: Path) -> None:
    """Closing the events is what Ctrl-C does too: the step ends, its state is written, the partial folder stays."""
    recipe = micro_recipe(steps=50, execution={"save_every": None})
    events = run_stage(recipe, inputs, tmp_path / "out")
    for event in events:
        if isinstance(event, Progress) and event.unit == "steps":
            break
    events.close()  # type: ignore[attr-defined]
    found = session.newest_state(tmp_path / ".out.partial" / stage.STATES)
    assert found is not None
    assert 1 <= found.step < 50
    assert not (tmp_path / "out").exists()
    assert len(found.history.losses) == found.step
