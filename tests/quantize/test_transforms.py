"""What is done to float weights before rounding changes no answer: rotation, smoothing and AWQ's scales, whole model
with a picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stages.artifacts.errors import BluelmError
from stages.artifacts.events import Notice, result_of
from stages.artifacts.recipes import load_config
from stages.device.imaging.loading import load_image
from stages.device.prompt.messages import assistant, user
from stages.quantize import QuantizeConfig, plan, run
from stages.workshop.model.checkpoint import load_checkpoint
from stages.workshop.model.configuration import BlueLMVConfig
from stages.workshop.model.modeling import BlueLMVForConditionalGeneration
from stages.workshop.quant.methods.rotation import RotatedWeights
from stages.workshop.quant.modules import checkpoint_config
from stages.workshop.quant.quantized_folder import QuantizedFolder
from stages.workshop.quant.tensor_files import TensorFolder

FLOAT_RULES = "rules=" + json.dumps([{"modules": "*", "weights": "float"}])


def config_of(*sets: str, **flags: Any) -> QuantizeConfig:
    return load_config(QuantizeConfig, "quantize.yaml", [*sets, "measure.questions=0"], flags)


def logits(model: Any, processor: Any, corpus: Path) -> torch.Tensor:
    """Of the first prompt with its picture, all positions."""
    row = json.loads((corpus / "train.json").read_text())[0]
    turns = [user("What colour is it?", 1), assistant("red")]
    sample = processor.encode_chat(turns, [load_image(corpus / row["image"])])
    with torch.inference_mode():
        pixels = torch.from_numpy(sample.pixel_values)
        found: torch.Tensor = model(input_ids=torch.tensor([sample.input_ids]), pixel_values=pixels).logits
    return found


def model_of(config: BlueLMVConfig, state: dict[str, torch.Tensor]) -> BlueLMVForConditionalGeneration:
    model = BlueLMVForConditionalGeneration(config)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert set(missing) <= {"language_model.lm_head.weight"}
    model.tie_weights()
    return model.eval()


def relative(found: torch.Tensor, meant: torch.Tensor) -> float:
    return float((found - meant).norm() / meant.norm())


@pytest.mark.parametrize("tied", [False, True])
def test_a_rotated_model_gives_the_same_logits(make_checkpoint: Callable[..., Path], corpus: Path, tied: bool) -> None:
    folder = make_checkpoint(tied=tied)
    model, processor = load_checkpoint(folder)
    source = TensorFolder(folder)
    rotated = RotatedWeights(source, json.loads((folder / "config.json").read_text())["text_config"], seed=3)
    state = {name: rotated.read(name) for name in rotated.infos}
    turned = model_of(checkpoint_config(folder, untied=True), state)
    assert relative(logits(turned, processor, corpus), logits(model, processor, corpus)) < 1e-5
    # And it is another model: nothing in the stream stays where it was.
    for name in ("language_model.model.embed_tokens.weight", "multi_modal_projector.linear_2.weight"):
        assert relative(state[name], source.read(name)) > 0.5
    norms = [name for name in state if name.startswith("language_model.") and "norm" in name]
    assert len(norms) == 5
    assert all(bool((state[name] == 1).all()) for name in norms)


def test_rotation_spreads_an_outlier_column(checkpoint: Path) -> None:
    source = TensorFolder(checkpoint)

    class Outlier:
        infos = source.infos

        def read(self, name: str) -> torch.Tensor:
            tensor = source.read(name).clone()
            if name.endswith("gate_proj.weight"):
                tensor[:, 5] *= 100
            return tensor

    text = json.loads((checkpoint / "config.json").read_text())["text_config"]
    name = "language_model.model.layers.0.mlp.gate_proj.weight"

    def spread(weight: torch.Tensor) -> float:
        columns = weight.norm(dim=0)
        return float(columns.max() / columns.mean())

    assert spread(RotatedWeights(Outlier(), text, seed=0).read(name)) < 0.15 * spread(Outlier().read(name))


@pytest.mark.parametrize(
    "transform",
    [
        'smoothing=[{"modules": "*", "alpha": 0.5}]',
        'smoothing=[{"modules": "language_model.*", "alpha": 0.8}]',
        "rotation=hadamard",
    ],
)
@pytest.mark.parametrize("tied", [False, True])
def test_a_folder_without_rounding_gives_the_same_logits(
    make_checkpoint: Callable[..., Path], corpus: Path, tmp_path: Path, transform: str, tied: bool
) -> None:
    checkpoint = make_checkpoint(tied=tied)
    out = result_of(run(config_of(FLOAT_RULES, transform), checkpoint, corpus, tmp_path / "q")).out
    model, processor = load_checkpoint(checkpoint)
    state = {name: TensorFolder(out).read(name) for name in TensorFolder(out).infos}
    config = checkpoint_config(out)
    assert config.text_config.tie_word_embeddings == (tied and "rotation" not in transform)
    assert relative(logits(model_of(config, state), processor, corpus), logits(model, processor, corpus)) < 1e-5
    changed = [name for name in state if name in model.state_dict() and relative(state[name], model.state_dict()[name])]
    assert any("layers.1.self_attn.q_proj" in name for name in changed)
    assert ("vision_tower.encoder.layers.0.layer_norm1.bias" in changed) == ('"*"' in transform)


def test_smoothed_inputs_are_what_the_formula_says(checkpoint: Path, corpus: Path, tmp_path: Path) -> None:
    smoothed = config_of(FLOAT_RULES, 'smoothing=[{"modules": "*.layers.0.mlp.*", "alpha": 0.5}]')
    out = result_of(run(smoothed, checkpoint, corpus, tmp_path / "q")).out
    model, processor = load_checkpoint(checkpoint)
    seen: list[torch.Tensor] = []
    gate = model.get_submodule("language_model.model.layers.0.mlp.gate_proj")
    gate.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0].detach()))
    for row in json.loads((corpus / "train.json").read_text()):
        turns = [user("What colour is it?", 1), assistant(row["conversations"][1]["value"])]
        sample = processor.encode_chat(turns, [load_image(corpus / row["image"])])
        with torch.inference_mode():
            pixels = torch.from_numpy(sample.pixel_values)
            model(input_ids=torch.tensor([sample.input_ids]), pixel_values=pixels)
    name = "language_model.model.layers.0."
    mlp = [model.get_parameter(f"{name}mlp.{leaf}_proj.weight").detach() for leaf in ("gate", "up")]
    strongest = torch.cat(seen).abs().amax(dim=0)
    scales = (strongest / torch.cat(mlp).abs().amax(dim=0)).sqrt()
    norm = TensorFolder(out).read(f"{name}post_attention_layernorm.weight")
    before = model.get_parameter(f"{name}post_attention_layernorm.weight").detach()
    np.testing.assert_allclose(norm, before / scales, rtol=1e-4)


def test_awq_and_gptq_lose_less_than_rounding(checkpoint: Path, corpus: Path, tmp_path: Path) -> None:
    errors = {}
    for method in ("rtn", "awq", "gptq"):
        rules = "rules=" + json.dumps(
            [{"modules": "language_model.model.layers.*", "weights": "int4", "method": method, "group_size": 32}]
        )
        result = result_of(run(config_of(rules), checkpoint, corpus, tmp_path / method))
        own = QuantizedFolder(result.out).own
        assert own.method == method
        layers = [layer for layer in result.report.layers if layer.name.startswith("language_model.model.layers.0.")]
        assert len(layers) == 7
        errors[method] = sum(layer.output_error or 0 for layer in layers)
    assert errors["gptq"] < 0.9 * errors["rtn"]
    assert errors["awq"] < errors["rtn"]


def test_awq_is_told_where_it_was_done(checkpoint: Path, corpus: Path, tmp_path: Path) -> None:
    """Behind a GELU, and where the last norm serves the head, no layer takes scales: that is rounding to nearest."""
    rules = [
        {"modules": "vision_tower.encoder.*", "weights": "int8", "method": "awq"},
        {"modules": "multi_modal_projector.*", "weights": "int8", "method": "awq"},
        {"modules": "language_model.model.layers.*", "weights": "int4", "method": "awq", "group_size": 32},
        {"modules": "language_model.lm_head", "weights": "int8", "method": "awq"},
    ]
    events = list(run(config_of(f"rules={json.dumps(rules)}"), checkpoint, corpus, tmp_path / "q"))
    layers = json.loads((tmp_path / "q" / "report.json").read_text())["layers"]
    plain = {layer["name"] for layer in layers if layer["method"] == "rtn"}
    tower = {f"vision_tower.encoder.layers.{n}.mlp.fc2" for n in (0, 1)}
    assert plain == tower | {"multi_modal_projector.linear_2", "language_model.lm_head"}
    assert {layer["method"] for layer in layers if layer["name"] not in plain} == {"awq"}
    (told,) = [event.text for event in events if isinstance(event, Notice) and "awq" in event.text]
    assert "4 Linears (vision_tower.encoder.layers.0.mlp.fc2" in told
    assert QuantizedFolder(tmp_path / "q").own.method == "awq+rtn"
    assert ">rtn</td>" in (tmp_path / "q" / "report.html").read_text()


def test_calibration_counts_its_tokens(checkpoint: Path, corpus: Path, tmp_path: Path) -> None:
    report = result_of(run(config_of(FLOAT_RULES), checkpoint, corpus, tmp_path / "q")).report
    model, processor = load_checkpoint(checkpoint)
    samples = [
        processor.encode_chat(
            [user("What colour is it?", 1), assistant(row["conversations"][1]["value"])],
            [load_image(corpus / row["image"])],
        )
        for row in json.loads((corpus / "train.json").read_text())
    ]
    assert report.calibration.tokens == sum(len(sample.input_ids) for sample in samples)
    image = model.config.image_token_id
    assert report.calibration.image_tokens == sum(sample.input_ids.count(image) for sample in samples) > 0
    assert report.calibration.answer_tokens == sum(label >= 0 for sample in samples for label in sample.labels) > 0


def test_a_model_that_cannot_be_rotated_is_named(checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_bytes((checkpoint / "config.json").read_bytes())
    from safetensors.torch import load_file, save_file

    state = load_file(checkpoint / "model.safetensors")
    state["language_model.model.layers.0.pre_feedforward_layernorm.weight"] = torch.ones(64)
    save_file(state, other / "model.safetensors")
    with pytest.raises(BluelmError, match="pre_feedforward_layernorm") as caught:
        plan(config_of("rotation=hadamard"), other)
    assert "Leave rotation out" in caught.value.fix
