"""The whole chain through the command line: each stage made from the one before, known again, refused when wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all tests of this file: the chain is built once, by the first test."""
    return tmp_path_factory.mktemp("chain")


def commands(work: Path) -> list[list[str]]:
    """The demo's commands, with a handful of pictures and steps."""
    corpus, tiles = str(work / "corpus"), str(work / "tiles")
    stage1, stage2, int4, onnx = (str(work / name) for name in ("stage1", "stage2", "int4", "onnx"))
    few = ["--set", "steps=3", "--set", "warmup_steps=1", "--set", "global_batch=4"]
    small = ["--set", "train=24", "--set", "heldout=3"]
    return [
        ["data", "render", "--recipe", "tiny/data.yaml", *small, "--out", corpus],
        ["tile", corpus, "--preset", "tiny", "--out", tiles],
        ["pretrain", "--recipe", "tiny/pretrain.yaml", "--data", corpus, *few, "--out", stage1],
        [
            "finetune",
            stage1,
            "--recipe",
            "tiny/finetune.yaml",
            "--data",
            corpus,
            "--tiles",
            tiles,
            *few,
            "--out",
            stage2,
        ],
        ["quantize", stage2, "--data", corpus, "--samples", "4", "--out", int4],
        ["export", int4, "--out", onnx],
        ["encode", onnx, corpus, "--out", str(work / "features")],
        *[
            ["bench", "eval", str(work / name), "--data", corpus, "--out", str(work / f"eval-{name}")]
            for name in ("stage2", "int4", "onnx")
        ],
    ]


def test_each_stage_runs_and_is_known_again(work: Path, bluelm: Run) -> None:
    for words in commands(work):
        done = bluelm(*words, "--json")
        assert done.code == 0, f"{words}: {done.err}"
        assert isinstance(done.json(), dict)
    manifests = {path: path.read_bytes() for path in work.glob("*/artifact.json")}
    assert len(manifests) == len(commands(work))
    for words in commands(work):
        again = bluelm(*words)
        assert again.code == 0
        assert "up to date" in again.err, words
    assert manifests == {path: path.read_bytes() for path in work.glob("*/artifact.json")}
    assert not [path for path in work.iterdir() if path.name.startswith(".")]


def test_the_lineage_of_the_exported_model_reaches_the_corpus(work: Path, bluelm: Run) -> None:
    steps = bluelm("info", work / "onnx", "--json").json()["lineage"]
    assert [step["kind"] for step in steps if step["depth"] <= 3][:2] == ["quantized", "checkpoint"]
    assert {"corpus", "tiles"} <= {step["kind"] for step in steps}
    assert all(step["state"] == "unchanged" for step in steps)


def test_the_exported_model_answers_with_the_promised_fields(work: Path, bluelm: Run) -> None:
    picture = min((work / "corpus/images").rglob("*.*"))
    done = bluelm("chat", work / "onnx", "--image", picture, "--prompt", "What shape is it?", "--json")
    assert done.code == 0
    promised = {"answer", "image_tokens", "prompt_tokens", "generated_tokens", "first_token_s", "decode_tok_s"}
    assert promised | {"peak_rss_mb"} <= done.json().keys()
    assert done.json()["image_tokens"] % 9 == 0


def test_bench_has_the_promised_fields(work: Path, bluelm: Run) -> None:
    limits = ["--prompt-tokens", "64", "--generate", "2", "--runs", "1"]
    done = bluelm("bench", work / "onnx", "--chunk", "16", "--chunk", "32", *limits, "--json")
    assert done.code == 0, done.err
    promised = (
        "test chunk tiles_per_batch n_prompt kv seconds tok_s ms_per_tile model avg_ts stddev_ts median_ts samples_ts"
    )
    rows = done.json()["rows"]
    assert {"load", "encode", "prefill", "decode"} == {row["test"] for row in rows}
    assert all(set(promised.split()) <= row.keys() for row in rows)
    assert {16, 32} == {row["chunk"] for row in rows if row["test"] == "prefill"}
    assert {"peak_rss_mb", "machine", "versions"} <= done.json().keys()


def test_the_closing_table_has_every_form(work: Path, bluelm: Run) -> None:
    done = bluelm("bench", "table", *(work / f"eval-{name}" for name in ("stage2", "int4", "onnx")), "--json")
    assert done.code == 0, done.err
    text = json.dumps(done.json())
    assert all(form in text for form in ("float", "quantized", "exported"))


@pytest.mark.parametrize(
    ("words", "made_by"),
    [
        (["finetune", "corpus", "--recipe", "tiny/finetune.yaml", "--data", "corpus", "--out", "x"], "bluelm pretrain"),
        (["quantize", "onnx", "--data", "corpus", "--out", "x"], "bluelm pretrain"),
        (["export", "corpus", "--out", "x"], "bluelm quantize"),
        (["chat", "stage2", "--prompt", "?"], "bluelm export"),
        (["bench", "int4"], "bluelm export"),
        (["encode", "tiles", "corpus", "--out", "x"], "bluelm export"),
    ],
)
def test_a_wrong_kind_names_the_command_that_makes_the_right_one(
    work: Path, bluelm: Run, words: list[str], made_by: str
) -> None:
    places = [str(work / word) if (work / word).is_dir() else word for word in words]
    done = bluelm(*[str(work / "x") if word == "x" else word for word in places])
    assert done.code == 2
    assert made_by in done.err
    assert "Traceback" not in done.err
    assert not (work / "x").exists()
