"""Compact prefill: the simulation, the size estimate and the export decide alike, and the export verifies it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.artifacts.errors import ModelError
from stages.artifacts.events import result_of
from stages.device.contract.prefill_layout import read_prefill_layout
from stages.device.imaging.presets import imaging_preset
from stages.export import ExportConfig, plan
from stages.export import run as export
from stages.quantize import QuantizeConfig
from stages.quantize import run as quantize
from stages.workshop.graph import graphs
from stages.workshop.model.checkpoint import save_checkpoint
from stages.workshop.model.image_processing import BlueLMVImageProcessor
from stages.workshop.model.presets import build_model, preset_config
from stages.workshop.model.processing import BlueLMVProcessor
from stages.workshop.model.tokenizer import train_tokenizer
from stages.workshop.quant.activation_policy import ActivationRule
from stages.workshop.quant.expandable import reads_compactly
from stages.workshop.quant.policy import Rule
from stages.workshop.quant.quantized_folder import QuantizedFolder
from stages.workshop.quant.simulation import device_arithmetic

DOWN = "language_model.model.layers.1.mlp.down_proj"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "checkpoint"
    tokenizer = train_tokenizer(["what colour is the shape? red, blue, green"] * 2, 300)
    config = preset_config("tiny", vocab_size=len(tokenizer), text_layers=3, vision_layers=1)
    config.image_token_id = tokenizer.convert_tokens_to_ids("<image>")
    images = BlueLMVImageProcessor.from_preset(imaging_preset("tiny"))
    save_checkpoint(build_model(config), BlueLMVProcessor(images, tokenizer), folder)
    return folder


def quantized(checkpoint: Path, out: Path, rules: list[Rule], **settings: Any) -> Path:
    result_of(quantize(QuantizeConfig(rules=tuple(rules), kv="float32", **settings), checkpoint, None, out))
    return out


INT4 = Rule(modules="language_model.model.layers.*", weights="int4", group_size=32)
INT8 = Rule(modules="language_model.model.layers.*", weights="int8")
FLOAT = Rule(modules="*", weights="float")


@pytest.mark.parametrize(
    ("rules", "settings", "choice", "expands"),
    [
        ([INT4], {}, "policy", True),
        ([INT4], {}, "int16", True),
        ([INT4], {}, "float", False),
        ([INT4], {"activations": [ActivationRule(modules=DOWN, activations="float")]}, "policy", False),
        ([INT4], {"activations": [ActivationRule(modules=DOWN, activations="float")]}, "int8", True),
        ([INT4], {"activations": [ActivationRule(modules="*lm_head", activations="float")]}, "policy", True),
        ([INT4], {"scales": "free"}, "policy", False),
        ([INT8], {"scales": "free"}, "policy", True),
        ([Rule(modules=DOWN, weights="int8"), INT4], {}, "policy", True),
        ([Rule(modules=DOWN, weights="float"), INT4], {}, "policy", False),
    ],
)
def test_the_export_decides_as_the_simulation_does(
    rules: list[Rule], settings: dict[str, Any], choice: Any, expands: bool, checkpoint: Path, tmp_path: Path
) -> None:
    folder = quantized(checkpoint, tmp_path / "q", [*rules, FLOAT], **settings)
    config = ExportConfig(verify=False, activations=choice)
    out = result_of(export(config, folder, tmp_path / "onnx")).out
    source = QuantizedFolder(folder)
    assert (out / "prefill.json").is_file() == reads_compactly(source, choice) == expands
    roundings = device_arithmetic(source, choice).roundings
    assert any(rounding.compact for rounding in roundings.values()) == (expands and rules != [INT8])
    planned = plan(config, folder).files
    assert ("prefill.data" in planned) == expands
    if expands:
        assert planned["prefill.data"] == pytest.approx((out / "prefill.data").stat().st_size, rel=0.03)


def spoiled(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path, Any], None]) -> None:
    """Makes exports write a compact prefill that is spoiled before it is verified."""
    write = graphs.write_prefill

    def damaged(out: Path, *arguments: Any) -> Any:
        layout = write(out, *arguments)
        spoil(out, layout)
        return layout

    monkeypatch.setattr(graphs, "write_prefill", damaged)


def a_channel_scale(out: Path, layout: Any) -> None:
    ref = layout.layers[0].linears["down"].channel
    values = np.memmap(out / ref.file, np.float32, "r+", ref.offset, ref.shape)
    values[3] *= 4
    values.flush()


def layers_in_another_order(out: Path, layout: Any) -> None:
    first, second, last = layout.layers
    layout.model_copy(update={"layers": (second, first, last)}).write(out)


@pytest.mark.parametrize("precision", ["int8", "int16"])
def test_a_right_prefill_passes(precision: Any, checkpoint: Path, tmp_path: Path) -> None:
    folder = quantized(checkpoint, tmp_path / "q", [INT4, FLOAT])
    result = result_of(export(ExportConfig(activations=precision), folder, tmp_path / "onnx"))
    assert read_prefill_layout(result.out, 3) is not None
    check = next(check for check in result.checks if check["graph"] == "prefill.json")
    assert check["output"] == "keys and values"
    assert check["relative"] < (1e-2 if precision == "int8" else 1e-3)


@pytest.mark.parametrize("spoil", [a_channel_scale, layers_in_another_order])
@pytest.mark.parametrize("precision", ["int8", "int16"])
def test_a_damaged_prefill_is_found(
    spoil: Any, precision: Any, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = quantized(checkpoint, tmp_path / "q", [INT4, FLOAT])
    spoiled(monkeypatch, spoil)
    with pytest.raises(ModelError, match=r"prefill\.json: keys and values differs from torch"):
        result_of(export(ExportConfig(activations=precision), folder, tmp_path / "onnx"))
