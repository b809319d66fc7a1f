"""Small files that would become large, paths that lead out of their folder, code in data: refused, in three beats."""

from __future__ import annotations

import json
import os
import pickle
import resource
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stages.artifacts.errors import ArtifactError, BluelmError, ModelError, RecipeError
from stages.artifacts.folder import open_artifact
from stages.artifacts.recipes import parse_set, read_recipe, read_yaml, validate
from stages.workshop.corpus.readers.opening import open_rows
from stages.workshop.corpus.row import BadRow, Row
from tests.hostile.targets import ROWS, Outer, attempt

Run = Callable[..., Any]
LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


def peak() -> int:
    """MiB that this process held at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LAUGHS, "more than 100000 values"),
        ("a: &a [*a]", "an alias within what it stands for"),
        ("a: &a {b: {c: *a}}", "an alias within what it stands for"),
        ("[" * 5000, "nested too deeply"),
        ("a: " + "[" * 70 + "]" * 70, "more than 60 levels"),
        ("steps: " + "9" * 5000, "a value cannot be read"),
        ("? [1, 2]\n: 3", "a list or mapping as a key"),
        ("a: !!binary x", "is not valid YAML"),
        ("a: !!python/object/apply:os.system [touch /tmp/owned]", "could not determine a constructor"),
        ("a: 1\n" * 1_100_000, "longer than 4 MiB"),
    ],
)
def test_recipes_that_are_bombs(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    before = peak()
    with pytest.raises(RecipeError) as caught:
        read_yaml(tmp_path / "r.yaml")
    assert words in str(caught.value) and len(str(caught.value)) < 2000
    assert peak() - before < 200


def test_bombs_on_the_command_line() -> None:
    for value in ("[" * 3000, "9" * 5000, "&a [*a]"):
        with pytest.raises(RecipeError, match="is not YAML"):
            parse_set(f"steps={value}")


def test_a_wrong_value_is_quoted_in_part() -> None:
    with pytest.raises(RecipeError) as caught:
        validate(Outer, {"steps": [["x" * 1000] * 1000]}, "r")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../secret", "..", "c:\\x", "a\\..\\b"])
def test_manifests_that_leave_their_folder(tmp_path: Path, name: str) -> None:
    listed = {name: {"size": 1, "sha256": "0"}}
    text = json.dumps({"kind": "corpus", "stage": "x", "config": {}, "files": listed})
    (tmp_path / "artifact.json").write_text(text)
    with pytest.raises(ArtifactError, match="outside the folder"):
        open_artifact(tmp_path, "corpus")


def test_tars_that_leave_their_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"")
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    folder = tmp_path / "data"
    folder.mkdir()
    with tarfile.open(folder / "a.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, kind, name, target in (
            ("a", tarfile.REGTYPE, "../secret.png", ""),
            ("b", tarfile.REGTYPE, str(tmp_path / "secret.png"), ""),
            ("c", tarfile.SYMTYPE, "c.png", "../secret.png"),
            ("d", tarfile.LNKTYPE, "d.png", str(tmp_path / "secret.png")),
            ("e", tarfile.CHRTYPE, "e.png", ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            tar.addfile(member)
            said = b"what"
            text = tarfile.TarInfo(f"{key}.txt" if name.startswith(key) else f"{name.removesuffix('.png')}.txt")
            text.size = len(said)
            tar.addfile(text, BytesIO(said))
    found = list(open_rows(folder / "a.tar"))
    assert all(isinstance(row, BadRow) or not row.pictures for row in found), found
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.tar", "data", "secret.png"]


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname", "a/../../secret.png", "file:///etc/hostname"])
def test_rows_that_leave_their_folder(tmp_path: Path, name: str) -> None:
    """A corpus says where its pictures lie; a row of it does not lead elsewhere."""
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    folder = tmp_path / "data"
    folder.mkdir()
    said = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "It"}]
    (folder / "rows.json").write_text(json.dumps([{"id": "a", "image": name, "conversations": said}]))
    (row,) = open_rows(folder / "rows.json")
    assert isinstance(row, BadRow) or not any(picture.exists() for picture in row.pictures)


def test_recipes_extend_what_is_there(tmp_path: Path) -> None:
    for name in ("no\\0such", "../" * 50 + "etc/passwd", "/dev/zero"):
        (tmp_path / "r.yaml").write_text(f'extends: "{name}"\n')
        with pytest.raises(RecipeError):
            read_recipe(tmp_path / "r.yaml")


class Opened:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_pickles_are_never_opened(tmp_path: Path, bluelm: Run) -> None:
    owned, folder = tmp_path / "owned", tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bluelm_v"}')
    for name in ("pytorch_model.bin", "model.safetensors", "training_args.bin"):
        (folder / name).write_bytes(pickle.dumps(Opened(owned)))
    for words in (
        ("quantize", folder, "--dry-run"),
        ("export", folder, "--dry-run"),
        ("adopt", folder, "--out", owned),
    ):
        done = bluelm(*words)
        assert done.code == 2, done.err
        assert "bug in bluelm" not in done.err
    assert not owned.exists()
    (folder / "model.safetensors").unlink()
    assert "safetensors" in bluelm("quantize", folder, "--dry-run").err


def test_code_in_a_model_folder_is_never_run(tmp_path: Path, bluelm: Run) -> None:
    """`auto_map` is how a hub model names code of its own."""
    owned, folder = tmp_path / "owned", tmp_path / "model"
    folder.mkdir()
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(owned)!r})\nclass A: pass\n")
    auto = dict.fromkeys(("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoProcessor"), "evil.A")
    config = {"model_type": "evil", "architectures": ["A"], "auto_map": auto, "trust_remote_code": True}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["evil.A", None]}}))
    (folder / "processor_config.json").write_text(json.dumps({"auto_map": {"AutoProcessor": "evil.A"}}))
    rows = tmp_path / "rows.json"
    rows.write_bytes(ROWS)
    for words in (
        ("quantize", folder, "--dry-run"),
        ("adopt", folder, "--dry-run"),
        ("finetune", folder, "--data", folder, "--dry-run"),
        ("chat", folder, "--prompt", "x"),
        ("data", "check", rows, "--model", folder, "--threads", 1),
    ):
        done = bluelm(*words)
        assert done.code == 2, (words, done.err)
        assert "bug in bluelm" not in done.err, (words, done.err)
    assert not owned.exists()


@pytest.mark.parametrize("location", ["inside.data", "../outside.data", "/etc/hostname", "linked.data"])
def test_graphs_whose_weights_lie_outside_their_folder(tmp_path: Path, location: str) -> None:
    import numpy as np
    import onnx
    from onnx import TensorProto, helper

    from stages.device.runtime.sessions import Graph

    folder = tmp_path / "model"
    folder.mkdir()
    secret = np.arange(16, dtype=np.float32)
    for data in (tmp_path / "outside.data", folder / "inside.data"):
        data.write_bytes(secret.tobytes())
    (folder / "linked.data").symlink_to(tmp_path / "outside.data")
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[16])
    weights.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "64")):
        weights.external_data.add(key=key, value=value)
    graph = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["y"])],
        "g",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [16])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (folder / "g.onnx").write_bytes(model.SerializeToString())
    assert onnx.load(folder / "g.onnx", load_external_data=False).graph.name == "g"
    if location == "inside.data":
        assert np.array_equal(Graph(folder / "g.onnx", threads=1).session.run(None, {})[0], secret)
        return
    with pytest.raises(ModelError):
        Graph(folder / "g.onnx", threads=1)


def test_deep_json_is_no_crash(tmp_path: Path) -> None:
    deep = b"[" * 100_000
    for target in ("manifest", "typed", "device", "prompts", "rows", "tensor_index", "recipe"):
        assert not attempt(target, b'{"a":' + deep, tmp_path) or target == "rows"
    assert not attempt("tensors", (len(deep) + 5).to_bytes(8, "little") + b'{"a":' + deep, tmp_path)


def test_rows_are_still_read_beside_a_broken_one(tmp_path: Path) -> None:
    said = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "\x1b[2J\u202e"}]
    (tmp_path / "rows.jsonl").write_bytes(b"[" * 5000 + b"\n" + json.dumps({"id": "a", "conversations": said}).encode())
    with pytest.raises(BluelmError):
        list(open_rows(tmp_path / "rows.jsonl"))
    (tmp_path / "rows.jsonl").write_bytes(json.dumps({"id": "a", "conversations": said}).encode() + b"\n" + b"[" * 5000)
    kinds = [type(row) for row in open_rows(tmp_path / "rows.jsonl")]
    assert kinds == [Row, BadRow]
