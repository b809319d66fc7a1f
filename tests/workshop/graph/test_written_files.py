"""The files themselves: the same bytes every time, addresses as names, weights that stay inside the folder."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.external_data_helper import ExternalDataInfo

from stages.artifacts.errors import ProblemsError, UsageError
from stages.device.contract.device_config import read_device_config
from stages.device.contract.kv_scales import read_kv_scales
from stages.device.contract.names import DECODER_FILE, EMBEDDING_FILE, GRAPH_FILES
from stages.device.contract.tensor_ref import MappedFile
from stages.workshop.graph.external_data import ExternalData, initializer
from stages.workshop.graph.graphs import GraphOptions, model_shape
from stages.workshop.graph.json_file import read_json
from stages.workshop.graph.random_model import write_random_model
from stages.workshop.quant.policy import Rule

OPTIONS = GraphOptions(max_context=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny preset with two layers each, in the paper's precisions."""
    out = tmp_path_factory.mktemp("random")
    events = list(write_random_model("tiny", out, layers=2, vision_layers=2, options=OPTIONS))
    assert [event.done for event in events] == list(range(1, 7))
    assert {event.total for event in events} == {6}
    return out


def test_the_same_weights_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    again, other = tmp_path / "again", tmp_path / "other"
    for target, seed in ((again, 0), (other, 1)):
        target.mkdir()
        list(write_random_model("tiny", target, layers=2, vision_layers=2, options=OPTIONS, seed=seed))
    files = sorted(path.name for path in folder.iterdir())
    assert sorted(path.name for path in again.iterdir()) == files
    for name in files:
        assert (again / name).read_bytes() == (folder / name).read_bytes(), name
    assert (other / "decoder.onnx.data").read_bytes() != (folder / "decoder.onnx.data").read_bytes()


@pytest.mark.parametrize("name", GRAPH_FILES)
def test_weights_lie_beside_the_graph_and_nowhere_else(name: str, folder: Path) -> None:
    graph = onnx.load(folder / name, load_external_data=False).graph
    outside = [tensor for tensor in graph.initializer if tensor.data_location == TensorProto.EXTERNAL]
    assert outside
    if name == EMBEDDING_FILE and {ExternalDataInfo(tensor).location for tensor in outside} == {f"{DECODER_FILE}.data"}:
        assert not (folder / f"{name}.data").exists()  # a tied table: the head's bytes
        return
    size, end = (folder / f"{name}.data").stat().st_size, 0
    for tensor in outside:
        info = ExternalDataInfo(tensor)
        assert info.location == f"{name}.data"
        assert PurePosixPath(info.location).parts == (info.location,)
        assert info.offset % 64 == 0
        assert info.offset >= end
        end = info.offset + info.length
    assert end == size
    assert (folder / name).stat().st_size < 100_000


@pytest.mark.parametrize("name", GRAPH_FILES)
def test_names_are_addresses(name: str, folder: Path) -> None:
    graph = onnx.load(folder / name, load_external_data=False).graph
    nodes = [node.name for node in graph.node]
    assert len(set(nodes)) == len(nodes)
    public = {value.name for value in graph.output}
    for node in graph.node:
        assert node.name.startswith(("/model/", "/vision/"))
        assert node.name.endswith(f"/{node.op_type}")
        for index, output in enumerate(node.output):
            assert output in ("", f"{node.name}/output_{index}") or output in public


def test_one_product_for_queries_keys_and_values(folder: Path) -> None:
    names = {node.name for node in onnx.load(folder / "decoder.onnx", load_external_data=False).graph.node}
    assert "/model/layers.1/attn/qkv_proj/MatMulNBits" in names
    assert not any("/q_proj/" in name for name in names)


@pytest.mark.parametrize("name", GRAPH_FILES)
def test_versions_are_fixed(name: str, folder: Path) -> None:
    model = onnx.load(folder / name, load_external_data=False)
    assert model.ir_version == 11
    assert {(opset.domain, opset.version) for opset in model.opset_import} == {("", 23), ("com.microsoft", 1)}


def test_the_folder_describes_itself(folder: Path) -> None:
    device, genai = read_device_config(folder), read_json(folder / "genai_config.json")["model"]
    assert device.decoder.num_layers == 2 == read_kv_scales(folder, 2).layers
    assert device.decoder.max_context == 64 == genai["context_length"]
    assert device.decoder.kv_dtype == "int8"
    graph = onnx.load(folder / genai["decoder"]["filename"], load_external_data=False).graph
    ports = {port.name for port in graph.input}
    decoder = genai["decoder"]["inputs"]
    expected = {decoder["input_ids"], decoder["attention_mask"]}
    for pattern in (decoder["past_key_names"], decoder["past_value_names"]):
        expected |= {pattern % layer for layer in range(genai["decoder"]["num_hidden_layers"])}
    assert ports == expected


@pytest.mark.parametrize("rules", [(), (Rule(modules="*", weights="int4", group_size=64),)])
@pytest.mark.parametrize("int8_kv", [True, False])
def test_random_weights_load_run_and_stay_finite(
    rules: tuple[Rule, ...], int8_kv: bool, tmp_path: Path, open_graph: Any
) -> None:
    list(write_random_model("tiny", tmp_path, layers=2, vision_layers=1, rules=rules, int8_kv=int8_kv, options=OPTIONS))
    device = read_device_config(tmp_path)
    patches = open_graph(tmp_path / "patch_embed.onnx")({"pixel_values": np.full((2, 3, 24, 24), 200, np.uint8)})
    features = open_graph(tmp_path / "vision.onnx")(patches)["image_features"]
    assert features.shape == (2, device.vision.tokens_per_tile, device.decoder.hidden_size)
    cache = {
        f"past_key_values.{layer}.{part}": np.zeros((1, 2, 32, 32), device.decoder.kv_dtype)
        for layer in range(2)
        for part in ("key", "value")
    }
    mask = np.ones((1, features.shape[1]), np.int64)
    outputs = open_graph(tmp_path / "decoder.onnx")({"inputs_embeds": features[:1], "attention_mask": mask, **cache})
    assert outputs["logits"].shape == (1, 1, device.decoder.vocab_size)
    assert np.isfinite(outputs["logits"]).all()
    assert 0.1 < outputs["logits"].std() < 10
    if int8_kv:
        # The scale fits: neither clipped all over nor lost in the lowest bits.
        filled = np.abs(outputs["present.1.key"][:, :, : features.shape[1]].astype(int))
        assert (filled >= 127).mean() < 0.01
        assert filled.mean() > 5


def test_small_arrays_are_read_back_from_where_they_were_written(tmp_path: Path) -> None:
    arrays = [np.arange(n, dtype=dtype) for n, dtype in ((3, np.int8), (700_000, np.float32), (5, np.int64))]
    with ExternalData(tmp_path / "x.data") as data:
        refs = [data.append(array) for array in arrays]
    raw = (tmp_path / "x.data").read_bytes()
    for ref, array in zip(refs, arrays, strict=True):
        info = ExternalDataInfo(initializer("x", ref))
        assert (info.offset, info.length) == (ref.offset, array.nbytes)
        np.testing.assert_array_equal(np.frombuffer(raw[info.offset : info.offset + info.length], array.dtype), array)
        np.testing.assert_array_equal(MappedFile(tmp_path / "x.data").array(ref), array)
    assert refs[1].offset % 4096 == 0


def test_a_context_beyond_the_models_positions_is_refused_with_everything_else(tiny_config: Any) -> None:
    with pytest.raises(UsageError) as caught:
        model_shape(tiny_config(), 129)
    assert "128 positions" in caught.value.what
    with pytest.raises(ProblemsError) as several:
        model_shape(tiny_config(text={"hidden_act": "gelu"}, vision={"hidden_act": "silu"}), 0)
    assert len(several.value.problems) == 3
