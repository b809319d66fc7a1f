"""Two models token by token: torch reads as a plain forward pass does, a quantized folder as its export does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from stages.artifacts.events import result_of
from stages.artifacts.folder import ArtifactSpec, create
from stages.device.contract.simulation import SIMULATED
from stages.device.imaging.loading import load_image
from stages.device.prompt.messages import assistant, user
from stages.evaluate.device_reader import exported_reader
from stages.evaluate.questions import Question, read_questions
from stages.export import ExportConfig
from stages.export import run as export
from stages.workshop.model.checkpoint import load_checkpoint
from stages.workshop.quant.kv_cache import check_layers
from stages.workshop.quant.quantized_folder import QuantizedFolder
from stages.workshop.quant.simulation import load_quantized
from stages.workshop.quant.teacher_forcing import SHORTEST_COMPACT, ForcedReader, device_mode

LONG = "What colour is it? " * 24


@pytest.fixture(scope="module")
def questions(corpus: Path) -> list[Question]:
    """Short prompts and long ones, with pictures of two sizes and without, answers of several lengths."""
    known = read_questions(corpus, "train")
    texts = [known[0].text, LONG, known[0].text, LONG, "What colour is it?"]
    truths = ["red", "blue green", "green blue red", "grey", "red red"]
    pictures = [known[0].pictures, known[0].pictures, known[4].pictures, known[4].pictures, ()]
    return [
        Question(str(index), picture, text, truth)
        for index, (picture, text, truth) in enumerate(zip(pictures, texts, truths, strict=True))
    ]


@pytest.fixture(scope="module")
def exported(quantized: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "onnx"
    return result_of(export(ExportConfig(verify=False), quantized, out)).out


def simulated(folder: Path, **more: Any) -> ForcedReader:
    model, processor = load_quantized(folder, exact=True)
    return ForcedReader(model, processor, device_mode(QuantizedFolder(folder), check_layers(model.config)), **more)


def logits_of(readings: Iterable[Any]) -> np.ndarray:
    """All finite logits of all answers in one row."""
    rows = [reading.logits.ravel() for reading in readings]
    return np.concatenate([row[np.isfinite(row)] for row in rows]).astype(np.float64)


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_a_float_reading_is_one_plain_forward_pass(checkpoint: Path, questions: list[Question]) -> None:
    model, processor = load_checkpoint(checkpoint)
    for question, reading in zip(questions, ForcedReader(model, processor, batch=3)(questions), strict=True):
        pictures = [load_image(path) for path in question.pictures]
        sample = processor.encode_chat([user(question.text, len(pictures)), assistant(question.truth)], pictures)
        inputs: dict[str, Any] = {"input_ids": torch.tensor([sample.input_ids])}
        if pictures:
            inputs["pixel_values"] = torch.from_numpy(sample.pixel_values)
        with torch.inference_mode():
            logits = model(**inputs).logits[0]
        ids = np.array(sample.input_ids)
        last = int(np.flatnonzero(np.array(sample.labels) >= 0)[-1])
        places = [place for place in range(last) if ids[place + 1] != model.config.image_token_id]
        np.testing.assert_array_equal(reading.tokens, ids[[place + 1 for place in places]])
        expected_answer = np.array(sample.labels)[[place + 1 for place in places]] >= 0
        np.testing.assert_array_equal(reading.is_answer, expected_answer)
        expected = logits[places].numpy()
        expected[:, model.config.image_token_id] = -np.inf
        np.testing.assert_allclose(reading.logits, expected, rtol=0, atol=2e-5)


def test_batches_and_answers_alone_change_nothing(quantized: Path, questions: list[Question]) -> None:
    whole = list(simulated(quantized, batch=5)(questions))
    alone = list(simulated(quantized, batch=1, answers_only=True)(questions))
    for one, other in zip(whole, alone, strict=True):
        assert other.is_answer.all()
        np.testing.assert_array_equal(one.tokens[one.is_answer], other.tokens)
        np.testing.assert_allclose(one.logits[one.is_answer], other.logits, rtol=0, atol=2e-4)


@pytest.mark.parametrize("recipe", ["int16", "int8"])
def test_the_simulation_is_what_the_export_computes(
    recipe: str, checkpoint: Path, quantize: Callable[..., Path], questions: list[Question], tmp_path: Path
) -> None:
    """Answer by answer, within the tolerance that the contract states; and rounding is no less than that."""
    rules = json.dumps([{"modules": "*", "activations": recipe}])
    folder = quantize(checkpoint, f"activations={rules}")
    out = result_of(export(ExportConfig(verify=False), folder, tmp_path / "onnx")).out
    assert (out / "prefill.json").is_file()
    model, processor = load_quantized(folder, exact=True)
    mode = device_mode(QuantizedFolder(folder), check_layers(model.config))
    lengths = [len(processor.prompts.encode([user(question.text)]).ids) for question in questions]
    assert min(lengths) < SHORTEST_COMPACT < max(lengths)
    with exported_reader(out, threads=1) as reader:
        found = logits_of(reader(questions))
    floats, meant = (
        logits_of(ForcedReader(model, processor, how, answers_only=True)(questions)) for how in (None, mode)
    )
    rounding = relative(meant, floats)
    assert SIMULATED.allows(relative(found, meant), rounding)
    # And the bound is not blind: other ways to round differ by more than it allows.
    assert not SIMULATED.allows(relative(found, floats), rounding)
    for other in (replace(mode, compact=False), replace(mode, new_cache=DynamicCache)):
        wrong = logits_of(ForcedReader(model, processor, other, answers_only=True)(questions))
        assert relative(found, wrong) > 2 * relative(found, meant)


def test_short_prompts_are_simulated_to_rounding_error(
    quantized: Path, exported: Path, questions: list[Question]
) -> None:
    short = [question for question in questions if question.text != LONG]
    with exported_reader(exported, threads=1) as reader:
        found = logits_of(reader(short))
    assert relative(found, logits_of(simulated(quantized, answers_only=True)(short))) < SIMULATED.floats


def test_the_command_compares_any_two(
    bluelm: Any, checkpoint: Path, quantized: Path, exported: Path, corpus: Path, tmp_path: Path
) -> None:
    words = ("--data", corpus, "--split", "train", "--json")
    same = bluelm("bench", "agreement", checkpoint, checkpoint, *words, "--everywhere").json()
    assert same["answers"]["top1_agreement"]["value"] == 1
    assert same["answers"]["kl"]["value"] == 0
    assert same["text"]["tokens"] > same["answers"]["tokens"] > 0
    assert same["exact_match"]["questions"] == 6
    out = tmp_path / "agreement"
    done = bluelm("bench", "agreement", checkpoint, quantized, *words, "--out", out)
    assert done.code == 0, done.err
    told = done.json()
    assert told["first"] == {"name": checkpoint.name, "kind": "checkpoint"}
    assert told["answers"]["kl"]["value"] > 0
    assert told["text"] is None
    lines = [json.loads(line) for line in (out / "questions.jsonl").read_text().splitlines()]
    assert sum(line["tokens"] for line in lines) == told["answers"]["tokens"]
    again = bluelm("bench", "agreement", checkpoint, quantized, *words, "--out", out)
    assert "up to date" in again.err
    assert again.json() == told
    close = bluelm("bench", "agreement", quantized, exported, *words).json()
    assert close["answers"]["kl"]["value"] < told["answers"]["kl"]["value"] / 10
    table = bluelm("bench", "agreement", exported, checkpoint, "--data", corpus, "--split", "train")
    assert "same next token, assistant's tokens" in table.out
    assert "5000" in table.err


def test_what_cannot_be_compared_is_said(bluelm: Any, checkpoint: Path, corpus: Path, tmp_path: Path) -> None:
    planned = bluelm("bench", "agreement", checkpoint, checkpoint, "--data", corpus, "--dry-run", "--json")
    assert planned.json()["questions"] == 1
    wrong = bluelm("bench", "agreement", corpus, checkpoint, "--data", corpus)
    assert wrong.code == 2
    missing = bluelm("bench", "agreement", checkpoint, checkpoint, "--data", corpus, "--split", "test")
    assert (missing.code, "Splits of this corpus" in missing.err) == (2, True)
    empty = tmp_path / "empty"
    with create(empty, ArtifactSpec(kind="corpus", stage="data", config={})) as draft:
        (draft.path / "heldout.json").write_text("[]")
    none = bluelm("bench", "agreement", checkpoint, checkpoint, "--data", empty)
    assert (none.code, "nothing to compare" in none.err) == (2, True)
