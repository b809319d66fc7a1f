"""Whole stages on a stream: the same weights however often it is stopped; bad rows are counted until too many."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from stages.artifacts.errors import DataError, RecipeError, UsageError
from stages.artifacts.events import Finished
from stages.artifacts.folder import ArtifactSpec, create, open_artifact
from stages.workshop.training import stage, trainer
from stages.workshop.training.machine import Machine
from stages.workshop.training.order import Steps
from stages.workshop.training.plan import plan_stage
from stages.workshop.training.recipe import TrainRecipe
from stages.workshop.training.sources import FromCheckpoint
from stages.workshop.training.stage import StageInputs, TrainResult, run_stage
from stages.workshop.training.streamed import open_stream

Make = Callable[..., TrainRecipe]
SMALL = {"streaming": True, "shuffle_rows": 7, "steps": 7, "accumulation": 2}


def write_set(out: Path, rows: int = 23, broken: bool = True) -> Path:
    """Squares and plain text; one row has no answer, one no turns, one a torn picture, one a missing one."""
    content: list[dict[str, Any]] = []
    with create(out, ArtifactSpec(kind="corpus", stage="data", config={"rows": rows, "broken": broken})) as draft:
        for number in range(rows):
            said = [{"from": "human", "value": "Say red."}, {"from": "gpt", "value": "red " * (1 + number % 5)}]
            row: dict[str, Any] = {"id": f"row{number}", "conversations": said}
            if number % 3 == 0:
                row["image"] = f"{number}.png"
                said[0]["value"] = "<image>\nSay red."
                Image.new("RGB", (40 + 8 * (number % 4), 36), (9 * number, 90, 90)).save(draft.path / row["image"])
            content.append(row)
        if broken:
            content[4]["conversations"] = "none"
            content[7]["conversations"] = content[7]["conversations"][:1]
            content[9]["image"] = "nowhere.png"
            whole = (draft.path / "12.png").read_bytes()
            (draft.path / "12.png").write_bytes(whole[: len(whole) - 30])
        (draft.path / "train.json").write_text(json.dumps(content), encoding="utf-8")
    return out


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("mixed") / "corpus")


def inputs_of(checkpoint: Path, corpus: Path, machine: Machine) -> StageInputs:
    return StageInputs("finetune", FromCheckpoint(checkpoint), corpus, None, machine)


@pytest.fixture
def inputs(checkpoint: Path, mixed: Path, machine: Machine) -> StageInputs:
    return inputs_of(checkpoint, mixed, machine)


def run(recipe: TrainRecipe, inputs: StageInputs, out: Path) -> TrainResult:
    *_, last = run_stage(recipe, inputs, out)
    assert isinstance(last, Finished)
    return last.result


def cases(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "data_report.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("packing", [pytest.param(False, marks=pytest.mark.slow), True])
def test_killed_and_resumed_equals_uninterrupted(
    packing: bool, micro_recipe: Make, inputs: StageInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dies twice; weights to the bit, and the report line by line, although loaders had read further."""
    recipe = micro_recipe(**SMALL, packing=packing, bad_rows=1, too_long="drop", sequence_length=34)
    whole = run(recipe, inputs, tmp_path / "whole")

    class KilledError(Exception):
        pass

    original = trainer.StageTrainer.training_step
    for step in (3, 5):

        def die(self: trainer.StageTrainer, *args: Any, step: int = step, **kwargs: Any) -> torch.Tensor:
            if self.state.global_step == step:
                raise KilledError
            return original(self, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(trainer.StageTrainer, "training_step", die)
            with pytest.raises(KilledError):
                run(recipe, inputs, tmp_path / "cut")
    states = tmp_path / ".cut.partial" / stage.STATES
    assert (states / "checkpoint-4" / "data-0.json").is_file()
    again = run(recipe, inputs, tmp_path / "cut")
    for name in ("model.safetensors", "data_report.jsonl", "training.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes(), name
    assert again.digest == whole.digest


def test_loader_workers_change_nothing(micro_recipe: Make, inputs: StageInputs, tmp_path: Path) -> None:
    """They decode pictures; which rows come when is decided before."""
    recipe = micro_recipe(**SMALL, bad_rows=1)
    one = run(recipe, inputs, tmp_path / "one")
    two = run(micro_recipe(**SMALL, bad_rows=1, execution={"loader_workers": 2}), inputs, tmp_path / "two")
    assert one.digest == two.digest


def test_a_stream_without_shuffling_over_windows_learns_what_the_whole_set_does(
    micro_recipe: Make, checkpoint: Path, machine: Machine, tmp_path: Path
) -> None:
    """One step over all rows has the loss of one step over all samples in memory."""
    inputs = inputs_of(checkpoint, write_set(tmp_path / "corpus", 12, broken=False), machine)
    shared = {"steps": 1, "warmup_steps": 0, "global_batch": 12}
    streamed = run(micro_recipe(**shared, streaming=True), inputs, tmp_path / "streamed")
    packed = run(micro_recipe(**shared, streaming=True, packing=True), inputs, tmp_path / "packed")
    memory = run(micro_recipe(**shared), inputs, tmp_path / "memory")
    for found in (streamed, packed):
        assert found.metrics["loss_first"] == pytest.approx(memory.metrics["loss_first"], rel=1e-6)
        assert found.metrics["data"] == memory.metrics["data"]


def test_every_bad_row_is_named_with_its_problem(micro_recipe: Make, inputs: StageInputs, tmp_path: Path) -> None:
    """23 rows, 56 samples: all rows were met twice, and in each pass each case once."""
    result = run(micro_recipe(**SMALL | {"steps": 14}, bad_rows=1), inputs, tmp_path / "out")
    *found, last = cases(tmp_path / "out")
    assert last["totals"] == result.metrics["data"]
    first = {case["row"]: case for case in found if "data_pass" not in case and case["fate"] != "cut"}
    assert {row: case["fate"] for row, case in first.items()} == {
        "row4": "broken",
        "row7": "nothing_to_learn",
        "row9": "broken",
        "row12": "broken",
    }
    assert "not a list of turns" in first["row4"]["problems"][0]
    assert first["row4"]["place"] == "train.json, row 4"
    assert "nowhere.png does not exist" in first["row9"]["problems"][0]
    assert "12.png is a broken picture" in first["row12"]["problems"][0]
    again = [case["row"] for case in found if case.get("data_pass") == 1]
    assert sorted(again) == ["row4", "row7", "row9"]
    assert last["totals"]["left_out"] >= 7


def test_too_many_bad_rows_stop_training(
    micro_recipe: Make, inputs: StageInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=r"1 of the first .* rows of .* cannot be used: ") as caught:
        run(micro_recipe(**SMALL, bad_rows=0), inputs, tmp_path / "out")
    assert "cases-0.jsonl names each" in caught.value.fix
    named = (tmp_path / ".out.partial" / stage.STATES / "cases-0.jsonl").read_text()
    assert '"fate": "broken"' in named
    assert not (tmp_path / "out").exists()


def test_a_stream_of_which_nothing_can_be_learned_ends(micro_recipe: Make, inputs: StageInputs, tmp_path: Path) -> None:
    recipe = micro_recipe(**SMALL, bad_rows=1, sequence_length=8)
    with pytest.raises(DataError, match=r"No row of .* gives a sample"):
        run(recipe, inputs, tmp_path / "out")


def test_a_plan_of_a_stream_reads_a_few_rows(micro_recipe: Make, inputs: StageInputs) -> None:
    content = plan_stage(micro_recipe(**SMALL, trained=[{"parameters": "*"}]), inputs).as_dict()
    assert content["conversations"] is None
    assert content["passes_over_the_data"] is None
    assert content["tokens_per_step"] > 0
    with pytest.raises(DataError, match=r"None of the first 22 rows of .* gives a sample"):
        plan_stage(micro_recipe(**SMALL, sequence_length=5), inputs)


@pytest.mark.parametrize("other", ["packing", "streaming"])
def test_length_groups_go_with_neither(other: str, micro_recipe: Make) -> None:
    with pytest.raises(RecipeError, match=f"group_by_length and {other} are both on"):
        micro_recipe(group_by_length=True, **{other: True})


def test_the_artifact_is_whole(micro_recipe: Make, inputs: StageInputs, tmp_path: Path) -> None:
    run(micro_recipe(**SMALL, bad_rows=1), inputs, tmp_path / "out")
    manifest = open_artifact(tmp_path / "out", "checkpoint").manifest
    assert manifest is not None
    assert "data_report.jsonl" in manifest.files
    assert not [name for name in manifest.files if "cases" in name or "counts" in name]


def test_a_stream_goes_on_with_as_many_processes_as_before(
    micro_recipe: Make, inputs: StageInputs, tmp_path: Path
) -> None:
    """Fewer would read other rows from the same position, without a word."""
    recipe = micro_recipe(**SMALL)
    streamed = open_stream(inputs.rows(), inputs.source.outline(()), recipe, None)
    two, one = (streamed.order(recipe, Steps(7, 2, 2, 0, processes), tmp_path) for processes in (2, 1))
    with pytest.raises(UsageError, match="stopped with 2 processes, and would go on with 1"):
        one.load_state_dict(two.state_dict())
