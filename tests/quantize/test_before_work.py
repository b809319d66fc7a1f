"""All that cannot be quantized as asked is told together, before anything is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from stages.artifacts.errors import BluelmError
from stages.artifacts.events import result_of
from stages.artifacts.folder import ArtifactSpec, create
from stages.artifacts.recipes import load_config, recipes_folder
from stages.quantize import QuantizeConfig, plan, run
from stages.workshop.quant.methods.folding import connector_points, decoder_points, tower_points
from stages.workshop.quant.modules import checkpoint_config, empty_model
from stages.workshop.quant.preflight import SMOOTHED, SMOOTHED_IN_CONNECTOR
from stages.workshop.quant.tensor_files import TensorFolder


def config_of(*sets: str) -> QuantizeConfig:
    return load_config(QuantizeConfig, "quantize.yaml", [*sets, "measure.questions=0"], {})


def rules(*lines: dict[str, Any]) -> str:
    return "rules=" + json.dumps(lines)


def problems_of(config: QuantizeConfig, checkpoint: Path, corpus: Path | None, out: Path) -> list[str]:
    with pytest.raises(BluelmError) as caught:
        result_of(run(config, checkpoint, corpus, out))
    assert list(out.parent.glob(f"*{out.name}*")) == []
    return [problem.what for problem in caught.value.problems]


@pytest.fixture(scope="module")
def text_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text") / "corpus"
    turns = [{"from": "human", "value": "What colour is grass?"}, {"from": "gpt", "value": "green"}]
    with create(folder, ArtifactSpec(kind="corpus", stage="data", config={})) as draft:
        (draft.path / "train.json").write_text(json.dumps([{"id": "0", "conversations": turns}] * 3))
    return folder


def test_prompts_without_pictures_and_rules_that_do_not_fit_are_told_together(
    checkpoint: Path, text_corpus: Path, tmp_path: Path
) -> None:
    wrong = rules(
        {"modules": "language_model.model.layers.*", "weights": "int4", "group_size": 128},
        {"modules": "nothing.*", "weights": "int8"},
    )
    whats = problems_of(config_of(wrong), checkpoint, text_corpus, tmp_path / "q")
    assert "None of the 3 calibration prompts has a picture." in whats
    assert any("'nothing.*', matches no module" in what for what in whats)
    assert sum("which groups of 128" in what for what in whats) == 14


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_methods_that_need_prompts_say_so(checkpoint: Path, tmp_path: Path, method: str) -> None:
    asked = config_of(
        rules({"modules": "language_model.model.layers.*", "weights": "int4", "method": method}), "kv=float32"
    )
    whats = problems_of(asked, checkpoint, None, tmp_path / "q")
    assert whats == [f"--data is missing: language_model.model.layers.0.self_attn.q_proj would be rounded by {method}."]


def test_smoothing_without_prompts_and_rules_for_nothing(checkpoint: Path, tmp_path: Path) -> None:
    asked = config_of('smoothing=[{"modules": "*.no_proj"}]', "kv=float32")
    whats = problems_of(asked, checkpoint, None, tmp_path / "q")
    assert whats == [
        "--data is missing: inputs would be smoothed.",
        "smoothing, rule 1, '*.no_proj', matches no Linear of this model.",
    ]


def test_smoothing_that_no_layer_before_can_take(checkpoint: Path, corpus: Path, tmp_path: Path) -> None:
    asked = config_of('smoothing=[{"modules": "*.fc2"}, {"modules": "*.fc?"}, {"modules": "*.lm_head"}]')
    whats = problems_of(asked, checkpoint, corpus, tmp_path / "q")
    assert whats == [
        "smoothing, rule 1, '*.fc2', matches no Linear whose inputs can be smoothed.",
        "smoothing, rule 3, '*.lm_head', matches no Linear whose inputs can be smoothed.",
    ]


def test_what_can_be_smoothed_is_what_folding_knows(checkpoint: Path) -> None:
    model = empty_model(checkpoint_config(checkpoint))
    text = model.config.text_config
    layer = model.language_model.model.layers[0]
    points = [
        *decoder_points(layer, text.num_attention_heads, text.num_key_value_heads),
        *tower_points(model.vision_tower.encoder.layers[0]),
    ]
    consumers = {consumer.rpartition(".")[2] for point in points for consumer in point.consumers}
    assert consumers == set(SMOOTHED)
    (point,) = connector_points(model.multi_modal_projector)
    assert set(point.consumers) <= set(SMOOTHED_IN_CONNECTOR)


@pytest.mark.parametrize("module", ["language_model.model.embed_tokens", "language_model.lm_head"])
def test_what_the_export_rounds_has_no_other_method(tied_checkpoint: Path, module: str) -> None:
    with pytest.raises(BluelmError, match="would be rounded by gptq") as caught:
        plan(config_of(rules({"modules": module, "weights": "int8", "method": "gptq"})), tied_checkpoint)
    assert f"modules: {module}, weights: int8" in caught.value.fix


def test_a_head_of_its_own_may_have_one(checkpoint: Path, corpus: Path, tmp_path: Path) -> None:
    asked = config_of(rules({"modules": "language_model.lm_head", "weights": "int4", "method": "gptq"}))
    report = result_of(run(asked, checkpoint, corpus, tmp_path / "q")).report
    assert [layer.name for layer in report.layers] == ["language_model.lm_head"]


def test_layers_that_no_prompt_passes_cannot_be_weighed(checkpoint: Path, corpus: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for path in checkpoint.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    config = json.loads((other / "config.json").read_text())
    config["vision_feature_layer"] = -2
    (other / "config.json").write_text(json.dumps(config))
    asked = config_of(rules({"modules": "vision_tower.encoder.*", "weights": "int8", "method": "gptq"}))
    whats = problems_of(asked, other, corpus, tmp_path / "q")
    assert len(whats) == 6
    assert all(what.startswith("vision_tower.encoder.layers.1.") and "no prompt passes it" in what for what in whats)


def test_all_weights_that_are_not_finite_are_named_before_work(checkpoint: Path, corpus: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for path in checkpoint.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    state = load_file(checkpoint / "model.safetensors")
    state["language_model.model.layers.1.mlp.up_proj.weight"][0, :3] = torch.nan
    state["vision_tower.encoder.layers.0.layer_norm1.bias"][2] = torch.inf
    save_file(state, other / "model.safetensors", metadata={"format": "pt"})
    assert sorted(problems_of(config_of(), other, corpus, tmp_path / "q")) == [
        "language_model.model.layers.1.mlp.up_proj.weight holds 3 values that are not finite.",
        "vision_tower.encoder.layers.0.layer_norm1.bias holds 1 values that are not finite.",
    ]


def test_a_tail_takes_what_groups_leave_and_the_plan_knows_its_bytes(
    make_checkpoint: Callable[..., Path], corpus: Path, tmp_path: Path
) -> None:
    source = make_checkpoint(text_mlp=172)
    tails = {"modules": "language_model.model.layers.*", "weights": "int4", "tail": True}
    asked = config_of(rules(tails))
    name = "language_model.model.layers.0.mlp.down_proj"
    tensor = next(tensor for tensor in plan(asked, source).weights.tensors if tensor.module == name)
    assert tensor.bytes_after == 64 * (-(-172 // 8) * 4 + 6 * 2) + 16
    out = result_of(run(asked, source, corpus, tmp_path / "q")).out
    assert TensorFolder(out).infos[f"{name}.weight_scale"].shape == (64, 6)
    whole = load_config(QuantizeConfig, "quantize.yaml", [rules(tails)], {"part": "llm"})
    with pytest.raises(BluelmError, match="--part llm would cut its last group of 32 short"):
        plan(whole, source)


def test_the_plan_reads_headers_only(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a weight was read")

    monkeypatch.setattr(TensorFolder, "read", refuse)
    methods = {
        tensor.method for tensor in plan(load_config(QuantizeConfig, "quantize-a8.yaml"), checkpoint).weights.tensors
    }
    assert methods == {None, "rtn", "gptq"}


def test_a_rotation_gives_a_tied_head_its_own_bytes(tied_checkpoint: Path) -> None:
    plain, turned = (plan(config_of(f"rotation={kind}"), tied_checkpoint) for kind in ("none", "hadamard"))
    heads = [tensor for tensor in turned.weights.tensors if tensor.module == "language_model.lm_head"]
    assert [tensor.module for tensor in plain.weights.tensors if "lm_head" in tensor.name] == []
    assert turned.total.bytes_after == plain.total.bytes_after + heads[0].bytes_after
    assert turned.as_dict()["total"]["bytes_after"] == turned.total.bytes_after


def test_every_shipped_recipe_fits_a_model_of_the_usual_parts(checkpoint: Path) -> None:
    shipped = sorted(path.name for path in recipes_folder().glob("quantize*.yaml"))
    assert len(shipped) >= 7
    for name in shipped:
        # 64 and 96 columns: blocks of 32 are what this model has room for.
        config = load_config(QuantizeConfig, name)
        smaller = [rule.model_copy(update={"group_size": rule.group_size and 32}) for rule in config.rules]
        assert plan(config.model_copy(update={"rules": tuple(smaller)}), checkpoint).weights.packed


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"weights": "int8", "tail": True}, "tail belongs to int4"),
        ({"weights": "int4", "symmetric": False}, "zero points"),
        ({"weights": "float", "method": "gptq"}, "method gptq rounds weights"),
        ({"weights": "int4", "method": "best"}, "method"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(line: dict[str, Any], message: str) -> None:
    with pytest.raises(BluelmError, match=message):
        config_of(rules({"modules": "*", **line}))
