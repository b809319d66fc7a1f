"""Qualcomm's compiler and simulator: skipped where onnxruntime-qnn is missing.

BLUELM_QNN_PYTHON names an interpreter that has it (python -m venv QNN; QNN/bin/pip install onnxruntime-qnn numpy).
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.artifacts.errors import ModelError
from stages.device.runtime.static_model import cpu_graphs
from stages.workshop.npu.chips import chip_of
from stages.workshop.npu.compiler import HtpProcess
from tests.export_npu.conftest import Exported
from tests.export_npu.test_simulation import feeds_of


@pytest.fixture
def python() -> Path:
    """An interpreter with onnxruntime-qnn."""
    named = os.environ.get("BLUELM_QNN_PYTHON")
    if named is None and importlib.util.find_spec("onnxruntime_qnn") is None:
        pytest.skip("no onnxruntime-qnn: install bluelm[npu], or set BLUELM_QNN_PYTHON to an interpreter that has it")
    return Path(named or sys.executable)


def test_a_process_that_cannot_start_says_what_it_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "worker.py"
    broken.write_text("import sys; sys.exit('no such library')")
    monkeypatch.setattr("stages.workshop.npu.compiler.WORKER", broken)
    with pytest.raises(ModelError, match="starting: the process ended with 1 no such library"), HtpProcess():
        pass


@pytest.mark.slow
@pytest.mark.parametrize("chip", ["snapdragon-8-gen-3", "snapdragon-8-elite"])
def test_the_compiled_decoder_computes_the_simulation(
    exported: Exported, python: Path, chip: str, tmp_path: Path
) -> None:
    """Prefill and decode out of one binary; the simulator rounds some sums otherwise, never by much."""
    paths = {graph: exported.folder / f"{graph}.onnx" for graph in ("prefill", "decode")}
    plain = cpu_graphs(exported.folder, 1)
    with HtpProcess(python) as htp:
        htp.compile(chip_of(chip), paths, tmp_path)
        assert len(list(tmp_path.glob("*.bin"))) == 1
        for graph, start in (("prefill", 0), ("prefill", 20), ("decode", 33)):
            feeds = feeds_of(exported, graph, start)
            found, expected = htp.run(graph, feeds), plain(graph, feeds)  # type: ignore[arg-type]
            for name, stored in expected.items():
                steps = np.abs(found[name].astype(int) - stored)
                span = int(stored.max()) - int(stored.min())
                assert steps.max() <= (2 if stored.dtype == np.uint8 else 2e-2 * span), (graph, name)


@pytest.mark.slow
def test_the_compiled_patch_embedding_takes_bytes(
    exported: Exported, corpus: Path, python: Path, tmp_path: Path
) -> None:
    with Image.open(corpus / "images" / "0.png") as picture:
        tiles = np.stack([np.asarray(picture).transpose(2, 0, 1)] * exported.model.tiles)
    feeds = {"pixel_values": tiles}
    expected = cpu_graphs(exported.folder, 1)("patch_embed", feeds)["patch_embeds"].astype(int)
    with HtpProcess(python) as htp:
        htp.compile(chip_of("snapdragon-8-gen-3"), {"patch_embed": exported.folder / "patch_embed.onnx"}, tmp_path)
        found = htp.run("patch_embed", feeds)["patch_embeds"]
    assert np.abs(found - expected).max() <= 2e-3 * (expected.max() - expected.min())


@pytest.mark.slow
def test_a_graph_that_is_refused_is_an_error_of_ours(exported: Exported, python: Path, tmp_path: Path) -> None:
    """embedding.onnx has operators of onnxruntime's own, and the CPU may not take them."""
    with HtpProcess(python) as htp, pytest.raises(ModelError, match="Qualcomm's compiler failed, compiling embedding"):
        htp.compile(chip_of("SM8650"), {"embedding": exported.folder / "embedding.onnx"}, tmp_path)


@pytest.mark.slow
def test_verify_answers_on_the_simulator(
    bluelm: Any, quantized: Path, corpus: Path, python: Path, tmp_path: Path
) -> None:
    words = ("--target", "npu", "--data", corpus, "--max-context", "96", "--set", "chunk=16", "--set", "questions=2")
    chip = ("--soc", "snapdragon-8-gen-3", "--verify", "--qnn-python", python, "--json", "--set", "tokens=3")
    done = bluelm("export", quantized, "--out", tmp_path / "npu", *words, *chip)
    assert done.code == 0, done.err
    agreement = done.json()["chips"]["snapdragon-8-gen-3"]["agreement"]
    assert agreement == {"questions": 2, "tokens": 6, "same": 6, "whole_answers": 2}
    assert (tmp_path / "npu" / "snapdragon-8-gen-3" / "prefill_qnn.bin").stat().st_size > 10_000
