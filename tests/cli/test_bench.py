"""`bluelm bench` on the command line: words, JSON, messages and exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.artifacts.folder import ArtifactSpec, create

Run = Callable[..., Any]
QUICK = ("--prompt-tokens", 24, "--generate", 2, "--runs", 1, "--warmup", 0, "--threads", 1, "--no-ceilings")
PROMISED = {
    *("test", "chunk", "tiles_per_batch", "n_prompt", "kv", "seconds", "tok_s", "ms_per_tile"),
    *("model", "avg_ts", "stddev_ts", "median_ts", "samples_ts"),
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image

    out = tmp_path_factory.mktemp("cli-data") / "corpus"
    turns = [{"from": "human", "value": "<image>\nWhich colour?"}, {"from": "gpt", "value": "red"}]
    rows = [{"id": "0", "image": "0.png", "task": "colour", "conversations": turns}]
    with create(out, ArtifactSpec(kind="corpus", stage="data", config={})) as draft:
        Image.new("RGB", (80, 80), "red").save(draft.path / "0.png")
        for split in ("train", "heldout"):
            (draft.path / f"{split}.json").write_text(json.dumps(rows), encoding="utf-8")
    return out


def test_json_has_the_promised_fields(bluelm: Run, tiny_onnx: Path) -> None:
    done = bluelm("bench", tiny_onnx, "--chunk", 8, "--chunk", 24, *QUICK, "--json")
    assert done.code == 0, done.err
    result = done.json()
    assert set(result) >= {"rows", "peak_rss_mb", "machine", "versions"}
    assert all(set(row) >= PROMISED for row in result["rows"])
    assert [row["chunk"] for row in result["rows"] if row["test"] == "prefill"] == [8, 24]
    assert {row["test"] for row in result["rows"]} == {"load", "encode", "prefill", "decode"}
    assert result["machine"]["cpu"] and result["versions"]["onnxruntime"]


def test_run_may_be_named_and_prints_a_table(bluelm: Run, tiny_onnx: Path) -> None:
    done = bluelm("bench", "run", tiny_onnx, *QUICK)
    assert done.code == 0 and "prefill" in done.out and "peak memory" in done.out


def test_dry_run_says_what_would_run(bluelm: Run, tiny_onnx: Path, tmp_path: Path) -> None:
    done = bluelm("bench", tiny_onnx, "--chunk", 64, "--out", tmp_path / "out", "--dry-run", "--json")
    plan = done.json()
    assert plan["workload"]["chunks"] == [64] and plan["workload"]["prompts"] == [2048 - 64]
    assert (plan["tiles"], plan["image_tokens"]) == ([9], [144])
    assert list(tmp_path.iterdir()) == []
    preset = bluelm("bench", "--preset", "bluelm-v-3b", "--layers", 4, "--dry-run", "--json").json()
    assert (preset["tiles"], preset["image_tokens"]) == ([9], [1764])
    sizes = ("--tiles", 1, "--tiles", 3, "--prompt-tokens", 8, "--prompt-tokens", 16, "--generate", 0)
    several = bluelm("bench", tiny_onnx, *sizes, "--dry-run", "--json").json()
    assert (several["tiles"], several["workload"]["prompts"]) == ([1, 3], [8, 16])


def test_ops_prints_shares_and_json(bluelm: Run, tiny_onnx: Path) -> None:
    sizes = ("--prompt-tokens", 24, "--generate", 2, "--threads", 1)
    done = bluelm("bench", "ops", tiny_onnx, *sizes)
    assert done.code == 0, done.err
    assert "products" in done.out and "outside" in done.out and "GroupQueryAttention" in done.out
    table = bluelm("bench", "ops", tiny_onnx, *sizes, "--json").json()
    assert [part["part"] for part in table["parts"]] == ["encode", "prefill", "decode"]
    assert {"part", "role", "op", "calls", "seconds", "share"} == set(table["rows"][0])


def test_several_models_cannot_be_profiled_at_once(bluelm: Run) -> None:
    done = bluelm("bench", "ops", "--preset", "tiny", "--set", "policy=[mix, paper]")
    assert done.code == 2 and "One model is profiled at a time" in done.err


def test_neither_speed_nor_accuracy_of_an_exported_model_imports_torch(tiny_onnx: Path, corpus: Path) -> None:
    lines = [["bench", str(tiny_onnx), *map(str, QUICK)], ["bench", "eval", str(tiny_onnx), "--data", str(corpus)]]
    code = f"""
import sys
from bluelm_cli.app import main
for words in {lines!r}:
    try:
        main(words)
    except SystemExit as stop:
        assert not stop.code, stop.code
print(sorted({{"torch", "transformers", "onnx", "compressed_tensors"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_eval_and_table(bluelm: Run, tiny_onnx: Path, corpus: Path, tmp_path: Path) -> None:
    out, speed = tmp_path / "eval", tmp_path / "speed"
    done = bluelm("bench", "eval", tiny_onnx, "--data", corpus, "--max-tokens", 4, "--out", out, "--json")
    assert done.code == 0, done.err
    result = done.json()
    assert result["model"]["kind"] == "onnx" and result["total"]["questions"] == 1
    assert result["tasks"]["colour"]["baseline"] == 1.0 and result["seconds"] > 0
    again = bluelm("bench", "eval", tiny_onnx, "--data", corpus, "--max-tokens", 4, "--out", out)
    assert again.code == 0 and "up to date" in again.err and "question only" in again.out
    assert bluelm("bench", tiny_onnx, *QUICK, "--out", speed).code == 0
    table = bluelm("bench", "table", out, speed, "--json").json()
    assert [row["form"] for row in table["rows"]] == ["exported", "question only"]
    assert table["rows"][0]["decode_tok_s"] > 0 and table["rows"][0]["bytes"] > 1000
    shown = bluelm("bench", "table", out, speed).out
    assert "100.0 %" in shown and "decode tok/s" in shown


@pytest.mark.parametrize(
    ("words", "beats"),
    [
        (("bench", "CORPUS"), ("is of kind corpus", "needs an artifact of kind onnx", "bluelm export")),
        (("bench", "eval", "CORPUS", "--data", "CORPUS"), ("is of kind corpus", "checkpoint or quantized or onnx")),
        (("bench", "eval", "MODEL", "--data", "MODEL"), ("is of kind onnx", "kind corpus", "bluelm data render")),
        (("bench", "table", "MODEL", "CORPUS"), ("2 problems", "is of kind onnx", "is of kind corpus")),
        (("bench", "nowhere/model"), ("nowhere/model does not exist",)),
        (("bench", "tabel", "x"), ("Did you mean 'table'?",)),
        (("bench", "MODEL", "--generate", "4000"), ("leaves no room", "at most 2047")),
        (("bench", "MODEL", "--chunk", "0"), ("chunk.0", "greater than or equal to 1")),
        (("bench", "eval", "MODEL", "--data", "CORPUS", "--split", "test"), ("test.json does not exist", "heldout")),
        (("bench", "eval", "MODEL", "--data", "CORPUS", "--task", "x"), ("no question has", "Tasks here: colour")),
        (("bench", "--preset", "bluelm-3b"), ("no preset 'bluelm-3b'", "bluelm-v-3b")),
        (("bench", "--preset", "tiny", "--policy", "int4"), ("policy.0", "'paper', 'mix', 'int8' or 'float'")),
        (("bench", "MODEL", "--policy", "mix"), ("--policy was given without --preset", "only random weights")),
        (("bench", "MODEL", "--tiles", "2", "--image", "CORPUS"), ("Both --image", "--tiles 2", "one of them")),
        (("bench", "MODEL", "--tiles", "0"), ("tiles.0", "greater than or equal to 1")),
        (("bench", "ops", "CORPUS"), ("is of kind corpus", "needs an artifact of kind onnx")),
        (("bench", "ops", "nowhere/model"), ("nowhere/model does not exist",)),
        (("bench", "ops", "MODEL", "--generate", "0"), ("generate", "greater than or equal to 1")),
        (("bench", "ops", "--preset", "bluelm-3b"), ("no preset 'bluelm-3b'", "bluelm-v-3b")),
    ],
)
def test_what_the_user_can_mend_is_told_in_three_beats(
    bluelm: Run, tiny_onnx: Path, corpus: Path, words: tuple[str, ...], beats: tuple[str, ...]
) -> None:
    paths = {"CORPUS": corpus, "MODEL": tiny_onnx}
    done = bluelm(*[paths.get(word, word) for word in words])
    assert done.code == 2 and done.out == ""
    assert all(beat.casefold() in done.err.casefold() for beat in beats), done.err
    assert "Why:" in done.err and "Fix:" in done.err and "Traceback" not in done.err


@pytest.mark.parametrize(
    "words",
    [
        ("bench",),
        *(("bench", name) for name in ("run", "ops", "eval", "table", "fig5", "fig7", "fig8", "table5")),
        *(("bench", name) for name in ("tune", "compare", "paper", "schema")),
    ],
)
def test_help_shows_an_example(bluelm: Run, words: tuple[str, ...]) -> None:
    done = bluelm(*words, "--help")
    assert done.code == 0 and "Example: bluelm bench" in done.out
