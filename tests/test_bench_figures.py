"""The paper's figures, Table 5 and tuning on tiny models: what is run, written and used; never how long it took."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages import bench_fig5, bench_fig7, bench_fig8, bench_table5, bench_tune
from stages.artifacts.errors import ArtifactError, ModelError, UsageError
from stages.artifacts.events import Notice, result_of
from stages.artifacts.folder import open_artifact
from stages.bench_fig5 import Fig5Config
from stages.bench_fig7 import Fig7Config
from stages.bench_fig8 import Fig8Config
from stages.bench_table5 import Table5Config
from stages.bench_tune import TuneConfig
from stages.device.contract.device_config import read_device_config
from stages.device.runtime.tuned import TunedProfile, TunedSettings, find_profile, machine_key, profile_place
from stages.measure.llama_peer import llama_shape
from stages.measure.random_models import BenchModel
from stages.measure.record_files import read_records

Run = Callable[..., Any]
QUICK: dict[str, Any] = {"runs": 2, "warmup": 0, "threads": 1, "cache": False}
FILES = {"artifact.json", "run.json", "results.jsonl", "bench.json", "report.html"}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Charts that would be drawn as PNG: matplotlib takes seconds, and has tests of its own."""
    charts: list[Any] = []
    monkeypatch.setattr("stages.measure.bench_report.write_png", lambda _, chart: charts.append(chart))
    return charts


def test_fig5_runs_both_ways_and_shows_what_ran_when(tiny_onnx: Path, tmp_path: Path, drawn: list[Any]) -> None:
    out = tmp_path / "fig5"
    config = Fig5Config(tiles=5, tiles_per_batch=2, generate=2, **QUICK)
    summary = result_of(bench_fig5.run(config, tiny_onnx, out))
    encodes = {one.pipeline: one for one in read_records(out) if one.test == "encode"}
    assert set(encodes) == {True, False} and encodes[True].run == encodes[False].run
    # 5 tiles of 16 tokens and a question.
    assert {one.n_prompt for one in read_records(out) if one.test == "prefill"} == {5 * 16 + 32}
    (chart,) = drawn
    lanes = {(lane.group, lane.label): lane.spans for lane in chart.lanes}
    over, after = "overlapped (the pipeline)", "one after the other"
    assert [span.label for span in lanes[over, "ViT blocks"]] == ["1", "2", "3"]
    assert [span.label for span in lanes[over, "language model"]] == ["prefill", "2 tokens"]
    # One after the other: each batch's patches end before its blocks begin, and those before the next patches.
    patches, blocks = lanes[after, "patch embedding"], lanes[after, "ViT blocks"]
    edges = [edge for pair in zip(patches, blocks, strict=True) for span in pair for edge in (span.start, span.end)]
    assert edges == sorted(edges)
    assert {row["quantity"] for row in summary.paper} >= {"ViT blocks", "picture to image tokens"}
    assert summary.findings[0]["verdict"] == "undecided" and "Too few" in summary.findings[0]["sentence"]
    assert {file.name for file in out.iterdir()} == {*FILES, "fig5.svg"}


def test_fig7_runs_every_batch_and_loads_no_language_model(tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("no language model is needed")

    monkeypatch.setattr("stages.measure.device_cases.load_language", refuse)
    summary = result_of(bench_fig7.run(Fig7Config(tiles=5, **QUICK), tiny_onnx))
    assert [(row["test"], row["tiles_per_batch"], row["tiles"]) for row in summary.rows] == [
        ("encode", batch, 5) for batch in (1, 2, 4, 6)
    ]
    assert summary.paper[-1]["quantity"] == "fastest, by the median" and summary.paper[-1]["paper"] == 4
    assert set(summary.findings[0]["ratios"]) == {"1 tile per batch", "2 tiles per batch", "6 tiles per batch"}


def test_fig8_runs_every_chunk_and_loads_no_tower(tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stages.device.runtime.encoder import ImageEncoder

    def refuse(_: ImageEncoder) -> None:
        raise AssertionError("no tower is needed")

    monkeypatch.setattr(ImageEncoder, "load", refuse)
    config = Fig8Config(prompt_tokens=40, chunk=(8, 128), generate=2, **QUICK)
    summary = result_of(bench_fig8.run(config, tiny_onnx))
    assert [(row["test"], row["chunk"], row["n_prompt"]) for row in summary.rows] == [
        *(("prefill", chunk, 40) for chunk in (8, 128)),
        *(("decode", chunk, 40) for chunk in (8, 128)),
    ]
    assert [finding["section"] for finding in summary.findings] == ["5.3, Fig. 8"] * 2
    none = result_of(bench_fig8.run(config.model_copy(update={"generate": 0}), tiny_onnx))
    assert len(none.findings) == 1


PRETENDER = """#!{python}
import json, sys
from pathlib import Path
if sys.argv[1].endswith("write_gguf.py"):
    Path(sys.argv[2]).write_text(sys.argv[3])
    sys.exit(0)
sys.path.insert(0, str(Path(sys.argv[1]).parent))
from worker import answers, serve
stream = answers()
half = lambda case: {{"seconds": 0.5}}
serve(stream, (), {{"prefill": half, "decode": half}})
"""


def test_table5_measures_llama_cpp_in_turns_on_the_same_shape(
    tmp_path: Path, drawn: list[Any], project_root: Path
) -> None:
    pretender = tmp_path / "python"
    pretender.write_text(PRETENDER.format(python=sys.executable), encoding="utf-8")
    pretender.chmod(0o755)
    config, out = Table5Config(prompt_tokens=16, generate=2, **QUICK), tmp_path / "table5"
    demo = project_root / "recipes" / "demo"
    summary = result_of(bench_table5.run(config, demo, out, keep=tmp_path / "kept", llama=pretender))
    records = read_records(out)
    assert [(one.engine, one.test) for one in records] == [
        *(("bluelm", test) for test in ("load", "encode", "prefill", "decode")),
        *(("llama.cpp", test) for test in ("prefill", "decode")),
    ]
    theirs = records[-1]
    assert (theirs.samples_s, theirs.n_prompt, theirs.n_gen, theirs.tok_s) == ((0.5, 0.5), 16, 2, 4.0)
    assert theirs.run == records[0].run and theirs.peak_rss_mb and theirs.versions
    device = read_device_config(demo).decoder
    (written,) = (tmp_path / "kept").glob("*.gguf")
    shape = json.loads(written.read_text(encoding="utf-8"))
    assert shape == llama_shape(BenchModel(demo, read_device_config(demo), None))
    assert (shape["hidden"], shape["layers"], shape["vocab"]) == (
        device.hidden_size,
        device.num_layers,
        device.vocab_size,
    )
    assert len(summary.findings) == 2 and all("llama.cpp" in found["sentence"] for found in summary.findings)
    (chart,) = drawn
    assert [panel.title for panel in chart.panels] == [
        *("Loading", "Picture to image tokens", "Reading the prompt", "Writing", "Peak memory"),
    ]
    assert [bar.label for bar in chart.panels[2].bars] == ["ours", "llama.cpp", "the paper's phone, 3B"]


def test_table5_says_that_llama_cpp_is_left_out(tiny_onnx: Path) -> None:
    config = Table5Config(prompt_tokens=16, generate=1, tiles=1, **{**QUICK, "runs": 1})
    events = list(bench_table5.run(config, tiny_onnx))
    assert any(isinstance(event, Notice) and "BLUELM_PEER_LLAMA_PYTHON" in event.text for event in events)


def test_an_environment_without_llama_cpp_is_told(tmp_path: Path, project_root: Path) -> None:
    config = Table5Config(prompt_tokens=16, generate=1, tiles=1, **{**QUICK, "runs": 1})
    demo = project_root / "recipes" / "demo"
    with pytest.raises(ModelError, match="cannot be run"):
        result_of(bench_table5.run(config, demo, llama=tmp_path / "nowhere"))
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no gguf here >&2\nexit 3\n", encoding="utf-8")
    broken.chmod(0o755)
    with pytest.raises(ModelError, match="no gguf here"):
        result_of(bench_table5.run(config, demo, llama=broken))


SMALL = TuneConfig(
    tiles=1, tiles_per_batch=(2,), chunk=(8,), prompt_tokens=9, generate=1, runs=1, warmup=0, cache=False
)


def test_tune_writes_a_profile_for_this_model_on_this_machine(tiny_onnx: Path, tmp_path: Path) -> None:
    found = result_of(bench_tune.run(SMALL.model_copy(update={"try_threads": (1,)}), tiny_onnx, variants=[tiny_onnx]))
    digest = open_artifact(tiny_onnx, "onnx").digest
    assert found.place == profile_place(digest) and find_profile(digest) == found.profile
    # One run proves nothing: everything stays as it was, and it is said why.
    assert found.profile.settings == TunedSettings()
    assert len(found.profile.reasons) == 4 == len(found.summary.advice)
    assert {(one["threads"]) for one in found.summary.rows} >= {1}
    assert find_profile("another") is None


def test_a_profile_of_another_machine_is_not_found(tiny_onnx: Path) -> None:
    digest = open_artifact(tiny_onnx, "onnx").digest
    place = profile_place(digest)
    assert place is not None
    about: dict[str, Any] = {"model": "m", "model_digest": digest, "made_on": {"cpu": "x"}}
    TunedProfile(machine="other", settings=TunedSettings(chunk=9), **about).write(place)
    assert find_profile(digest) is None
    TunedProfile(machine=machine_key(), settings=TunedSettings(chunk=9), **about).write(place)
    found = find_profile(digest)
    assert found is not None and found.settings.chunk == 9
    place.write_text("{", encoding="utf-8")
    assert find_profile(digest) is None


def test_tune_keeps_its_profile_in_the_folder_it_is_given(tiny_onnx: Path, tmp_path: Path, drawn: list[Any]) -> None:
    out = tmp_path / "tune"
    found = result_of(bench_tune.run(SMALL.model_copy(update={"try_threads": (1,)}), tiny_onnx, out=out))
    assert found.place == out / "profile.json" and (out / "report.html").is_file()
    again = result_of(bench_tune.run(SMALL.model_copy(update={"try_threads": (1,)}), tiny_onnx, out=out))
    assert again.profile == found.profile
    assert find_profile(open_artifact(tiny_onnx, "onnx").digest) is None


@pytest.mark.parametrize(
    ("config", "variants", "what"),
    [
        (SMALL.model_copy(update={"threads": 1}), [], "--threads 1 leaves no threads to choose"),
        (SMALL.model_copy(update={"preset": "tiny"}), ["x"], "--variant was given with --preset"),
    ],
)
def test_what_tune_cannot_try(config: TuneConfig, variants: list[str], what: str, tiny_onnx: Path) -> None:
    with pytest.raises(UsageError) as caught:
        model = None if config.preset else tiny_onnx
        result_of(bench_tune.run(config, model, [Path(name) for name in variants]))
    assert what in caught.value.what


def test_variants_have_one_shape(tiny_onnx: Path, project_root: Path) -> None:
    with pytest.raises(UsageError, match="has another shape"):
        result_of(bench_tune.run(SMALL, tiny_onnx, [project_root / "recipes" / "demo"]))


def test_chat_and_encode_use_a_profile_unless_a_flag_says_otherwise(
    bluelm: Run, tiny_onnx: Path, tmp_path: Path
) -> None:
    from PIL import Image

    Image.new("RGB", (60, 60), "red").save(tmp_path / "a.png")
    words = ("chat", tiny_onnx, "--image", tmp_path / "a.png", "--prompt", "hi", "--max-tokens", 2)
    plain = bluelm(*words, "--json")
    assert plain.code == 0 and "Tuned" not in plain.err
    digest = open_artifact(tiny_onnx, "onnx").digest
    settings = TunedSettings(chunk=7, tiles_per_batch=3, threads=1)
    about: dict[str, Any] = {"model": "m", "model_digest": digest, "made_on": {"cpu": "x"}}
    profile = TunedProfile(machine=machine_key(), settings=settings, **about)
    place = profile_place(digest)
    assert place is not None
    profile.write(place)
    tuned = bluelm(*words, "--json")
    assert "Tuned for this machine: --batch 3, --chunk 7, --threads 1 (by bluelm bench tune)." in tuned.err
    assert tuned.json()["answer"] == plain.json()["answer"]
    assert "--batch 3, --threads 1 (by" in bluelm(*words, "--chunk", 5).err
    assert "--batch 3, --threads 1 (by" in bluelm(*words, "--set", "chunk=5").err
    place.unlink()
    profile.write(tmp_path / "profile.json")
    dry = bluelm("encode", tiny_onnx, tmp_path / "a.png", "--profile", tmp_path, "--dry-run", "--json")
    assert "--batch 3, --threads 1" in dry.err and "--chunk" not in dry.err and dry.json()["batch"] == 3
    moved = TunedProfile(machine="elsewhere", settings=settings, **about)
    moved.write(tmp_path / "profile.json")
    assert "made on another machine: x" in bluelm(*words, "--profile", tmp_path / "profile.json").err
    missing = bluelm(*words, "--profile", tmp_path / "none.json")
    assert missing.code == 2 and "bluelm bench tune MODEL" in missing.err


def test_the_commands_speak(bluelm: Run, tiny_onnx: Path, tmp_path: Path, drawn: list[Any]) -> None:
    quick = ("--runs", 1, "--warmup", 0, "--threads", 1)
    fig7 = bluelm("bench", "fig7", tiny_onnx, "--batch", 1, "--batch", 4, "--tiles", 2, *quick, "--out", tmp_path / "a")
    assert fig7.code == 0 and "too few runs to be sure (1;" in fig7.out and "report.html" in fig7.err
    fig8 = bluelm("bench", "fig8", tiny_onnx, "--prompt-tokens", 9, "--generate", 1, *quick, "--json").json()
    assert fig8["figure"] == "fig8" and len(fig8["findings"]) == 2
    sizes = ("--prompt-tokens", 9, "--generate", 1, "--tiles", 2)
    assert "Peak" in str(bluelm("bench", "table5", tiny_onnx, *sizes, *quick).out).title()
    fig5 = bluelm("bench", "fig5", tiny_onnx, "--generate", 1, "--tiles", 2, *quick, "--json").json()
    assert fig5["figure"] == "fig5"
    tries = ("--runs", 1, "--warmup", 0, "--try-threads", 1, "--chunk", 4, "--batch", 1)
    tuned = bluelm("bench", "tune", tiny_onnx, *sizes, *tries)
    assert tuned.code == 0 and "chat and encode use it" in tuned.out
    compared = bluelm("bench", "compare", tmp_path / "a")
    assert compared.code == 0 and "nothing can be said" in compared.out
    assert "paired" in bluelm("bench", "compare", tmp_path / "a", "--json").json()["rows"][0]
    assert bluelm("bench", "compare", tmp_path / "none").code == 2
    assert "fastest, by the median" in bluelm("bench", "paper", tmp_path / "a").out
    assert "MiniCPM-V 2.5" in bluelm("bench", "paper", "--table", "table5").out
    assert bluelm("bench", "paper", "--table", "table9").code == 2
    assert bluelm("bench", "schema").json()["properties"]["schema"]["const"] == 3


def test_a_damaged_summary_is_told(tmp_path: Path) -> None:
    from stages.measure.summary import read_summary

    (tmp_path / "bench.json").write_text('{"model": "m"}', encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"bench.json cannot be read"):
        read_summary(tmp_path)
