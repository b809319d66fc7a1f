"""`bluelm adopt`, from the command line to a checkpoint that other commands open."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, Qwen2Config, SiglipVisionConfig

from stages.workshop.model.tokenizer import train_tokenizer

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLaVA-OneVision with random weights, as transformers saves it."""
    folder = tmp_path_factory.mktemp("public") / "onevision"
    tokenizer = train_tokenizer(["What colour is it?", "red blue"] * 3, 300)
    vision = SiglipVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=4,
        vision_use_head=False,
    )
    text = Qwen2Config(
        vocab_size=len(tokenizer) + 1,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
    )
    config = LlavaOnevisionConfig(
        vision_config=vision, text_config=text, image_token_index=3, video_token_index=len(tokenizer)
    )
    torch.manual_seed(0)
    LlavaOnevisionForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_the_checkpoint_is_an_artifact_others_open(bluelm: Run, public: Path, tmp_path: Path) -> None:
    out = tmp_path / "ours"
    done = bluelm("adopt", public, "--out", out, "--max-grid", "3x2", "--json")
    assert done.code == 0, done.err
    result = done.json()
    assert (result["layout"], result["tokens_per_tile"]) == ("LLaVA-OneVision", 49)
    assert result["parameters"] > 10_000
    assert "image_newline" in result["notes"][0]
    assert "image_newline" in done.err
    manifest = json.loads((out / "artifact.json").read_text())
    assert (manifest["kind"], manifest["stage"]) == ("checkpoint", "adopt")
    assert manifest["config"] == {"max_cols": 3, "max_rows": 2, "chat_template": None}
    again = bluelm("adopt", public, "--out", out, "--max-grid", "3x2", "--json")
    assert again.json() == result
    assert "up to date" in again.err
    other = bluelm("adopt", public, "--out", out)
    assert other.code == 2
    assert "max_cols" in other.err
    forced = bluelm("adopt", public, "--out", out, "--force")
    assert forced.code == 0
    assert "LLaVA-OneVision" in forced.out


def test_the_same_source_gives_the_same_artifact(bluelm: Run, public: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        assert bluelm("adopt", public, "--out", tmp_path / name).code == 0
    assert (tmp_path / "first" / "artifact.json").read_bytes() == (tmp_path / "second" / "artifact.json").read_bytes()


def test_a_dry_run_reads_headers_and_writes_nothing(bluelm: Run, public: Path, tmp_path: Path) -> None:
    out = tmp_path / "ours"
    done = bluelm("adopt", public, "--out", out, "--dry-run", "--json")
    assert done.code == 0, done.err
    found = done.json()
    assert found["layout"] == "LLaVA-OneVision"
    assert found["text_model"] == "qwen2"
    assert (found["tile_size"], found["tokens_per_tile"]) == (28, 49)
    assert found["bytes"] == (public / "model.safetensors").stat().st_size
    assert not out.exists()
    assert "qwen2" in bluelm("adopt", public, "--dry-run").out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "--out is missing"),
        (("--out", "{public}/ours"), "lies inside"),
        (("--out", "{tmp}/ours", "--max-grid", "9x99"), "--max-grid '9x99' is not a grid"),
        (("--out", "{tmp}/ours", "--set", "max_cols=0"), "max_cols"),
        (("--out", "{tmp}/ours", "--set", "rows=3"), "rows"),
    ],
)
def test_mistakes_are_explained(
    bluelm: Run, public: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    done = bluelm("adopt", public, *[word.format(public=public, tmp=tmp_path) for word in words])
    assert done.code == 2
    assert message in done.err
    assert "Why:" in done.err
    assert "Fix:" in done.err
    assert not (tmp_path / "ours").exists()
    assert not (public / "ours").exists()


def test_a_folder_of_another_kind_is_refused(bluelm: Run, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    done = bluelm("adopt", tmp_path, "--out", tmp_path.with_name("ours"))
    assert done.code == 2
    assert "'clip'" in done.err
    assert "VILA-1.5" in done.err


def test_help_shows_an_example(bluelm: Run) -> None:
    done = bluelm("adopt", "--help")
    assert done.code == 0
    assert "Example: bluelm adopt" in done.out
