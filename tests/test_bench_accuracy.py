"""bench accuracy through a model: scores, resuming, comparing, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages import bench_accuracy
from stages.artifacts.errors import ArtifactError, BluelmError, UsageError
from stages.artifacts.events import Finished, Notice
from stages.artifacts.folder import open_artifact
from stages.bench_accuracy import AccuracyConfig, AccuracyResult, Sources
from stages.evaluate.answering import Reply
from stages.evaluate.metrics import wilson
from stages.evaluate.predictions import PREDICTIONS_FILE, read_predictions
from stages.evaluate.questions import Question

QUICK: dict[str, Any] = {"suite": "chartqa", "max_tokens": 3, "threads": 1}


@pytest.fixture
def charts(tmp_path: Path) -> Path:
    """Six questions about three pictures, in ChartQA's form."""
    rows = []
    for number in range(6):
        name = f"{number // 2}.png"
        noise = np.random.default_rng(number // 2).integers(0, 256, (120, 90, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / name)
        rows.append({"imgname": name, "query": f"How many {number}?", "label": str(10 * number + 10)})
    (tmp_path / "test.json").write_text(json.dumps(rows), encoding="utf-8")
    return tmp_path / "test.json"


def result_of(events: Iterator[Any]) -> AccuracyResult:
    return next(event.result for event in events if isinstance(event, Finished))


def run(model: Path, data: Path, *more: Any, **values: Any) -> AccuracyResult:
    return result_of(bench_accuracy.run(AccuracyConfig(**{**QUICK, **values}), model, Sources(data), *more))


def answering(monkeypatch: pytest.MonkeyPatch, say: Callable[[Question], str]) -> list[str]:
    """Puts a model of known replies in the place of the real one; gives the names of what it is asked."""
    asked: list[str] = []

    @contextmanager
    def opened(*_: Any, **__: Any) -> Iterator[Any]:
        def answer(questions: Sequence[Question]) -> Iterator[Reply]:
            for question in questions:
                asked.append(question.name)
                yield Reply(say(question), 16, 20, 2)

        yield answer

    monkeypatch.setattr(bench_accuracy, "opened_answerer", opened)
    return asked


def test_a_real_model_is_asked_and_every_reply_is_kept(tiny_onnx: Path, charts: Path, tmp_path: Path) -> None:
    result = run(tiny_onnx, charts, tmp_path / "out")
    predictions = read_predictions(tmp_path / "out" / PREDICTIONS_FILE)
    assert [one.answers for one in predictions] == [(str(10 * number + 10),) for number in range(6)]
    assert all(one.metric == "relaxed" and one.generated_tokens <= 3 and one.image_tokens for one in predictions)
    assert result.report.total.questions == 6 and result.report.tokens.image == sum(o.image_tokens for o in predictions)
    assert open_artifact(tmp_path / "out", "bench").manifest is not None
    again = list(bench_accuracy.run(AccuracyConfig(**QUICK), tiny_onnx, Sources(charts), tmp_path / "out"))
    assert [type(event) for event in again] == [Notice, Notice, Finished]
    assert result_of(iter(again)).report == result.report


def test_scores_are_the_metric_s(
    tiny_onnx: Path, charts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 4 % over, 6 % over, exact, another, percent of it, exact: three right, in two pictures.
    replies = dict(zip(range(6), ("10.4", "21.2", "30", "7", "5000%", "60"), strict=True))
    answering(monkeypatch, lambda question: replies[int(question.text.split()[2][0])])
    result = run(tiny_onnx, charts, tmp_path / "out")
    scores = [one.score for one in read_predictions(tmp_path / "out" / PREDICTIONS_FILE)]
    assert scores == [1, 0, 1, 0, 1, 1]
    assert result.report.total.score == pytest.approx(4 / 6)
    low, high = result.report.total.interval or (0, 0)
    # Three pictures score 1/2, 1/2 and 1: no draw of them is below 1/2, yet three pictures are few.
    assert (low, high) == (pytest.approx(wilson(2, 3).low), 1.0)


def test_a_killed_run_goes_on_where_it_was(
    tiny_onnx: Path, charts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(question: Question) -> str:
        if question.text.startswith("How many 4"):
            raise KeyboardInterrupt
        return "30"

    answering(monkeypatch, break_off)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_onnx, charts, tmp_path / "out")
    (partial,) = tmp_path.glob(".out.partial*")
    with (partial / PREDICTIONS_FILE).open("a", encoding="utf-8") as file:
        file.write('{"id": "torn')
    asked = answering(monkeypatch, lambda _: "30")
    resumed = run(tiny_onnx, charts, tmp_path / "out")
    assert asked == ["5", "6"]
    whole = run(tiny_onnx, charts, tmp_path / "whole")
    assert resumed.report == whole.report
    for name in (PREDICTIONS_FILE, "accuracy.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_two_models_are_compared_question_by_question(
    tiny_onnx: Path, charts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, lambda _: "none")
    run(tiny_onnx, charts, tmp_path / "bad")
    answering(monkeypatch, lambda question: str(10 * int(question.text.split()[2][0]) + 10))
    beside = run(tiny_onnx, charts, tmp_path / "good", tmp_path / "bad").as_dict()["difference"]
    assert (beside["mean"], beside["better"], beside["worse"], beside["pictures"]) == (1.0, 6, 0, 3)
    assert beside["verdict"] == "higher" and beside["p_value"] == pytest.approx(2 / 8, abs=0.02)
    with pytest.raises(UsageError, match="asked of only one"):
        run(tiny_onnx, charts, None, tmp_path / "bad", limit=3)


def test_llava_data_takes_any_metric(
    tiny_onnx: Path, charts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = [{"from": "human", "value": "<image>\nName?"}, {"from": "gpt", "value": "Königsberg"}]
    (tmp_path / "own.json").write_text(json.dumps([{"id": "a", "image": "0.png", "conversations": turns}]), "utf-8")
    answering(monkeypatch, lambda _: "konigsberg")
    near = run(tiny_onnx, tmp_path / "own.json", suite="llava", metric="anls")
    assert near.report.total.score == pytest.approx(0.9)
    assert run(tiny_onnx, tmp_path / "own.json", suite="llava").report.total.score == 0
    with pytest.raises(UsageError, match="no metric 'anl'"):
        run(tiny_onnx, tmp_path / "own.json", suite="llava", metric="anl")


def test_what_no_rule_scores_is_kept_without_a_score(
    tiny_onnx: Path, charts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"v1_0": {"imagename": "0.png", "question": "x?", "answer": "-1", "capability": ["math"]}}
    (tmp_path / "mm-vet.json").write_text(json.dumps(row), encoding="utf-8")
    answering(monkeypatch, lambda _: "minus one")
    report = run(tiny_onnx, tmp_path / "mm-vet.json", tmp_path / "out", suite="mm-vet").report
    assert (report.total.questions, report.total.score, report.mean_of_tasks) == (1, None, None)
    assert read_predictions(tmp_path / "out" / PREDICTIONS_FILE)[0].reply == "minus one"


def test_through_the_command_line(bluelm: Callable[..., Any], tiny_onnx: Path, charts: Path, tmp_path: Path) -> None:
    words = ("bench", "accuracy", tiny_onnx, "--suite", "chartqa", "--data", charts, "--max-tokens", 3, "--threads", 1)
    planned = bluelm(*words, "--dry-run", "--json").json()
    assert (planned["questions"], planned["pictures"], planned["metrics"]) == (6, 3, {"relaxed": 6})
    done = bluelm(*words, "--out", tmp_path / "out", "--json").json()
    assert done["total"]["questions"] == 6 and done["suite"] == "chartqa"
    shown = bluelm(*words, "--out", tmp_path / "out", "--against", tmp_path / "out")
    assert shown.code == 0 and "no difference shown: +0.0 points" in shown.out
    missing = bluelm(*words[:3], "--suite", "chartsqa", "--data", charts)
    assert missing.code == 2 and "There is no suite 'chartsqa'" in missing.err


def test_a_folder_that_is_no_comparison_is_refused(tiny_onnx: Path, charts: Path) -> None:
    with pytest.raises(ArtifactError):
        run(tiny_onnx, charts, None, tiny_onnx)
    with pytest.raises(BluelmError):
        run(tiny_onnx, charts.with_name("gone.json"))
