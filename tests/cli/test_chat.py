"""`bluelm chat --prompt`: JSON, streams, and every way a model, a picture or a flag can be wrong."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bluelm_cli.chat_text import printable
from stages.artifacts.folder import ArtifactSpec, create
from stages.device.contract import names

Bluelm = Callable[..., Any]
QUICK = ("--max-tokens", 6, "--threads", 1)
PROMISED = {
    *("answer", "image_tokens", "prompt_tokens", "generated_tokens", "first_token_s", "decode_tok_s", "peak_rss_mb"),
}


def three_beats(done: Any, *words: str) -> None:
    assert (done.code, done.out) == (2, ""), done.out + done.err
    assert "Error: " in done.err and "Why: " in done.err and "Fix: " in done.err and "Traceback" not in done.err
    for word in words:
        assert word in done.err


def test_json_has_the_promised_fields(bluelm: Bluelm, tiny_onnx: Path, photo: Path) -> None:
    done = bluelm("chat", tiny_onnx, "--image", photo, "--image", photo, "--prompt", "What?", "--json", *QUICK)
    assert done.code == 0, done.err
    found = done.json()
    assert found.keys() >= PROMISED
    assert found["image_tokens"] == 2 * 7 * 16
    assert found["prompt_tokens"] > found["image_tokens"]
    assert isinstance(found["answer"], str)
    for name in ("first_token_s", "decode_tok_s", "peak_rss_mb", "load_s"):
        assert found[name] > 0, name
    assert [image["reused"] for image in found["images"]] == [False, True]


def test_the_answer_and_nothing_else_is_on_stdout(bluelm: Bluelm, tiny_onnx: Path, photo: Path) -> None:
    words = ("chat", tiny_onnx, "--image", photo, "--prompt", "What?", *QUICK)
    answer = bluelm(*words, "--json").json()["answer"]
    done = bluelm(*words)
    assert done.code == 0
    assert done.out == printable(answer) + "\n"


def test_the_prompt_comes_from_stdin(bluelm: Bluelm, tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    direct = bluelm("chat", tiny_onnx, "--prompt", "Hello there", "--json", *QUICK).json()
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello there\n"))
    piped = bluelm("chat", tiny_onnx, "--prompt", "-", "--json", *QUICK).json()
    assert (piped["answer"], piped["prompt_tokens"]) == (direct["answer"], direct["prompt_tokens"])
    monkeypatch.setattr(sys, "stdin", io.StringIO(" \n"))
    three_beats(bluelm("chat", tiny_onnx, "--prompt", "-"), "nothing on stdin")


def test_help_shows_a_worked_example(bluelm: Bluelm) -> None:
    done = bluelm("chat", "--help")
    assert done.code == 0 and 'bluelm chat --image photo.png --prompt "What is this?"' in " ".join(done.out.split())


def test_flags_that_cannot_work(bluelm: Bluelm, tiny_onnx: Path, tmp_path: Path) -> None:
    ask = ("chat", tiny_onnx, "--prompt", "What?")
    three_beats(bluelm("chat", tiny_onnx, "--json"), "--json without --prompt")
    three_beats(bluelm(*ask, "--temperature", -1, "--top-p", 0, "--chunk", 0), "3 problems", "top-p", "chunk")
    three_beats(bluelm("chat", tiny_onnx, "--prompt", " "), "question is empty")
    three_beats(bluelm(*ask, "--set", "temprature=1"), "temperature")
    three_beats(bluelm(*ask, "--features", tmp_path), "holds no artifact.json", "bluelm encode")


def test_bad_pictures_are_told_together(bluelm: Bluelm, tiny_onnx: Path, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    cut = tmp_path / "cut.png"
    cut.write_bytes(photo.read_bytes()[:20000])
    words = [word for path in (tmp_path / "text.png", photo, cut, tmp_path) for word in ("--image", path)]
    three_beats(bluelm("chat", tiny_onnx, *words, "--prompt", "What?", *QUICK), "3 problems", "text.png", "cut.png")


def test_models_that_cannot_be_used(bluelm: Bluelm, variant: Any, tmp_path: Path, monkeypatch: Any) -> None:
    with create(tmp_path / "quantized", ArtifactSpec("quantized", "quantize", {})):
        pass
    ask = ("--prompt", "What?", *QUICK)
    three_beats(bluelm("chat", tmp_path / "quantized", *ask), "kind quantized", "bluelm export CHECKPOINT")
    three_beats(bluelm("chat", tmp_path / "none", *ask), "does not exist", "bluelm export")
    monkeypatch.setattr("stages.device.runtime.shipped.recipes_folder", lambda: tmp_path)
    three_beats(bluelm("chat", *ask), "carries no demo model", "make demo")


def test_no_model_means_the_shipped_one(
    bluelm: Bluelm, tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo").symlink_to(tiny_onnx)
    monkeypatch.setattr("stages.device.runtime.shipped.recipes_folder", lambda: tmp_path)
    assert bluelm("chat", "--prompt", "What?", *QUICK).code == 0


@pytest.mark.parametrize("file", names.RUN_FILES)
def test_missing_and_corrupt_graphs(bluelm: Bluelm, variant: Any, photo: Path, file: str) -> None:
    ask = ("--image", photo, "--prompt", "What?", *QUICK)
    broken = variant(lambda folder: (folder / file).write_bytes(b"\x00" * 50))
    three_beats(bluelm("chat", broken, *ask), file, "bluelm export")
    (broken / file).unlink()
    three_beats(bluelm("chat", broken, *ask), f"{file} is missing", "bluelm export")


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("decoder", {"num_layers": 2}, "prefill.json has 1 layers"),
        ("decoder", {"hidden_size": 32}, "device.json and the graph describe different models"),
        ("decoder", {"num_layers": "many"}, "device.json: decoder.num_layers"),
        ("vision", {"tile_size": 56}, "patch_embed.onnx: the input pixel_values"),
        ("prompt", {"image_token": "<picture>"}, "no token '<picture>'"),
    ],
)
def test_a_tampered_configuration(
    bluelm: Bluelm, variant: Any, photo: Path, part: str, values: Any, message: str
) -> None:
    model = variant(part, **values)
    three_beats(bluelm("chat", model, "--image", photo, "--prompt", "What?", *QUICK), message)


def test_a_conversation_that_does_not_fit(bluelm: Bluelm, variant: Any, photo: Path) -> None:
    model = variant("decoder", max_context=64)
    done = bluelm("chat", model, "--image", photo, "--prompt", "What?", *QUICK)
    three_beats(done, "tokens; this model holds 64")


def test_a_model_that_computes_nan(bluelm: Bluelm, variant: Any) -> None:
    import onnx

    def poison(folder: Path) -> None:
        path = folder / names.DECODER_FILE
        graph = onnx.load(path, load_external_data=False)
        output = graph.graph.output[0].name
        for node in graph.graph.node:
            node.output[:] = ["clean" if name == output else name for name in node.output]
        graph.graph.initializer.append(onnx.helper.make_tensor("nan", onnx.TensorProto.FLOAT, [1], [float("nan")]))
        graph.graph.node.append(onnx.helper.make_node("Add", ["clean", "nan"], [output]))
        path.write_bytes(graph.SerializeToString())

    three_beats(bluelm("chat", variant(poison), "--prompt", "What?", *QUICK), "NaN", "bluelm export")
