"""What people see of a run: the line, the CSV, the curve, TensorBoard, held-out losses; none of it touches the run."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from stages.artifacts.errors import UsageError
from stages.artifacts.events import Progress, result_of
from stages.artifacts.folder import open_artifact
from stages.workshop.training.curve import LossCurve
from stages.workshop.training.data import read_rows
from stages.workshop.training.evaluation import read_heldout
from stages.workshop.training.history import History, HistoryTable, Step, history_from
from stages.workshop.training.machine import Machine
from stages.workshop.training.monitor import live_line
from stages.workshop.training.recipe import TrainRecipe
from stages.workshop.training.sources import FromCheckpoint
from stages.workshop.training.stage import StageInputs, TrainResult, run_stage

Make = Callable[..., TrainRecipe]


@pytest.fixture
def inputs(checkpoint: Path, corpus: Path, machine: Machine) -> StageInputs:
    return StageInputs("finetune", FromCheckpoint(checkpoint), corpus, None, machine)


def run(recipe: TrainRecipe, inputs: StageInputs, out: Path) -> TrainResult:
    return result_of(run_stage(recipe, inputs, out))


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "training.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def watched(inputs: StageInputs, corpus: Path) -> StageInputs:
    """The same with a held-out set."""
    return StageInputs(inputs.stage, inputs.source, inputs.data, None, inputs.machine, heldout=corpus)


def make_step(number: int, **changes: Any) -> Step:
    values = {"loss": 2.0, "grad_norm": 1.5, "rates": {1e-3: 5e-4}, "tokens": 75, "learned": 5, "slots": 100}
    return Step(number, **{**values, "seconds": 0.5, **changes})  # type: ignore[arg-type]


def test_a_row_is_the_means_and_rates_of_its_steps() -> None:
    history = History(LossCurve(2))
    assert history.add(make_step(1, loss=1.0, tokens=100, grad_norm=1.0)) is None
    row = history.add(make_step(2, loss=3.0, tokens=50, seconds=1.5, grad_norm=2.0, rates={1e-3: 2e-4, 1e-4: 2e-5}))
    assert row == {
        "step": 2,
        "loss": 2.0,
        "eval_loss": None,
        "grad_norm": 1.5,
        "tokens_per_s": 75.0,
        "learned_tokens_per_s": 5.0,
        "padding": 0.25,
        "seconds": 2.0,
        "lr_0.001": 2e-4,
        "lr_0.0001": 2e-5,
    }
    # An evaluation between two rows has one of its own, and does not end the window.
    assert history.add(make_step(3, eval_loss=0.5)) == {"step": 3, "loss": None, "eval_loss": 0.5}
    last = history.add(make_step(4, loss=4.0))
    assert last is not None
    assert (last["loss"], last["seconds"], history.eval_loss) == (3.0, 1.0, 0.5)
    assert history_from(json.loads(json.dumps(history.as_dict()))) == history


def test_the_table_can_be_followed_and_keeps_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "training.csv"
    written = HistoryTable(path, [1e-3, 1e-4])
    written.start([])
    head = "step,loss,eval_loss,grad_norm,tokens_per_s,learned_tokens_per_s,padding,seconds,lr_0.001,lr_0.0001\n"
    assert path.read_text() == head
    written.append({"step": 1200000, "loss": None, "eval_loss": 0.123456789})
    assert path.read_text() == head + "1200000,,0.123457,,,,,,,\n"


def test_the_live_line_says_all_that_people_watch() -> None:
    history = History(LossCurve(10))
    window = history.window
    step = make_step(1, loss=2.5, tokens=6000, learned=300, slots=8000, rates={1e-3: 1e-3, 1e-5: 1e-5})
    history.add(step)
    line = live_line(step, window, history, 3725)
    assert line == (
        "training, loss 2.5000, 12,000 tok/s (600 learned), padding 25%, lr 1e-05 to 0.001, grad 1.5, 1:02:05 left"
    )
    history.add(make_step(2, eval_loss=1.25))
    assert "held out 1.2500" in live_line(make_step(2, rates={1e-3: 1e-3}), history.window, history, 0)


def test_every_step_is_told_and_the_table_agrees_with_the_curve(
    micro_recipe: Make, inputs: StageInputs, tmp_path: Path
) -> None:
    """Rates by the cosine, tokens by the samples: the columns are checked against where they come from."""
    recipe = micro_recipe(steps=5, log_every=2, global_batch=12, trained=[{"parameters": "*", "layer_decay": 0.5}])
    events = list(run_stage(recipe, inputs, tmp_path / "out"))
    told = [event for event in events if isinstance(event, Progress) and event.unit == "steps"]
    assert [(event.done, event.total) for event in told] == [(number, 5) for number in range(1, 6)]
    assert all("loss" in event.label and "left" in event.label for event in told)
    rows = table(tmp_path / "out")
    curve = json.loads((tmp_path / "out/training.json").read_text())
    assert [int(row["step"]) for row in rows] == curve["steps"] == [2, 4, 5]
    assert [float(row["loss"]) for row in rows] == pytest.approx(curve["losses"], rel=1e-5)
    # Two layers: embeddings at a quarter of the peak, the lower layer at half. Step 2 is the first after the warm-up.
    assert [float(rows[0][f"lr_{peak:.6g}"]) for peak in (3e-3, 1.5e-3, 7.5e-4)] == [3e-3, 1.5e-3, 7.5e-4]
    # A step is the whole corpus: its tokens and answers are those that were counted when it was read.
    counted = open_artifact(tmp_path / "out", "checkpoint").manifest.metrics["data"]  # type: ignore[union-attr]
    for row in rows:
        steps = 1 if row["step"] == "5" else 2
        assert float(row["tokens_per_s"]) * float(row["seconds"]) == pytest.approx(steps * counted["tokens"], rel=1e-3)
        learned = float(row["learned_tokens_per_s"]) * float(row["seconds"])
        assert learned == pytest.approx(steps * counted["answer_tokens"], rel=1e-3)
        assert 0 < float(row["padding"]) < 0.5
        assert float(row["grad_norm"]) > 0
    figures = json.loads((tmp_path / "out/run.json").read_text())
    assert figures["padding"] == pytest.approx(float(rows[0]["padding"]), abs=2e-4)
    picture = Image.open(tmp_path / "out/loss.png")
    assert picture.size == (960, 600)
    assert len(set(picture.convert("RGB").get_flattened_data())) > 50


def test_times_and_held_out_losses_stay_outside_the_digest(
    micro_recipe: Make, inputs: StageInputs, corpus: Path, tmp_path: Path
) -> None:
    """Evaluation touches neither weights nor random states: the artifact is the same to the byte."""
    plain = run(micro_recipe(), inputs, tmp_path / "plain")
    recipe = micro_recipe(execution={"evaluate_every": 2, "save_every": 2})
    seen = run(recipe, watched(inputs, corpus), tmp_path / "seen")
    assert seen.digest == plain.digest
    files = [open_artifact(tmp_path / name, "checkpoint").manifest.files for name in ("plain", "seen")]  # type: ignore[union-attr]
    assert files[0] == files[1]
    assert not {"training.csv", "loss.png", "run.json"} & set(files[0])
    evaluated = {row["step"]: float(row["eval_loss"]) for row in table(tmp_path / "seen") if row["eval_loss"]}
    assert sorted(evaluated) == ["2", "4", "6"]
    assert evaluated["6"] == pytest.approx(seen.run["eval_loss"], rel=1e-5)
    assert plain.run["eval_loss"] is None


def test_the_held_out_loss_is_the_mean_over_held_out_tokens(
    micro_recipe: Make, inputs: StageInputs, corpus: Path, two_rows: Path, tmp_path: Path
) -> None:
    """Frozen by a learning rate of nearly nothing, training on the held-out rows gives the same number."""
    rows = read_heldout(corpus)
    assert [row.name for row in rows] == ["row0", "row1"]
    assert len(read_rows(corpus)) == 12
    still = {"learning_rate": 1e-30, "steps": 1, "warmup_steps": 0}
    seen = run(micro_recipe(**still, global_batch=1), watched(inputs, corpus), tmp_path / "seen")
    # The first two rows of the larger corpus.
    two = StageInputs("finetune", inputs.source, two_rows, None, inputs.machine)
    trained = run(micro_recipe(**still, global_batch=2), two, tmp_path / "trained")
    assert seen.run["eval_loss"] == pytest.approx(trained.metrics["loss_last"], rel=1e-6)


def test_tensorboard_draws_the_same_numbers(
    micro_recipe: Make, inputs: StageInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            self.folder = folder

        def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
            drawn.append((tag, scalar_value, global_step))

        def close(self) -> None:
            drawn.append(("closed", 0.0, 0))

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    recipe = micro_recipe(steps=4, log_every=2, execution={"tensorboard": str(tmp_path / "board")})
    run(recipe, inputs, tmp_path / "out")
    losses = [(float(row["loss"]), int(row["step"])) for row in table(tmp_path / "out")]
    assert [(pytest.approx(value, rel=1e-5), step) for tag, value, step in drawn if tag == "loss"] == losses
    assert {"grad_norm", "padding", "tokens_per_s", "lr_0.003"} <= {tag for tag, *_ in drawn}
    assert drawn[-1][0] == "closed"


def test_tensorboard_that_is_not_installed_is_said_before_anything_is_read(
    micro_recipe: Make, inputs: StageInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match="tensorboard is not installed") as caught:
        run(micro_recipe(execution={"tensorboard": "board"}), inputs, tmp_path / "out")
    assert "training.csv" in caught.value.fix
    assert not (tmp_path / "out").exists()
