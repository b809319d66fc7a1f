"""The comparison with torch: right graphs pass, a wrong number anywhere is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.device.contract.device_config import DeviceConfig, PromptSpec
from stages.device.contract.kv_scales import KvScales
from stages.device.imaging.presets import ImagingPreset
from stages.device.imaging.spec import TilingSpec
from stages.workshop.graph.device_files import device_config
from stages.workshop.graph.graphs import GraphOptions, write_graphs
from stages.workshop.graph.patch_embed import Normalization
from stages.workshop.graph.reference import TorchReference
from stages.workshop.graph.twin import ExactTwins
from stages.workshop.graph.verify import GraphCheck, beyond, verify_graphs

TOLERANCE = 2e-3


@pytest.fixture
def exported(
    tmp_path: Path, tiny_model: Any, torch_weights: Any
) -> Callable[..., tuple[DeviceConfig, TorchReference, ExactTwins]]:
    """Writes all graphs of a tiny model; gives their description and the torch model they should equal."""

    def export(
        form: str = "float", kv: bool = True, batch: int | None = None, activations: str = "int8"
    ) -> tuple[DeviceConfig, TorchReference, ExactTwins]:
        model = tiny_model()
        weights = torch_weights(model, form, activations=activations)
        scales = KvScales.of((0.03, 0.03), (0.02, 0.02)) if kv else None
        options = GraphOptions(max_context=128, kv_scales=scales, batch=batch)
        imaging = ImagingPreset(TilingSpec(tile_size=28, tokens_per_tile=16), 4, (0.5, 0.4, 0.3), (0.5, 0.25, 0.2))
        pictures = Normalization(imaging.image_mean, imaging.image_std)
        list(write_graphs(weights, model.config, tmp_path, options, pictures))
        weights.apply()
        prompt = PromptSpec(image_token="<image>", image_token_id=3, eos_token_ids=(2,))
        device = device_config("tiny", model.config, imaging, prompt, options)
        return device, TorchReference(model, scales), ExactTwins(weights, model.config, options)

    return export


@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize("kv", [True, False])
@pytest.mark.parametrize(
    ("form", "activations"),
    [("float", "int8"), ("int8", "int8"), ("int8", "int16"), ("int4", "int8"), ("int4", "int16")],
)
def test_right_graphs_pass(
    form: str, activations: str, kv: bool, batch: int | None, tmp_path: Path, exported: Any, open_graph: Any
) -> None:
    device, reference, twins = exported(form, kv, batch, activations)
    before = sorted(tmp_path.iterdir())
    checks = list(verify_graphs(tmp_path, device, reference, twins, open_graph))
    assert [check.output for check in checks] == [
        "patch_embeds",
        "image_features",
        "vit_features",
        "inputs_embeds",
        "logits",
    ]
    for check in checks:
        assert check.relative < (1e-5 if check.output != "logits" or not kv else TOLERANCE), check
        assert beyond(check, TOLERANCE) is None
    assert sorted(tmp_path.iterdir()) == before
    rounded = {check.output for check in checks if check.approximate}
    assert rounded == (set() if form == "float" else {"image_features", "vit_features", "logits"})
    most = 5e-2 if activations == "int8" else 5e-4 if not kv else 5e-3
    assert all(check.arithmetic < most for check in checks)


@pytest.mark.parametrize("graph", ["patch_embed", "vision", "embedding", "decoder"])
def test_a_changed_weight_is_found(graph: str, tmp_path: Path, exported: Any, open_graph: Any) -> None:
    device, reference, twins = exported("float")
    data = tmp_path / f"{graph}.onnx.data"
    values = np.fromfile(data, np.float32)
    values[: len(values) // 2] *= 1.02
    values.tofile(data)
    found = {
        check.graph
        for check in verify_graphs(tmp_path, device, reference, twins, open_graph)
        if beyond(check, TOLERANCE)
    }
    assert f"{graph}.onnx" in found


def test_wrong_kv_scales_are_found(tmp_path: Path, exported: Any, open_graph: Any) -> None:
    device, reference, twins = exported("float")
    reference = TorchReference(reference.model, KvScales.of((0.09, 0.09), (0.02, 0.02)))
    checks = {check.output: check for check in verify_graphs(tmp_path, device, reference, twins, open_graph)}
    assert beyond(checks["logits"], TOLERANCE) is not None


def test_the_error_names_graph_output_and_tolerance() -> None:
    check = GraphCheck("decoder.onnx", "logits", max_abs=0.5, relative=0.25, arithmetic=0.25)
    error = beyond(check, 1e-3)
    assert error is not None
    assert "decoder.onnx: logits" in error.what
    assert "2.5e-01" in error.what
    assert "1.0e-03" in error.why
    assert "--tolerance" in error.fix
    assert beyond(check, 0.3) is None
    assert beyond(replace(check, relative=float("nan")), 0.3) is not None
