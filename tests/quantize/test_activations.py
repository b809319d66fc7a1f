"""Activations of a quantized folder: measured, decided, recorded, and what export and report say about them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stages.artifacts.errors import BluelmError, RecipeError, UsageError
from stages.artifacts.events import result_of
from stages.artifacts.recipes import load_config
from stages.device.contract import activations, int4_blocks
from stages.device.imaging.loading import load_image
from stages.device.prompt.messages import assistant, user
from stages.quantize import QuantizeConfig, plan, run
from stages.workshop.graph.checkpoint_weights import CheckpointWeights
from stages.workshop.model.checkpoint import load_checkpoint
from stages.workshop.quant.quantized_folder import QuantizedFolder
from stages.workshop.quant.report import LayerReport, read_report

LAYER = "language_model.model.layers.0"
QUERY, DOWN = f"{LAYER}.self_attn.q_proj", f"{LAYER}.mlp.down_proj"


def config_of(*sets: str, **flags: Any) -> QuantizeConfig:
    return load_config(QuantizeConfig, "quantize.yaml", sets, flags)


def rules(*lines: dict[str, Any]) -> str:
    return "activations=" + json.dumps(lines)


def layers_of(folder: Path) -> dict[str, LayerReport]:
    return {layer.name: layer for layer in read_report(folder).layers}


def test_input_errors_recomputed_by_the_contract(checkpoint: Path, corpus: Path, quantized: Path) -> None:
    model, processor = load_checkpoint(checkpoint)
    report = layers_of(quantized)
    seen: dict[str, list[np.ndarray]] = {}
    for name in report:
        if "embed_tokens" not in name:

            def keep(_: Any, inputs: tuple[Any, ...], name: str = name) -> None:
                seen.setdefault(name, []).extend(inputs[0].reshape(-1, inputs[0].shape[-1]).numpy())

            model.get_submodule(name).register_forward_pre_hook(keep)
    for row in json.loads((corpus / "train.json").read_text()):
        question, answer = (turn["value"] for turn in row["conversations"])
        turns = [user(question.removeprefix("<image>\n"), 1), assistant(answer)]
        sample = processor.encode_chat(turns, [load_image(corpus / row["image"])])
        with torch.inference_mode():
            pixels = torch.from_numpy(sample.pixel_values)
            # The head is seen where it chooses an answer's tokens.
            places = torch.nonzero(torch.tensor(sample.labels)[1:] >= 0)[:, 0]
            model(input_ids=torch.tensor([sample.input_ids]), pixel_values=pixels, logits_to_keep=places)
    for name, rows in seen.items():
        x = np.stack(rows)
        for precision in ("int8", "int16"):
            rounded = activations.unround(activations.round_rows(x, precision))  # type: ignore[arg-type]
            expected = np.mean(np.linalg.norm(x - rounded, axis=-1) / np.linalg.norm(x, axis=-1))
            assert getattr(report[name], f"{precision}_input_error") == pytest.approx(expected, rel=1e-4)
        assert report[name].input_error == report[name].int16_input_error
    table = report["language_model.model.embed_tokens"]
    assert (table.activations, table.input_error, table.int8_input_error) == ("float", 0.0, None)


def test_a_bound_between_two_layers_parts_them(
    checkpoint: Path, quantized: Path, quantize: Callable[..., Path]
) -> None:
    errors = {name: layer.int8_input_error for name, layer in layers_of(quantized).items() if name.startswith(LAYER)}
    low, high = sorted(errors[name] or 0.0 for name in (QUERY, DOWN))
    bound = (low + high) / 2
    out = quantize(checkpoint, rules({"modules": "*", "activations": "int8", "int16_above": bound}))
    weights = CheckpointWeights(out)
    for name, error in errors.items():
        assert error is not None
        expected = "int16" if error > bound else "int8"
        assert layers_of(out)[name].activations == expected == weights.activations(name)
    found = {weights.linear(name, 64, columns, bias=False).activations for name, columns in ((QUERY, 64), (DOWN, 96))}
    assert found == {"int8", "int16"}


def test_the_papers_recipe_keeps_16_bits_everywhere(quantized: Path) -> None:
    own = QuantizedFolder(quantized).own
    assert own.scales == "two-level"
    assert set(own.activations.values()) == {"int16"}
    assert set(own.activations) == {name for name in layers_of(quantized) if "embed_tokens" not in name}


def test_the_language_model_alone_records_its_own_names(checkpoint: Path, quantize: Callable[..., Path]) -> None:
    own = QuantizedFolder(quantize(checkpoint, part="llm")).own
    assert "model.layers.0.mlp.down_proj" in own.activations
    assert not any(name.startswith("language_model") for name in own.activations)


def test_a_folder_that_records_nothing_usable_has_int8(quantized: Path, tmp_path: Path) -> None:
    config = json.loads((quantized / "config.json").read_text())
    config["quantization_config"]["bluelm"]["activations"] = {"vision_tower": "float16", "language_model": "int16"}
    del config["quantization_config"]["bluelm"]["scales"]
    for path in quantized.glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert CheckpointWeights(tmp_path).linear(QUERY, 64, 64, bias=False).activations == "int8"
    assert QuantizedFolder(tmp_path).own.scales == "free"


def test_a_bound_without_prompts_asks_for_them(checkpoint: Path, tmp_path: Path) -> None:
    mix = config_of(rules({"modules": "*", "activations": "int8", "int16_above": 0.02}), kv="float32")
    with pytest.raises(UsageError, match="--data is missing: int16_above for '\\*'") as caught:
        result_of(run(mix, checkpoint, None, tmp_path / "q"))
    assert "--recipe quantize.yaml" in caught.value.fix
    fixed = config_of(rules({"modules": "*", "activations": "int8"}), kv="float32")
    result = result_of(run(fixed, checkpoint, None, tmp_path / "q"))
    assert {layer.activations for layer in result.report.layers} == {"int8", "float"}
    assert all(layer.int8_input_error is None for layer in result.report.layers)


def test_a_rule_for_another_model_is_named(checkpoint: Path) -> None:
    wrong = config_of(rules({"modules": "model.*", "activations": "int8"}))
    with pytest.raises(BluelmError) as caught:
        plan(wrong, checkpoint)
    assert isinstance(caught.value, RecipeError)
    assert "'model.*', decides for no Linear" in caught.value.what


def test_free_scales_are_a_choice(checkpoint: Path, quantize: Callable[..., Path]) -> None:
    for scales, split in (("free", False), ("two-level", True)):
        weight = QuantizedFolder(quantize(checkpoint, f"scales={scales}")).quantized(QUERY)
        assert isinstance(weight, int4_blocks.Int4Blocks)
        assert (int4_blocks.split_scales(weight.scales) is not None) == split


def test_the_table_has_activations_and_what_they_cost(
    bluelm: Any, checkpoint: Path, corpus: Path, tmp_path: Path
) -> None:
    done = bluelm("quantize", checkpoint, "--data", corpus, "--out", tmp_path / "q", "--recipe", "quantize-mix.yaml")
    assert done.code == 0, done.err
    assert "input error" in done.out
    assert "int8" in done.out
    assert QuantizedFolder(tmp_path / "q").own.activations[DOWN] in ("int8", "int16")
