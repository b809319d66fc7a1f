"""Features in the pictures' place: the same curve, the same checkpoint, and every reason to refuse them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from stages import encode_corpus
from stages.artifacts.errors import ArtifactError, BluelmError, UsageError
from stages.artifacts.events import Notice, Progress, result_of
from stages.artifacts.manifest import parent_of
from stages.artifacts.recipes import validate
from stages.device.contract.feature_shards import TENSOR, read_feature_corpus, read_shard_index, shard_file
from stages.encode_corpus import EncodeCorpusConfig
from stages.workshop.model.checkpoint import load_checkpoint
from stages.workshop.model.tower import TowerEncoder, find_tower, tower_of_checkpoint
from stages.workshop.training.machine import Machine
from stages.workshop.training.plan import plan_stage
from stages.workshop.training.recipe import TrainRecipe
from stages.workshop.training.sources import FreshPreset, FromCheckpoint
from stages.workshop.training.stage import StageInputs, StageWork, TrainResult, prepare_stage, run_stage

Make = Callable[..., TrainRecipe]
CONNECTOR = [{"parameters": "multi_modal_projector.*"}]
# float16 keeps 11 bits: a feature is off by at most 2^-11 of itself, and the loss by far less.
LOSS = 1e-4


def config(**changes: Any) -> EncodeCorpusConfig:
    values: dict[str, Any] = {"threads": 1, "device": "cpu", "tiling": {"max_cols": 2, "max_rows": 1}}
    return validate(EncodeCorpusConfig, values | changes, "features")


def encoded(model: Path, data: Path, out: Path, **changes: Any) -> Path:
    result_of(encode_corpus.run(config(**changes), model, [data], out))
    return out


@pytest.fixture(scope="module")
def features(checkpoint: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoded(checkpoint, corpus, tmp_path_factory.mktemp("features") / "features")


@pytest.fixture
def given(checkpoint: Path, corpus: Path, machine: Machine, features: Path) -> StageInputs:
    return StageInputs("pretrain", FromCheckpoint(checkpoint), corpus, None, machine, features=features)


@pytest.fixture
def pictured(checkpoint: Path, corpus: Path, machine: Machine) -> StageInputs:
    return StageInputs("pretrain", FromCheckpoint(checkpoint), corpus, None, machine)


def run(recipe: TrainRecipe, inputs: StageInputs, out: Path) -> TrainResult:
    return result_of(run_stage(recipe, inputs, out))


def losses(out: Path) -> list[float]:
    found: list[float] = json.loads((out / "training.json").read_text())["losses"]
    return found


def replaced(inputs: StageInputs, **changes: Any) -> StageInputs:
    return StageInputs(**{**{name: getattr(inputs, name) for name in inputs.__dataclass_fields__}, **changes})


@pytest.mark.parametrize(
    "form", [{}, {"packing": True}, {"streaming": True, "shuffle_rows": 5}, {"dtype": "bfloat16", "accumulation": 2}]
)
def test_the_curve_is_that_of_pictures(
    form: dict[str, Any], micro_recipe: Make, given: StageInputs, pictured: StageInputs, tmp_path: Path
) -> None:
    recipe = micro_recipe(trained=CONNECTOR, steps=10, log_every=1, **form)
    first, second = run(recipe, pictured, tmp_path / "pictures"), run(recipe, given, tmp_path / "features")
    # With products in bfloat16 the tower of the features has eight times the precision of the one in training.
    tolerance = 2e-3 if "dtype" in form else LOSS
    assert losses(tmp_path / "features") == pytest.approx(losses(tmp_path / "pictures"), rel=tolerance)
    assert first.metrics["data"] == second.metrics["data"]
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("pictures", "features"))
    assert before.keys() == after.keys()
    for name, weight in before.items():
        if not name.startswith("multi_modal_projector."):
            assert torch.equal(weight, after[name]), name
        elif "dtype" not in form:
            torch.testing.assert_close(weight, after[name], rtol=1e-3, atol=1e-4, msg=name)
    assert (tmp_path / "pictures/config.json").read_text() == (tmp_path / "features/config.json").read_text()


def test_features_in_bfloat16_are_those_of_training_in_bfloat16(
    micro_recipe: Make, given: StageInputs, pictured: StageInputs, checkpoint: Path, corpus: Path, tmp_path: Path
) -> None:
    recipe = micro_recipe(trained=CONNECTOR, steps=6, log_every=1, dtype="bfloat16")
    inputs = replaced(given, features=encoded(checkpoint, corpus, tmp_path / "bf16", dtype="bfloat16"))
    run(recipe, pictured, tmp_path / "pictures")
    run(recipe, inputs, tmp_path / "features")
    assert losses(tmp_path / "features") == pytest.approx(losses(tmp_path / "pictures"), rel=5e-4)


def test_heldout_pictures_are_read_from_the_features_too(
    micro_recipe: Make, given: StageInputs, pictured: StageInputs, corpus: Path, tmp_path: Path
) -> None:
    recipe = micro_recipe(trained=CONNECTOR, steps=2)
    found = [
        run(recipe, replaced(inputs, heldout=corpus), tmp_path / name).run["eval_loss"]
        for name, inputs in (("pictures", pictured), ("features", given))
    ]
    assert found[1] == pytest.approx(found[0], rel=LOSS)


def work_of(recipe: TrainRecipe, inputs: StageInputs) -> StageWork:
    events = prepare_stage(recipe, inputs)
    while True:
        try:
            next(events)
        except StopIteration as stop:
            found: StageWork = stop.value
            return found


def test_the_tower_is_not_in_memory_and_the_plan_says_so(
    micro_recipe: Make, given: StageInputs, pictured: StageInputs, tmp_path: Path
) -> None:
    recipe = micro_recipe(trained=CONNECTOR)
    model = work_of(recipe, given).session(tmp_path).model
    assert not [name for name in model.state_dict() if name.startswith("vision_tower.")]
    lean, whole = plan_stage(recipe, given).as_dict(), plan_stage(recipe, pictured).as_dict()
    tower = whole["parts"]["vision_tower"]
    assert lean["parts"]["vision_tower"]["parameters"] == tower["parameters"]
    assert whole["memory"]["weights"] - lean["memory"]["weights"] == tower["memory"]["weights"] > 0


def test_a_stopped_run_goes_on_and_gives_the_same_artifact(
    micro_recipe: Make, given: StageInputs, tmp_path: Path
) -> None:
    recipe = micro_recipe(trained=CONNECTOR, steps=6)
    events = run_stage(recipe, given, tmp_path / "stopped")
    for event in events:
        if isinstance(event, Progress) and event.unit == "steps" and event.done >= 3:
            break
    events.close()  # type: ignore[attr-defined]
    told = list(run_stage(recipe, given, tmp_path / "stopped"))
    assert any(isinstance(event, Notice) and "Going on after step" in event.text for event in told)
    run(recipe, given, tmp_path / "whole")
    content = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("stopped", "whole")]
    assert content[0] == content[1]


def problems_of(recipe: TrainRecipe, inputs: StageInputs, out: Path) -> list[str]:
    with pytest.raises(BluelmError) as caught:
        run(recipe, inputs, out)
    assert not out.exists()
    return [problem.what for problem in caught.value.problems]


def test_what_speaks_against_features_is_told_together(
    micro_recipe: Make, given: StageInputs, checkpoint: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(checkpoint, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    weights["vision_tower.embeddings.patch_embedding.bias"][0] += 1e-3
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    inputs = replaced(given, source=FromCheckpoint(other))
    recipe = micro_recipe(tiling={"max_cols": 3, "max_rows": 1, "alpha": 0.2}, too_long="shrink_tiling")
    told = problems_of(recipe, inputs, tmp_path / "out")
    assert len(told) == 4
    assert "trains the tower" in told[0]
    assert "too_long is shrink_tiling" in told[1]
    assert "alpha 0.1, not 0.2, max_cols 2, not 3" in told[2]
    assert "encoded by another tower" in told[3]


def test_missing_pictures_are_told_together(micro_recipe: Make, given: StageInputs, tmp_path: Path) -> None:
    data = shutil.copytree(given.data, tmp_path / "data")
    (data / "artifact.json").unlink()
    for name in ("images/0.png", "images/3.png"):
        Image.new("RGB", (50, 50), "white").save(data / name)
    recipe = micro_recipe(trained=CONNECTOR)
    told = problems_of(recipe, replaced(given, data=data), tmp_path / "out")
    assert [name in what for name, what in zip(("0.png", "3.png"), told, strict=True)] == [True, True]
    assert "is not among the features" in told[0]
    with pytest.raises(BluelmError, match="is not among the features"):
        plan_stage(recipe, replaced(given, data=data))


def test_a_preset_has_no_tower_on_disk(micro_recipe: Make, given: StageInputs, tmp_path: Path) -> None:
    recipe = micro_recipe(trained=CONNECTOR)
    told = problems_of(recipe, replaced(given, source=FreshPreset("tiny")), tmp_path / "out")
    assert any("starts from random weights" in what for what in told)


def test_features_of_an_exported_model_are_taken_where_it_was_made_of_this_checkpoint(
    micro_recipe: Make, given: StageInputs, features: Path, checkpoint: Path, tmp_path: Path
) -> None:
    exported = shutil.copytree(features, tmp_path / "features")
    index = json.loads((exported / "features.json").read_text())
    index["encoder"] = {"kind": "onnx", "digest": "a" * 64, "made_of": [parent_of(checkpoint).digest]}
    (exported / "features.json").write_text(json.dumps(index))
    manifest = json.loads((exported / "artifact.json").read_text())
    manifest["files"]["features.json"]["size"] = (exported / "features.json").stat().st_size
    (exported / "artifact.json").write_text(json.dumps(manifest))
    recipe, inputs = micro_recipe(trained=CONNECTOR, steps=2), replaced(given, features=exported)
    told = list(run_stage(recipe, inputs, tmp_path / "out"))
    assert any(isinstance(event, Notice) and "may round" in event.text for event in told)
    index["encoder"]["made_of"] = ["b" * 64]
    (exported / "features.json").write_text(json.dumps(index))
    assert "of another checkpoint" in problems_of(recipe, inputs, tmp_path / "other")[0]


def test_a_damaged_shard_names_its_file(micro_recipe: Make, given: StageInputs, features: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(features, tmp_path / "features")
    path = shard_file(damaged, 0)
    path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(ArtifactError, match=r"00000\.safetensors cannot be read"):
        run(micro_recipe(trained=CONNECTOR), replaced(given, features=damaged), tmp_path / "out")


def test_finetune_refuses_features(checkpoint: Path, corpus: Path, features: Path) -> None:
    from stages import finetune

    with pytest.raises(UsageError, match="finetune reads pictures") as caught:
        finetune.inputs(checkpoint, corpus, features=features)
    assert "trains the tower" in caught.value.why


def test_stored_features_are_the_models_own(checkpoint: Path, corpus: Path, features: Path) -> None:
    """Against transformers' interface: the processor's pixels through the whole model's tower."""
    model, processor = load_checkpoint(checkpoint)
    index = read_feature_corpus(features)
    shard = read_shard_index(features, 0)
    assert (index.pictures, index.tiles, index.shards) == (len(shard.pictures), shard.tiles, 1)
    stored = load_file(shard_file(features, 0))[TENSOR]
    assert stored.dtype == torch.float16 and stored.shape == (index.tiles, 16, 16)
    for picture in shard.pictures:
        image = Image.open(corpus / picture.name)
        pixels = processor.image_processor.preprocess(image, return_tensors="pt", max_cols=2, max_rows=1)
        with torch.no_grad():
            expected = model.get_vision_features(pixels["pixel_values"])
        found = stored[picture.first_tile : picture.first_tile + picture.tiles].float()
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_batches_may_hold_several_pictures(checkpoint: Path, features: Path, corpus: Path, tmp_path: Path) -> None:
    many = encoded(checkpoint, corpus, tmp_path / "many", batch=5)
    one, five = (load_file(shard_file(folder, 0))[TENSOR].float() for folder in (features, many))
    torch.testing.assert_close(one, five, rtol=2e-3, atol=2e-3)
    assert read_shard_index(features, 0) == read_shard_index(many, 0)
    tiles = [np.full((count, 3, 32, 32), count, np.uint8) for count in (1, 3, 2, 7, 1)]
    counts = [len(values) for values in TowerEncoder(tower_of_checkpoint(checkpoint), batch=4).encode(iter(tiles))]
    assert counts == [1, 3, 2, 7, 1]


def test_a_siglip_and_a_checkpoint_with_its_tower_have_the_same_digest(checkpoint: Path, tmp_path: Path) -> None:
    model, _ = load_checkpoint(checkpoint)
    siglip = tmp_path / "siglip"
    model.vision_tower.save_pretrained(siglip)
    (siglip / "preprocessor_config.json").write_text(json.dumps({"resample": 3}))
    digest = tower_of_checkpoint(checkpoint).digest()
    assert find_tower(siglip).digest() == digest
    (siglip / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.4, 0.5, 0.5], "resample": 3}))
    assert find_tower(siglip).digest() != digest
    again = find_tower(checkpoint)
    for name, weight in again.load().state_dict().items():
        assert torch.equal(weight, model.vision_tower.state_dict()[name]), name
