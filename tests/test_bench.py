"""Speed and accuracy on tiny models with random weights: what is measured and written, never how long it took."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stages import bench, bench_eval
from stages.artifacts.errors import ArtifactError, ImageError, ModelError, RecipeError, UsageError
from stages.artifacts.events import Finished, Notice, Progress, result_of
from stages.artifacts.folder import ArtifactSpec, create, open_artifact
from stages.artifacts.recipes import load_config
from stages.bench import BenchConfig
from stages.bench_eval import EvalConfig
from stages.device.runtime.sessions import Graph
from stages.evaluate.closing_table import closing_table
from stages.measure.bench_job import stage_of_peak
from stages.measure.random_models import random_model

QUICK = {"prompt_tokens": (40,), "generate": 3, "runs": 2, "warmup": 1, "threads": 1, "ceilings": False}
TEXTS = ("Which colour is it?", "Which shape?", "red blue green circle square star") * 3


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint artifact of one layer each, random weights, with its processor."""
    import torch

    from stages.device.imaging.presets import ImagingPreset
    from stages.device.imaging.spec import TilingSpec
    from stages.workshop.model.checkpoint import save_checkpoint
    from stages.workshop.model.image_processing import BlueLMVImageProcessor
    from stages.workshop.model.presets import build_model, preset_config
    from stages.workshop.model.processing import BlueLMVProcessor
    from stages.workshop.model.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(TEXTS, vocab_size=300)
    config = preset_config(
        "tiny",
        vocab_size=len(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        text_layers=1,
        vision_layers=1,
    )
    # An odd grid of 7×7 patches, as so400m/14-384 has one of 27×27.
    imaging = ImagingPreset(TilingSpec(tile_size=112, tokens_per_tile=16), patch_size=16)
    config.vision_config.image_size, config.vision_config.patch_size = 112, 16
    model = build_model(config, seed=1)
    with torch.no_grad():
        # As initialised, a tied head only repeats its input; larger layers make answers depend on the picture.
        for weight in model.parameters():
            if weight.ndim == 2 and weight is not model.get_input_embeddings().weight:
                weight.mul_(4)
    processor = BlueLMVProcessor(BlueLMVImageProcessor.from_preset(imaging), tokenizer)
    out = tmp_path_factory.mktemp("models") / "float"
    with create(out, ArtifactSpec(kind="checkpoint", stage="finetune", config={})) as draft:
        save_checkpoint(model, processor, draft.path)
    return out


@pytest.fixture(scope="module")
def exported(checkpoint: Path) -> Path:
    """The same model as graphs."""
    from stages.export import ExportConfig
    from stages.export import run as export

    out = checkpoint.with_name("onnx")
    result_of(export(ExportConfig(verify=False), checkpoint, out))
    return out


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures, of one tile and of several, with questions of two tasks."""
    import numpy as np
    from PIL import Image

    def row(name: int, image: int, question: str, answer: str, task: str) -> dict[str, Any]:
        turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
        return {"id": str(name), "image": f"images/{image}.png", "task": task, "conversations": turns}

    colour, shape = "Which colour is it?", "Which shape?"
    heldout = [
        row(0, 0, colour, "red", "colour"),
        row(1, 1, colour, "blue", "colour"),
        row(2, 0, shape, "circle", "shape"),
        row(3, 2, shape, "star", "shape"),
        row(4, 2, colour, "green", "colour"),
    ]
    out = tmp_path_factory.mktemp("data") / "corpus"
    with create(out, ArtifactSpec(kind="corpus", stage="data", config={})) as draft:
        (draft.path / "images").mkdir()
        for number, size in enumerate([(100, 100), (120, 90), (200, 420)]):
            noise = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(noise).save(draft.path / "images" / f"{number}.png")
        (draft.path / "train.json").write_text(json.dumps([row(9, 0, colour, "blue", "colour")]), encoding="utf-8")
        (draft.path / "heldout.json").write_text(json.dumps(heldout), encoding="utf-8")
    return out


def test_every_test_has_a_row_for_each_size(exported: Path) -> None:
    config = BenchConfig(chunk=(16, 40), tiles_per_batch=(1, 4), **QUICK)
    summary = result_of(bench.run(config, exported)).as_dict()
    rows = summary["rows"]
    assert [(row["test"], row["chunk"], row["tiles_per_batch"]) for row in rows] == [
        ("load", None, None),
        ("encode", None, 1),
        ("encode", None, 4),
        ("prefill", 16, None),
        ("prefill", 40, None),
        ("decode", 16, None),
        ("decode", 40, None),
    ]
    for row in rows:
        assert len(row["samples_s"]) == 2 and row["seconds"] > 0 and row["threads"] == 1
        assert (row["samples_ts"] is None) == (row["test"] == "load")
        assert (row["kv"] == "float32") == (row["test"] in ("prefill", "decode"))
    encode, prefill, decode = rows[1], rows[3], rows[5]
    # 1080×2400 is 2:4, 9 tiles of 16 tokens.
    assert (encode["tiles"], encode["n_prompt"]) == (9, 144)
    assert encode["ms_per_tile"] == pytest.approx(1000 * encode["seconds"] / 9)
    assert (prefill["n_prompt"], prefill["n_gen"], decode["n_prompt"], decode["n_gen"]) == (40, None, 40, 3)
    assert prefill["samples_ts"] == pytest.approx([40 / seconds for seconds in prefill["samples_s"]])
    assert summary["peak_rss_mb"] > 10
    json.dumps(summary, allow_nan=False)


def test_sizes_are_run_in_turns(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stages.device.runtime.decoder import Decoder

    chunks: list[int] = []
    plain = Decoder.prefill

    def watched(self: Decoder, embeds: Any, chunk: int = 128) -> Any:
        if len(embeds) > 1:
            chunks.append(chunk)
        return plain(self, embeds, chunk)

    monkeypatch.setattr(Decoder, "prefill", watched)
    result_of(bench.run(BenchConfig(chunk=(8, 16, 8), **QUICK), exported))
    assert chunks == [8, 16] * 3


def test_vision_is_freed_before_the_prompt_is_read(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stages.device.runtime.decoder import Decoder
    from stages.device.runtime.encoder import ImageEncoder

    encoders: list[ImageEncoder] = []
    held: list[bool] = []
    load, prefill = ImageEncoder.load, Decoder.prefill

    def watched_load(self: ImageEncoder) -> None:
        encoders.append(self)
        load(self)

    def watched_prefill(self: Decoder, *args: Any, **more: Any) -> Any:
        held.append(encoders[-1].loaded)
        return prefill(self, *args, **more)

    monkeypatch.setattr(ImageEncoder, "load", watched_load)
    monkeypatch.setattr(Decoder, "prefill", watched_prefill)
    result_of(bench.run(BenchConfig(**QUICK), exported))
    assert held and not any(held)


def test_progress_counts_every_run(exported: Path) -> None:
    events = list(bench.run(BenchConfig(chunk=(8, 16), **QUICK), exported))
    steps = [event for event in events if isinstance(event, Progress)]
    # Load, one batch size and two chunks, each one warm-up and two runs.
    assert [step.done for step in steps] == list(range(1, 13)) and {step.total for step in steps} == {12}
    assert isinstance(events[-1], Finished)


def test_the_prompt_is_bounded_by_the_context(exported: Path) -> None:
    config = BenchConfig(**{**QUICK, "prompt_tokens": (5000,), "runs": 1, "warmup": 0})
    events = list(bench.run(config, exported))
    notices = [event.text for event in events if isinstance(event, Notice)]
    assert any("holds 2048 tokens: prefill is measured with 2045 instead of 5000" in text for text in notices)
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert {row["n_prompt"] for row in finished.result.rows if row["test"] == "prefill"} == {2045}


def test_a_smaller_model_does_not_claim_the_peak_of_the_one_before() -> None:
    assert stage_of_peak([("encode", 900.0), ("load", 905.0)]) == "encode"
    assert stage_of_peak([("encode", 900.0), ("text", 1200.0), ("load", 1201.0)]) == "text"


def test_a_picture_is_measured_in_its_own_tiling(exported: Path, corpus: Path) -> None:
    plan = bench.plan(BenchConfig(**QUICK), exported, corpus / "images/2.png")
    summary = result_of(bench.run(BenchConfig(**QUICK), exported, corpus / "images/2.png"))
    assert plan.tiles == (summary.rows[1]["tiles"],) == (9,)
    assert bench.plan(BenchConfig(**QUICK), exported, corpus / "images/0.png").tiles == (1,)


def test_the_artifact_is_written_and_found_up_to_date(exported: Path, tmp_path: Path) -> None:
    out, config = tmp_path / "speed", BenchConfig(**QUICK)
    first = result_of(bench.run(config, exported, out=out))
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines == list(json.loads(json.dumps(first.rows)))
    manifest = open_artifact(out, "bench").manifest
    assert manifest is not None and manifest.parents[0].digest == open_artifact(exported, "onnx").digest
    events = list(bench.run(config, exported, out=out))
    assert [type(event) for event in events] == [Notice, Finished]
    assert events[-1].result.as_dict() == json.loads(json.dumps(first.as_dict()))  # type: ignore[union-attr]
    with pytest.raises(ArtifactError, match="generate is 3, not 4"):
        result_of(bench.run(config.model_copy(update={"generate": 4}), exported, out=out))


def test_random_weights_are_built_elsewhere_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    config = BenchConfig(preset="tiny", layers=1, **QUICK)
    summary = result_of(bench.run(config, None))
    assert {row["model"] for row in summary.rows} == {"tiny (layers: 1)"}
    assert {row["kv"] for row in summary.rows if row["test"] == "decode"} == {"int8"}
    assert list(tmp_path.iterdir()) == []


def test_random_weights_that_cannot_be_written_are_our_users_to_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(ModelError, match="could not be written"), random_model(BenchConfig(preset="tiny")):
        pass


@pytest.mark.parametrize(
    ("values", "model", "what"),
    [
        ({"preset": "tiny"}, Path("m"), "Both the model m and --preset tiny"),
        ({"layers": 2}, Path("m"), "--layers was given without --preset"),
        ({"vision_layers": 2}, None, "--vision-layers was given without --preset"),
        ({"preset": "tinny"}, None, "no preset 'tinny'"),
        ({"policy": ("mix",)}, Path("m"), "--policy was given without --preset"),
    ],
)
def test_flags_that_contradict_each_other(values: dict[str, Any], model: Path | None, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        bench.plan(BenchConfig(**values), model, None)
    assert what in caught.value.what


@pytest.mark.parametrize(
    "flags",
    [
        *({"chunk": [0]}, {"chunk": []}, {"runs": 0}, {"tiles_per_batch": [-1]}, {"kv": "int4"}),
        *({"prompt_tokens": []}, {"prompt_tokens": [0]}, {"tiles": [0]}, {"generate": -1}, {"policy": ["int4"]}),
    ],
)
def test_sizes_out_of_range_are_refused(flags: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        load_config(BenchConfig, flags=flags)


def test_a_broken_picture_is_found_before_anything_is_loaded(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ImageError):
        result_of(bench.run(BenchConfig(**QUICK), exported, tmp_path / "broken.png"))


def ask(model: Path, corpus: Path, **values: Any) -> bench_eval.EvalResult:
    return result_of(bench_eval.run(EvalConfig(max_tokens=6, threads=1, **values), model, corpus))


def answers_of(model: Path, corpus: Path, out: Path, **values: Any) -> list[str]:
    result_of(bench_eval.run(EvalConfig(max_tokens=6, threads=1, **values), model, corpus, out))
    lines = (out / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["answer"] for line in lines]


def test_the_exported_model_answers_as_the_float_one(
    checkpoint: Path, exported: Path, corpus: Path, tmp_path: Path
) -> None:
    in_torch = answers_of(checkpoint, corpus, tmp_path / "float")
    one_by_one = answers_of(checkpoint, corpus, tmp_path / "single", batch=1)
    on_device = answers_of(exported, corpus, tmp_path / "onnx")
    assert len(in_torch) == 5 and len(set(in_torch)) > 1
    assert in_torch == one_by_one == on_device
    first, second = (bench_eval.read_report(tmp_path / name) for name in ("float", "onnx"))
    assert first.tokens == second.tokens and first.data == second.data
    # 100×100 is one tile of 16 tokens, 120×90 is 2:1 and a thumbnail, 200×420 is 2:4 and one.
    assert first.tokens.image == 16 * (1 + 3 + 1 + 9 + 9)
    table = closing_table([tmp_path / "float", tmp_path / "onnx"])
    assert [row.form for row in table.rows] == ["float", "exported", "question only"] and table.warnings == ()
    assert table.rows[0].seconds is not None and table.rows[0].bytes is not None
    assert table.rows[2].tasks == {"colour": pytest.approx(1 / 3), "shape": 0.0}


def test_evaluating_twice_gives_the_same_bytes(exported: Path, corpus: Path, tmp_path: Path) -> None:
    answers_of(exported, corpus, tmp_path / "a")
    answers_of(exported, corpus, tmp_path / "b")
    assert open_artifact(tmp_path / "a", "bench").digest == open_artifact(tmp_path / "b", "bench").digest
    events = list(bench_eval.run(EvalConfig(max_tokens=6, threads=2), exported, corpus, tmp_path / "a"))
    assert [type(event) for event in events] == [Notice, Finished]


def test_tasks_and_limit_choose_questions(exported: Path, corpus: Path) -> None:
    assert ask(exported, corpus, task=("shape",)).report.total.questions == 2
    assert ask(exported, corpus, limit=2).report.total.questions == 2
    plan = bench_eval.plan(EvalConfig(task=("colour",)), exported, corpus)
    assert (plan.kind, plan.questions, plan.pictures, plan.tasks) == ("onnx", 3, 3, {"colour": 3})
    with pytest.raises(UsageError, match="Tasks here: colour, shape"):
        ask(exported, corpus, task=("shapes",))


def test_a_corpus_without_questions_or_training_is_said(exported: Path, tmp_path: Path) -> None:
    out = tmp_path / "empty"
    with create(out, ArtifactSpec(kind="corpus", stage="data", config={})) as draft:
        (draft.path / "heldout.json").write_text("[]", encoding="utf-8")
    events = list(bench_eval.run(EvalConfig(), exported, out))
    notices = [event.text for event in events if isinstance(event, Notice)]
    assert "no question in heldout" in notices[0] and "no train.json" in notices[1]
    finished = events[-1]
    assert isinstance(finished, Finished) and finished.result.report.total.accuracy is None


def test_the_graphs_are_let_go_when_an_answer_fails(
    exported: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stages.device.runtime.engine import Engine

    closed: list[bool] = []
    close = Engine.close
    monkeypatch.setattr(Engine, "close", lambda self: (closed.append(True), close(self))[1])

    def fail(*_: Any, **__: Any) -> Iterator[Any]:
        raise ModelError("a", "b", "c")
        yield

    monkeypatch.setattr(Engine, "answer", fail)
    with pytest.raises(ModelError):
        ask(exported, corpus)
    assert closed == [True]


def test_damaged_graphs_are_named(exported: Path, tmp_path: Path) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(exported, broken)
    size = (broken / "decoder.onnx").stat().st_size
    (broken / "decoder.onnx").write_bytes(b"\0" * size)
    with pytest.raises(ModelError, match="onnxruntime cannot open it"):
        result_of(bench.run(BenchConfig(**QUICK), broken))
    assert Graph(exported / "decoder.onnx", 1).inputs
