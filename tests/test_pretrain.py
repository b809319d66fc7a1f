"""`bluelm pretrain` on the command line: a fresh tiny model, its plan, and every wrong way to ask for one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stages.artifacts.folder import ArtifactSpec, create
from stages.workshop.training.stage import RUN_FIGURES

FAST = [
    *("--set", "steps=2", "--set", "warmup_steps=0", "--set", "global_batch=2", "--set", "log_every=1"),
    *("--device", "cpu", "--threads", "1"),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "corpus"
    rows: list[dict[str, Any]] = []
    with create(out, ArtifactSpec(kind="corpus", stage="data", config={})) as draft:
        (draft.path / "images").mkdir()
        for number, colour in enumerate(("red", "lime", "blue", "white")):
            name = f"images/{number}.png"
            Image.new("RGB", (60, 50), colour).save(draft.path / name)
            turns = [{"from": "human", "value": "<image>\nWhich colour?"}, {"from": "gpt", "value": colour}]
            rows.append({"id": str(number), "image": name, "conversations": turns})
        (draft.path / "train.json").write_text(json.dumps(rows))
        (draft.path / "heldout.json").write_text(json.dumps(rows[:1]))
        (draft.path / "index.json").write_text("{}")
    return out


def test_a_fresh_tiny_model_is_trained_and_then_up_to_date(
    bluelm: Callable[..., Any], corpus: Path, tmp_path: Path
) -> None:
    out = tmp_path / "stage1"
    words = ["pretrain", "--data", corpus, "--recipe", "tiny/pretrain.yaml", "--out", out, *FAST, "--json"]
    first = bluelm(*words)
    assert first.code == 0, first.err
    told = first.json()
    assert told["up_to_date"] is False
    assert told["steps"] == 2
    assert told["data"] == {
        "samples": 4,
        "tokens": told["data"]["tokens"],
        "answer_tokens": told["data"]["answer_tokens"],
        "tiles": 4,
        "cut": 0,
        "shrunk": 0,
        "left_out": 0,
    }
    manifest = json.loads((out / "artifact.json").read_text())
    assert (manifest["kind"], manifest["stage"], manifest["config"]["preset"]) == ("checkpoint", "pretrain", "tiny")
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "training.json"} <= set(
        manifest["files"]
    )
    again = bluelm(*words)
    assert again.code == 0
    assert again.json() == {**told, "up_to_date": True, **dict.fromkeys(RUN_FIGURES)}
    assert "up to date" in again.err
    table = bluelm(*words[:-1])
    assert "not run: up to date" in table.out


def test_the_papers_recipe_plans_to_train_the_connector_alone(bluelm: Callable[..., Any], corpus: Path) -> None:
    words = ["pretrain", "--data", corpus, "--preset", "tiny", "--set", "sequence_length=2048", "--dry-run"]
    plan = bluelm(*words, "--json").json()
    parts = plan["parts"]
    assert {part: found["trained"] > 0 for part, found in parts.items()} == {
        "vision_tower": False,
        "multi_modal_projector": True,
        "language_model": False,
    }
    trained = parts["multi_modal_projector"]["trained"]
    assert parts["multi_modal_projector"]["parameters"] == trained
    assert sum(group["parameters"] for group in plan["groups"]) == trained
    assert {group["learning_rate"] for group in plan["groups"]} == {1e-3}
    assert (plan["steps"], plan["global_batch"], plan["samples_per_device"]) == (3434, 720, 720)
    assert plan["tiles_per_step"] == 720
    assert plan["passes_over_the_data"] == 3434 * 720 / 4
    total = sum(found["parameters"] for found in parts.values())
    assert plan["memory"]["weights"] == 4 * total
    assert (plan["memory"]["gradients"], plan["memory"]["optimizer"]) == (4 * trained, 8 * trained)
    table = bluelm(*words)
    assert table.code == 0
    assert "720 = 720 a device × 1 passes × 1 processes" in table.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "A model to start from: none of them given"),
        (("--preset", "tiny", "--from", "x"), "--from and preset given"),
        (("--vision", "x"), "--vision given"),
        (("--preset", "tinny"), "Did you mean tiny"),
        (("--from", "nowhere"), "nowhere does not exist"),
        (("--preset", "tiny", "--set", "steps=0"), "steps: Input should be greater than or equal to 1"),
        (("--preset", "tiny", "--set", "stepz=1"), "Did you mean 'steps'"),
        (("--preset", "tiny", "--recipe", "tiny/pretrian.yaml"), "There is no recipe tiny/pretrian.yaml"),
        (("--preset", "tiny", "--dtype", "float16"), "dtype"),
        (("--preset", "tiny", "--device", "npu"), "--device is 'npu'"),
        (("--preset", "tiny"), "the language model has 2048 positions"),
        (("--preset", "tiny", "--tiles", "nowhere"), "nowhere does not exist"),
    ],
)
def test_wrong_ways_to_ask(
    words: tuple[str, ...], message: str, bluelm: Callable[..., Any], corpus: Path, tmp_path: Path
) -> None:
    done = bluelm("pretrain", "--data", corpus, "--out", tmp_path / "out", *words)
    assert done.code == 2
    assert message in done.err
    assert "Why:" in done.err
    assert "Fix:" in done.err
    assert "Traceback" not in done.err
    assert done.out == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [(), ("--set", "streaming=true")])
def test_a_dry_run_refuses_what_training_would(
    words: tuple[str, ...], bluelm: Callable[..., Any], corpus: Path
) -> None:
    common = ["pretrain", "--preset", "tiny", "--recipe", "tiny/pretrain.yaml", "--dry-run", *words]
    done = bluelm(*common, "--data", corpus, "--eval-data", "nowhere")
    assert (done.code, done.out) == (2, "")
    assert "nowhere cannot be read" in done.err


def test_out_is_needed_unless_nothing_is_run(bluelm: Callable[..., Any], corpus: Path) -> None:
    done = bluelm("pretrain", "--data", corpus, "--recipe", "tiny/pretrain.yaml")
    assert done.code == 2
    assert "--out is missing" in done.err


def test_wrong_kinds_are_named_together(bluelm: Callable[..., Any], corpus: Path, tmp_path: Path) -> None:
    done = bluelm("pretrain", "--data", tmp_path, "--from", corpus, "--out", tmp_path / "out")
    assert done.code == 2
    assert "2 problems" in done.err
    assert "is of kind corpus" in done.err
    assert "bluelm data render" in done.err


def test_an_empty_corpus_says_so(bluelm: Callable[..., Any], tmp_path: Path) -> None:
    with create(tmp_path / "empty", ArtifactSpec(kind="corpus", stage="data", config={})) as draft:
        (draft.path / "train.json").write_text("[]")
    done = bluelm("pretrain", "--data", tmp_path / "empty", "--recipe", "tiny/pretrain.yaml", "--out", tmp_path / "out")
    assert done.code == 2
    assert "holds no conversation" in done.err
    assert not (tmp_path / "out").exists()


def test_parts_that_are_not_there_are_named_together(
    bluelm: Callable[..., Any], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is a missing folder, the other a hub name without a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    parts = ("--vision", "google/siglip-so400m-patch14-384@main", "--llm", tmp_path / "nowhere")
    done = bluelm("pretrain", "--data", corpus, "--out", tmp_path / "out", *parts)
    assert done.code == 2
    assert "2 problems" in done.err
    assert "google/siglip-so400m-patch14-384@main is no folder here, and the hub cannot be reached" in done.err
    assert "hf download" in done.err
    assert "nowhere holds no config.json" in done.err
    assert not (tmp_path / "out").exists()


BOTH = """
import contextlib, io, json, resource, sys
from bluelm_cli.app import main
plans = []
for recipe in ("pretrain.yaml", "finetune.yaml"):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main(["pretrain", "--data", sys.argv[1], "--preset", "bluelm-v-3b", "--recipe", recipe, "--dry-run", "--json"])
    plans.append(json.loads(out.getvalue()))
print(json.dumps({"plans": plans, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
"""


def test_both_recipes_of_the_paper_are_planned_at_its_shape_without_allocating_the_model(corpus: Path) -> None:
    """The weights alone would be 11 GB; stage 2 holds four times that, and its tower is trained layer by layer."""
    done = subprocess.run(
        [sys.executable, "-c", BOTH, str(corpus)], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    first, second = told["plans"]
    total = sum(found["parameters"] for found in first["parts"].values())
    assert total > 2.8e9
    assert told["peak"] < total
    assert first["memory"]["weights"] == second["memory"]["weights"] == 4 * total
    assert (second["memory"]["gradients"], second["memory"]["optimizer"]) == (4 * total, 8 * total)
    for plan in (first, second):
        for held in ("weights", "gradients", "optimizer"):
            assert sum(found["memory"][held] for found in plan["parts"].values()) == plan["memory"][held]
    assert {found["learning_rate"] for found in first["groups"]} == {1e-3}
    # 27 layers: the embeddings at 0.9^27 of the peak.
    rates = [found["learning_rate"] for found in second["groups"]]
    assert (max(rates), min(rates)) == (1e-4, pytest.approx(1e-4 * 0.9**27))
    assert (second["steps"], second["global_batch"], second["accumulation"]) == (131000, 5760, 8)


def test_three_steps_are_measured_and_nothing_is_kept(
    bluelm: Callable[..., Any], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = bluelm(
        *("pretrain", "--data", corpus, "--recipe", "tiny/pretrain.yaml", "--measure", "--json"),
        *("--set", "steps=1000", "--set", "global_batch=2", "--device", "cpu", "--threads", "1"),
    )
    assert done.code == 0, done.err
    plan = done.json()
    measured = plan["measured"]
    assert plan["steps"] == 1000
    assert len(measured["seconds_of_steps"]) == 3
    assert measured["seconds_per_step"] == sorted(measured["seconds_of_steps"])[1]
    assert measured["seconds_of_training"] == pytest.approx(1000 * measured["seconds_per_step"], rel=1e-2)
    assert measured["peak_memory"] > plan["memory"]["weights"]
    assert list(tmp_path.iterdir()) == []
