"""Safetensors one tensor at a time: headers, shards, and damaged files."""

import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from stages.artifacts.errors import ModelError
from stages.workshop.quant.tensor_files import ShardWriter, TensorFolder

TENSORS = {
    "a.weight": torch.arange(12.0).reshape(3, 4),
    "a.weight_packed": torch.arange(6, dtype=torch.int32).reshape(2, 3),
    "b.bias": torch.arange(5.0).bfloat16(),
    "c.scale": torch.ones(2, 2).half(),
    "d.shape": torch.tensor([3, 4]),
}


def test_headers_say_what_the_tensors_are(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors", metadata={"format": "pt"})
    folder = TensorFolder(tmp_path)
    assert set(folder.infos) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert folder.infos[name].shape == tuple(tensor.shape)
        assert folder.infos[name].bytes == tensor.nbytes
        assert torch.equal(folder.read(name), tensor)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 200))
def test_any_shard_size_gives_the_same_tensors(tmp_path_factory, limit):
    path = tmp_path_factory.mktemp("shards")
    writer = ShardWriter(path, limit)
    for name, tensor in TENSORS.items():
        writer.add(name, tensor)
    assert writer.close() == {name: tensor.nbytes for name, tensor in TENSORS.items()}
    folder = TensorFolder(path)
    assert {name: folder.read(name).tolist() for name in folder.infos} == {n: t.tolist() for n, t in TENSORS.items()}
    files = sorted(file.name for file in path.glob("*.safetensors"))
    if len(files) == 1:
        assert files == ["model.safetensors"]
        return
    assert files == [f"model-{n + 1:05d}-of-{len(files):05d}.safetensors" for n in range(len(files))]
    index = json.loads((path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in TENSORS.values())
    for file in files:
        held = load_file(path / file)
        assert {name for name, where in index["weight_map"].items() if where == file} == set(held)
        assert sum(tensor.nbytes for tensor in held.values()) <= limit or len(held) == 1


def test_no_weights_at_all_is_still_a_file(tmp_path):
    assert ShardWriter(tmp_path, 100).close() == {}
    assert TensorFolder(tmp_path).infos == {}


def test_a_folder_without_safetensors_is_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match="neither") as caught:
        TensorFolder(tmp_path)
    assert "never pickles" in caught.value.why


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"\xff" * 64, "longer than the file"),
        ((3).to_bytes(8, "little") + b"{]}", "not JSON"),
        ((2).to_bytes(8, "little") + b"[]", "not a JSON object"),
        ((7).to_bytes(8, "little") + b'{"a":1}', "describes a badly"),
        ((30).to_bytes(8, "little") + b'{"a":{"dtype":"X","shape":[]}}', "unknown type X"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, content, message):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        TensorFolder(tmp_path)
    assert "model.safetensors" in caught.value.what


def test_a_missing_shard_and_a_broken_index_are_named(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}}))
    with pytest.raises(ModelError, match=r"model-00001-of-00002\.safetensors cannot be read"):
        TensorFolder(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": "../elsewhere.safetensors"}}))
    with pytest.raises(ModelError, match="outside its folder"):
        TensorFolder(tmp_path)
    index.write_text("[]")
    with pytest.raises(ModelError, match=r"index\.json cannot be read"):
        TensorFolder(tmp_path)
