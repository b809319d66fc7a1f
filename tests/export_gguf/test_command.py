"""`bluelm export --format gguf`: the command, and every way in which it is refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import gguf
import pytest


def test_the_command_writes_both_files_and_says_so(make_checkpoint: Any, bluelm: Any, tmp_path: Path) -> None:
    checkpoint = make_checkpoint({"model_type": "qwen2"})
    told = bluelm("export", checkpoint, "--format", "gguf", "--dry-run", "--json")
    assert told.json() == {"architecture": "qwen2", "tokenizer": "smollm", "without_pictures": None}
    done = bluelm("export", checkpoint, "--format", "gguf", "--out", tmp_path / "gguf", "--json")
    assert done.code == 0, done.err
    assert set(done.json()["files"]) == {"model.gguf", "mmproj.gguf"}
    assert "up to date" in bluelm("export", checkpoint, "--format", "gguf", "--out", tmp_path / "gguf").err
    assert bluelm("info", tmp_path / "gguf", "--json").json()["kind"] == "gguf"
    assert "chat_template" in " ".join(gguf.GGUFReader(tmp_path / "gguf" / "model.gguf").fields)


def test_what_does_not_go_together_is_told_together(make_checkpoint: Any, bluelm: Any) -> None:
    checkpoint = make_checkpoint({"model_type": "llama"})
    done = bluelm("export", checkpoint, "--format", "gguf", "--kv", "int8", "--batch", 2, "--out", "x")
    assert done.code == 2
    assert "--kv does not go with --format gguf" in done.err
    assert "--batch does not go with --format gguf" in done.err
    other = bluelm("export", checkpoint, "--format", "onxx", "--out", "x")
    assert other.code == 2
    assert "there is no such format" in other.err


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ({"model_type": "llama", "rope_parameters": YARN}, "yarn"),
        ({"model_type": "qwen2", "rope_parameters": LLAMA3}, "belongs to llama"),
        ({"model_type": "qwen3", "head_dim": 16, "attention_bias": True}, "no attention_bias"),
        ({"model_type": "smollm3", "no_rope_layer_interval": 2}, "every 4th layer"),
    ],
)
def test_what_llama_cpp_leaves_out_is_refused(
    text: dict[str, Any], words: str, make_checkpoint: Any, bluelm: Any
) -> None:
    done = bluelm("export", make_checkpoint(text), "--format", "gguf", "--out", "x")
    assert done.code == 2
    assert "llama.cpp cannot express this language model" in done.err
    assert words in " ".join(done.err.split())


@pytest.mark.parametrize(
    ("fields", "tile", "words"),
    [
        ({"downsampler": "none"}, 32, "does neither"),
        ({"fuse_linear": True}, 32, "fuse_linear"),
        ({"token_order": "column"}, 32, "column by column"),
        ({}, 56, "a tile has 7×7 patches"),
    ],
)
def test_a_vision_side_that_is_not_theirs_is_left_out(
    fields: dict[str, Any], tile: int, words: str, make_checkpoint: Any, bluelm: Any, tmp_path: Path
) -> None:
    checkpoint = make_checkpoint({"model_type": "llama"}, tile=tile, **fields)
    done = bluelm("export", checkpoint, "--format", "gguf", "--out", tmp_path / "gguf", "--json")
    assert done.code == 0, done.err
    assert set(done.json()["files"]) == {"model.gguf"}
    assert words in done.json()["without_pictures"]
    assert "llama.cpp answers without pictures" in " ".join(done.err.split())


def test_without_gguf_the_extra_is_named(make_checkpoint: Any, bluelm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    done = bluelm("export", make_checkpoint({"model_type": "llama"}), "--format", "gguf", "--out", "x")
    assert done.code == 2
    assert "bluelm[neighbours]" in done.err
