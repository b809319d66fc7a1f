"""What quantization costs: the report's figures are those of `bench agreement`, parts add up, pages say it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.artifacts.events import result_of
from stages.artifacts.recipes import load_config
from stages.evaluate.question_rows import read_rows
from stages.evaluate.questions import read_questions
from stages.quantize import QuantizeConfig, run
from stages.workshop.model.checkpoint import load_checkpoint
from stages.workshop.quant.quantized_folder import QuantizedFolder
from stages.workshop.quant.report import read_report
from stages.workshop.quant.sensitivity import ACTIVATIONS, CACHE, PartlyQuantized
from stages.workshop.quant.teacher_forcing import ForcedReader

KEYS = {"top1_agreement", "kl", "exact_match", "perplexity", "bits_per_weight", "bytes", "parts", "layers", "sentence"}
PARTS = ["connector", "embedding", "head", "language model", "vision tower", CACHE, ACTIVATIONS]


@pytest.fixture(scope="module")
def measured(checkpoint: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The paper's recipe, measured on all six rows, layer by layer."""
    out = tmp_path_factory.mktemp("measured") / "quantized"
    sets = ("measure.sensitivity=layers", "measure.split=train")
    return result_of(run(load_config(QuantizeConfig, "quantize.yaml", sets, {}), checkpoint, corpus, out)).out


def test_the_report_has_what_a_reader_looks_for(measured: Path) -> None:
    report = json.loads((measured / "report.json").read_text())
    assert set(report) >= KEYS
    assert set(report["exact_match"]) >= {"float", "quantized"}
    assert 0 <= report["top1_agreement"] <= 1
    assert report["kl"] > 0
    assert report["bits_per_weight"] == pytest.approx(8 * report["bytes"]["after"] / report["total"]["weights"])
    assert report["bytes"]["after"] == sum(part["bytes_after"] for part in report["parts"])
    fidelity = report["fidelity"]
    assert fidelity["text"]["tokens"] > fidelity["answers"]["tokens"] > 0
    assert report["memory"]["peak_mb"] > report["bytes"]["after"] / 2e6
    assert read_report(measured).as_dict() == report


def test_each_question_of_the_whole_model_is_kept(measured: Path) -> None:
    rows, fidelity = read_rows(measured), read_report(measured).fidelity
    assert fidelity is not None and len(rows) == fidelity.questions == 6
    assert sum(row.tokens for row in rows) == fidelity.answers.tokens
    assert sum(row.kl for row in rows) / fidelity.answers.tokens == pytest.approx(fidelity.answers.kl, rel=1e-12)
    assert sum(row.same for row in rows) / fidelity.answers.tokens == fidelity.answers.top1_agreement
    assert sum(row.second_right for row in rows) / len(rows) == fidelity.exact_match.quantized


def test_its_figures_are_those_of_bench_agreement(bluelm: Any, measured: Path, checkpoint: Path, corpus: Path) -> None:
    report = json.loads((measured / "report.json").read_text())
    words = ("--data", corpus, "--split", "train", "--everywhere", "--json")
    told = bluelm("bench", "agreement", checkpoint, measured, *words).json()
    assert report["kl"] == pytest.approx(told["answers"]["kl"]["value"], rel=1e-6)
    assert report["top1_agreement"] == told["answers"]["top1_agreement"]["value"]
    assert report["fidelity"]["text"]["kl"] == pytest.approx(told["text"]["kl"]["value"], rel=1e-6)
    assert report["exact_match"]["quantized"] == told["exact_match"]["second"]
    assert report["perplexity"]["float"] == pytest.approx(told["answers"]["perplexity"]["first"], rel=1e-9)


def test_each_part_alone_costs_something(measured: Path) -> None:
    rows = {row["part"]: row for row in json.loads((measured / "report.json").read_text())["fidelity"]["sensitivity"]}
    layers = [f"{stem}.layers.{n}" for stem in ("language_model.model", "vision_tower.encoder") for n in (0, 1)]
    assert list(rows) == [*PARTS, *layers]
    assert all(row["kl"] > 0 for row in rows.values())
    # INT16 inputs cost far less than INT4 weights, and a layer less than all of them.
    assert rows[ACTIVATIONS]["kl"] < rows["language model"]["kl"] / 100
    assert max(rows[layer]["kl"] for layer in layers[:2]) < 2 * rows["language model"]["kl"]


def test_parts_take_turns_and_leave_the_model_as_it_was(measured: Path, checkpoint: Path, corpus: Path) -> None:
    model, processor = load_checkpoint(checkpoint)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    source = QuantizedFolder(measured)
    partly = PartlyQuantized(model, source)
    questions = read_questions(corpus, "train")[:1]
    for part in (*partly.parts(), *partly.layers()):
        with partly.only(part) as mode:
            next(ForcedReader(model, processor, mode)(questions))
            changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
        if part == "connector":
            assert changed == {f"multi_modal_projector.linear_{n}.weight" for n in (1, 2)}
        elif part in (CACHE, ACTIVATIONS):
            assert not changed
        elif ".layers." in part:
            assert changed
            assert all(name.startswith(f"{part}.") for name in changed)
        for name in changed:
            module = name.removesuffix(".weight")
            assert source.scheme(module).bits is not None
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model._forward_pre_hooks


def test_the_cache_by_position(measured: Path) -> None:
    rows = json.loads((measured / "report.json").read_text())["fidelity"]["kv_positions"]
    assert [(row["first"], row["last"]) for row in rows] == [(0, 127), (128, 255)]
    # Rounding to 255 steps of the largest value: a per cent or so.
    assert all(1e-3 < row[key] < 0.1 for row in rows for key in ("key_error", "value_error"))


def test_pages_say_the_sentence_and_show_the_figures(measured: Path) -> None:
    report = read_report(measured)
    page = (measured / "report.html").read_text()
    assert (measured / "report.md").read_text().strip() == report.sentence
    assert "first:" in report.sentence
    assert "of the " in report.sentence
    assert report.sentence.split(".")[0] in page
    figures = {path.stem for path in (measured / "figures").glob("*.svg")}
    assert figures == {"bytes", "sensitivity", "sensitivity-layers", "layers", "kv-positions"}
    assert page.count("<svg") == len(figures)


def test_nothing_is_measured_where_that_was_asked(quantized: Path) -> None:
    report = json.loads((quantized / "report.json").read_text())
    assert set(report) >= KEYS
    assert (report["top1_agreement"], report["kl"], report["exact_match"]) == (None, None, None)
    assert "not measured" in report["sentence"]
    assert (quantized / "report.html").is_file()


def test_the_table_says_the_sentence(bluelm: Any, checkpoint: Path, corpus: Path, tmp_path: Path) -> None:
    words = ("--data", corpus, "--out", tmp_path / "q", "--questions", 1, "--sensitivity", "none")
    done = bluelm("quantize", checkpoint, *words, "--activation-budget", 0.005)
    assert done.code == 0, done.err
    report = read_report(tmp_path / "q")
    assert report.fidelity is not None
    assert (report.fidelity.questions, report.fidelity.sensitivity) == (1, ())
    assert " ".join(report.sentence.split()[:6]) in " ".join(done.out.split())
