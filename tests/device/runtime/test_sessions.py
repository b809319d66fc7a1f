"""What a graph file may do wrong, told in three beats."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.artifacts.errors import BluelmError, ModelError
from stages.device.contract import names
from stages.device.contract.device_config import read_device_config
from stages.device.runtime.encoder import ImageEncoder
from stages.device.runtime.language import load_language
from stages.device.runtime.sessions import BINDING, Graph


@pytest.fixture
def copy(handmade: Path, tmp_path: Path) -> Path:
    for file in handmade.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def load(folder: Path) -> None:
    config = read_device_config(folder)
    ImageEncoder(folder, config, threads=1).load()
    load_language(folder, config, threads=1)


def beats(error: BluelmError) -> bool:
    return bool(error.what and error.why and error.fix)


@pytest.mark.parametrize("file", names.RUN_FILES)
def test_a_missing_graph_is_named(copy: Path, file: str) -> None:
    (copy / file).unlink()
    with pytest.raises(ModelError, match=f"{file} does not exist") as caught:
        load(copy)
    assert beats(caught.value) and "bluelm export" in caught.value.fix


@pytest.mark.parametrize("file", names.RUN_FILES)
@pytest.mark.parametrize("content", [b"", b"no graph at all", b"\x08\x0a" + b"\xff" * 100])
def test_a_corrupt_graph_is_named(copy: Path, file: str, content: bytes) -> None:
    (copy / file).write_bytes(content)
    with pytest.raises(ModelError, match=f"{file}: onnxruntime cannot open it") as caught:
        load(copy)
    assert beats(caught.value)


@pytest.mark.parametrize("file", names.RUN_FILES)
def test_a_truncated_graph_is_named(copy: Path, file: str) -> None:
    data = (copy / file).read_bytes()
    (copy / file).write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError, match=file):
        load(copy)


TAMPERED: dict[str, tuple[str, Any, str]] = {
    "vision.pixels": ("patch_embed.onnx", "uint8", r"input pixel_values is tensor\(float\), not tensor\(uint8\)"),
    "vision.tile_size": ("patch_embed.onnx", 32, "input pixel_values has 16 at axis 2, where 32"),
    "vision.patches_per_tile": ("patch_embed.onnx", 9, "output patch_embeds has 16 at axis 1, where 9"),
    "vision.vision_width": ("patch_embed.onnx", 25, "output patch_embeds has 24 at axis 2, where 25"),
    "vision.tokens_per_tile": ("vision.onnx", 5, "output image_features has 4 at axis 1, where 5"),
    "decoder.num_layers": ("decoder.onnx", 3, "input past_key_values.2.key is missing"),
    "decoder.num_key_value_heads": ("decoder.onnx", 2, "input past_key_values.0.key has 1 at axis 1, where 2"),
    "decoder.head_dim": ("decoder.onnx", 8, "input past_key_values.0.key has 16 at axis 3, where 8"),
    "decoder.kv_dtype": ("decoder.onnx", "int8", r"is tensor\(float\), not tensor\(int8\)"),
}


@pytest.mark.parametrize("key", TAMPERED)
def test_a_configuration_that_does_not_fit_the_graphs_is_refused_at_load(copy: Path, key: str) -> None:
    file, value, message = TAMPERED[key]
    path = copy / names.DEVICE_CONFIG_FILE
    config = json.loads(path.read_text())
    part, name = key.split(".")
    config[part][name] = value
    path.write_text(json.dumps(config))
    with pytest.raises(ModelError, match=f"{file}: the .*{message}") as caught:
        load(copy)
    assert "device.json" in caught.value.why


@pytest.mark.parametrize(("key", "value"), [("hidden_size", 64), ("vocab_size", 7)])
def test_a_table_of_another_size_is_refused(copy: Path, key: str, value: int) -> None:
    path = copy / names.DEVICE_CONFIG_FILE
    config = json.loads(path.read_text())
    config["decoder"][key] = value
    path.write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"the embedding \[259, 32\] is no table \[") as caught:
        load(copy)
    assert beats(caught.value)


def test_a_missing_or_short_table_is_named(copy: Path) -> None:
    file = copy / "table.data"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"table\.data has \d+ bytes; a weight lies at 0 to") as caught:
        load(copy)
    assert beats(caught.value)
    file.unlink()
    with pytest.raises(ModelError, match=r"table\.data cannot be read") as caught:
        load(copy)
    assert beats(caught.value) and "bluelm export" in caught.value.fix


def test_fewer_layers_than_the_graph_has_are_refused(copy: Path) -> None:
    path = copy / names.DEVICE_CONFIG_FILE
    config = json.loads(path.read_text())
    config["decoder"]["num_layers"] = 1
    path.write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"input past_key_values\.1\.key is unknown"):
        load(copy)


def test_an_error_while_running_is_ours_to_explain(handmade: Path) -> None:
    graph = Graph(handmade / names.VISION_FILE, threads=1)
    with pytest.raises(ModelError, match=r"vision\.onnx: it stopped while running"):
        graph.run({names.PATCH_EMBEDS: np.zeros((1, 1, 1), np.float32)}, [names.IMAGE_FEATURES])


def test_errors_without_a_type_are_ours_to_explain(handmade: Path) -> None:
    """Those of bound buffers: a name that the graph has not, an input that was not bound, one of another shape."""
    graph = Graph(handmade / names.VISION_FILE, threads=1)
    array = np.zeros((1, 1, 1), np.float32)
    place = "cpu", 0, array.dtype, array.shape, array.ctypes.data
    with (
        pytest.raises(ModelError, match=r"vision\.onnx: it does not take what is bound to it: ") as caught,
        graph.explained(BINDING),
    ):
        graph.session.io_binding().bind_input("nothing", *place)
    assert beats(caught.value)
    with pytest.raises(ModelError, match=r"vision\.onnx: it stopped while running"):
        graph.run_bound(graph.session.io_binding())
    binding = graph.session.io_binding()
    with graph.explained(BINDING):
        binding.bind_input(names.PATCH_EMBEDS, *place)
        binding.bind_output(names.IMAGE_FEATURES, "cpu")
    with pytest.raises(ModelError, match=r"vision\.onnx: it stopped while running"):
        graph.run_bound(binding)


def test_load_time_is_measured(make_model: Callable[..., Path]) -> None:
    assert 0 < Graph(make_model() / names.DECODER_FILE, threads=1).load_s < 30
