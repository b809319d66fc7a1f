"""`bluelm export --target npu`: what is written, that the script in it answers as the runtime does, and bad asks."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from stages.device.contract.npu_config import GRAPHS, read_npu_config
from stages.device.runtime.static_model import StaticModel, cpu_graphs
from stages.device.runtime.static_questions import StaticQuestions, agreeing_tokens
from stages.workshop.npu.checker import refusals
from stages.workshop.npu.compiler import missing_compiler
from tests.export_npu.conftest import QUESTION, Exported


def test_the_folder_has_all_that_a_phone_needs(exported: Exported) -> None:
    folder, config = exported.folder, read_npu_config(exported.folder)
    assert set(config.graphs) == set(GRAPHS)
    for spec in config.graphs.values():
        assert refusals(folder / spec.file) == ()
        for port in (*spec.inputs.values(), *spec.outputs.values()):
            assert port.dtype in ("uint8", "uint16")
    assert config.graphs["prefill"].inputs["past_key_values.1.value"].dtype == "uint8"
    manifest = json.loads((folder / "artifact.json").read_text())
    assert manifest["kind"] == "npu"
    words = (folder / "README.md").read_text()
    assert all(spec.file in words for spec in config.graphs.values())
    stages = json.loads((folder / "genai_config.json").read_text())["model"]["decoder"]["pipeline"]
    assert [next(iter(stage.values()))["filename"] for stage in stages] == ["prefill.onnx", "decode.onnx", "head.onnx"]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_script_gives_the_tokens_of_our_runtime(exported: Exported, corpus: Path, number: int) -> None:
    """One tile, two tiles and a thumbnail, six of them: batches that are full and that are not."""
    picture = corpus / "images" / f"{number}.png"
    script = runpy.run_path(str(exported.folder / "run.py"))
    model = StaticModel(exported.folder, cpu_graphs(exported.folder, 1))
    expected = StaticQuestions(exported.folder, model).answer(QUESTION, [picture], 6)
    assert script["main"](str(picture), QUESTION, "", 6)[0] == expected
    assert len(expected) > 1


@pytest.mark.parametrize(
    ("one", "other", "most", "expected"),
    [
        ([1, 2, 3], [1, 2, 3], 3, (3, 3)),
        ([1, 2], [1, 2], 8, (3, 3)),  # the end is a token too
        ([1, 2], [1, 2, 3], 8, (2, 4)),
        ([5, 2, 3], [1, 2, 3], 3, (0, 3)),
        ([], [], 8, (1, 1)),
    ],
)
def test_tokens_agree_up_to_the_first_difference(
    one: list[int], other: list[int], most: int, expected: tuple[int, int]
) -> None:
    assert agreeing_tokens(one, other, most=most) == expected


def ask(bluelm: Any, checkpoint: Path, out: Path, *words: object) -> str:
    done = bluelm("export", checkpoint, "--out", out, *words)
    assert done.code == 2, done.err
    assert not out.exists()
    return " ".join(done.err.split())


def test_an_unknown_chip_names_the_nearest(bluelm: Any, quantized: Path, corpus: Path, tmp_path: Path) -> None:
    words = ("--target", "npu", "--data", corpus, "--soc", "snapdragon-8-gen3", "--qnn-python", sys.executable)
    said = ask(bluelm, quantized, tmp_path / "npu", *words)
    assert "there is no chip of that name" in said
    assert "Did you mean snapdragon-8-gen-3?" in said


def test_a_chip_that_cannot_share_weights_is_refused(
    bluelm: Any, quantized: Path, corpus: Path, tmp_path: Path
) -> None:
    said = ask(bluelm, quantized, tmp_path / "npu", "--target", "npu", "--data", corpus, "--soc", "SM8450")
    assert "its NPU is HTP v69" in said
    assert "needs v73" in said


def test_a_missing_compiler_is_told_with_all_other_problems(bluelm: Any, quantized: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    words = ("--target", "npu", "--soc", "snapdragon-8-gen-3", "--qnn-python", python)
    said = ask(bluelm, quantized, tmp_path / "npu", *words)
    assert f"there is no onnxruntime-qnn for {python}" in said
    assert "pip install" in said
    assert "--data is missing" in said


def test_only_linux_on_x86_has_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    problem = missing_compiler(None)
    assert problem is not None
    assert "aarch64" in problem.what


def test_a_float_checkpoint_is_the_wrong_kind(bluelm: Any, checkpoint: Path, corpus: Path, tmp_path: Path) -> None:
    said = ask(bluelm, checkpoint, tmp_path / "npu", "--target", "npu", "--data", corpus)
    assert "bluelm quantize" in said


def test_a_cache_beyond_the_chips_memory_is_refused_at_once(
    bluelm: Any, quantized: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stages.workshop.npu import chips

    small = chips.known_chips().model_copy(update={"context_bytes": 300_000})
    monkeypatch.setattr(chips, "known_chips", lambda: small)
    words = ("--target", "npu", "--data", corpus, "--soc", "snapdragon-8-elite", "--max-context", "2048")
    said = ask(bluelm, quantized, tmp_path / "npu", *words)
    assert "prefill and decode takes about" in said
    assert "smaller --max-context" in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--target", "phone"), "Choose one of cpu, npu"),
        (("--soc", "snapdragon-8-elite"), "--soc does not go with --target cpu"),
        (("--target", "npu", "--kv", "float32"), "--kv does not go with --target npu"),
        (("--target", "npu", "--verify"), "--verify has nothing to run"),
    ],
)
def test_flags_that_do_not_go_together(
    bluelm: Any, quantized: Path, tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    assert says in ask(bluelm, quantized, tmp_path / "npu", *words)
