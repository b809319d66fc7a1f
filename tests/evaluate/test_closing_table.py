"""Evaluations on disk and the table made of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.artifacts.errors import ArtifactError, ProblemsError
from stages.artifacts.folder import ArtifactSpec, create
from stages.artifacts.manifest import Parent
from stages.evaluate.answering import Reply
from stages.evaluate.baseline import QuestionOnly
from stages.evaluate.closing_table import closing_table
from stages.evaluate.questions import Question
from stages.evaluate.report import DataFacts, ModelFacts, digest_questions, make_report, read_report, write_report
from stages.evaluate.scores import pair_up
from stages.measure.records import record_of, write_records

QUESTIONS = [
    Question("a", (Path("a.png"),), "Which colour?", "red", "colours"),
    Question("b", (Path("b.png"),), "Which colour?", "blue", "colours"),
    Question("c", (Path("a.png"),), "Which shape?", "star", "shapes"),
]
Write = Callable[..., Path]


@pytest.fixture
def evaluation(tmp_path: Path) -> Write:
    """Writes an evaluation of a model that answers as told: evaluation("onnx", ["red", "red", "star"])."""

    def write(kind: str, answers: list[str], questions: list[Question] = QUESTIONS, corpus: str = "c0") -> Path:
        replies = [Reply(answer, image_tokens=10, prompt_tokens=16, generated_tokens=2) for answer in answers]
        answered = list(pair_up(questions, replies, QuestionOnly(QUESTIONS[:1])))
        model = ModelFacts.model_validate({"name": f"m-{kind}", "kind": kind, "digest": kind * 2, "bytes": 1234})
        data = DataFacts(corpus=corpus, split="heldout", questions=digest_questions(questions))
        out = tmp_path / f"eval-{kind}-{corpus}-{len(questions)}"
        with create(out, ArtifactSpec(kind="bench", stage="bench", config={"answers": answers})) as draft:
            write_report(draft.path, make_report(model, data, answered), answered)
            draft.run["seconds_answering"] = 7.5
        return out

    return write


@pytest.fixture
def speed_run(tmp_path: Path) -> Write:
    """Writes a speed run of the model with this digest."""

    def write(digest: str, decode: tuple[float, float] = (4.0, 8.0)) -> Path:
        out = tmp_path / f"speed-{digest}"
        spec = ArtifactSpec(kind="bench", stage="bench", config={}, parents=(Parent(path="m", digest=digest),))
        with create(out, spec) as draft:
            records = [
                record_of("prefill", "m-speed", [2.0], tokens=100, chunk=128),
                record_of("prefill", "m-speed", [1.0], tokens=100, chunk=512),
                record_of("decode", "m-speed", [decode[0]], tokens=16, chunk=128),
                record_of("decode", "m-speed", [decode[1]], tokens=16, chunk=512),
            ]
            write_records(draft.path / "results.jsonl", records)
        return out

    return write


def test_the_report_survives_the_disk(evaluation: Write) -> None:
    folder = evaluation("onnx", ["Red.", "red", "star"])
    report = read_report(folder)
    assert report.total.correct == 2 and report.tasks["colours"].correct == 1 and report.tasks["shapes"].correct == 1
    assert (report.tokens.image, report.tokens.prompt, report.tokens.generated) == (30, 48, 6)
    wrong = [json.loads(line) for line in (folder / "wrong.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["id"], row["truth"], row["answer"]) for row in wrong] == [("b", "blue", "red")]
    assert len((folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()) == 3


def test_rows_stand_in_order_with_the_baseline_last(evaluation: Write, speed_run: Write) -> None:
    exported = evaluation("onnx", ["red", "red", "moon"])
    quantized = evaluation("quantized", ["red", "blue", "moon"])
    unquantized = evaluation("checkpoint", ["red", "blue", "star"])
    table = closing_table([exported, speed_run("onnxonnx"), quantized, unquantized])
    assert table.tasks == ("colours", "shapes")
    assert [row.form for row in table.rows] == ["float", "quantized", "exported", "question only"]
    assert [row.accuracy for row in table.rows] == pytest.approx([1, 2 / 3, 1 / 3, 1 / 3])
    assert table.rows[2].tasks == {"colours": 0.5, "shapes": 0.0}
    assert (table.rows[2].image_tokens, table.rows[2].seconds, table.rows[2].bytes) == (10.0, 7.5, 1234)
    assert (table.rows[2].prefill_tok_s, table.rows[2].decode_tok_s) == (50.0, 3.0)
    assert table.rows[0].prefill_tok_s is None
    assert table.warnings == ()
    json.dumps(table.as_dict(), allow_nan=False)


def test_different_questions_are_warned_about(evaluation: Write) -> None:
    first, second = evaluation("onnx", ["red"] * 3), evaluation("checkpoint", ["red"] * 2, QUESTIONS[:2])
    warnings = closing_table([first, second]).warnings
    assert len(warnings) == 1 and "different questions (the same corpus)" in warnings[0]
    other = evaluation("checkpoint", ["red"] * 2, QUESTIONS[1:], corpus="c1")
    assert "different questions (different corpora)" in closing_table([first, other]).warnings[0]


def test_no_questions_are_warned_about(evaluation: Write) -> None:
    table = closing_table([evaluation("onnx", [], [])])
    assert table.rows[0].accuracy is None and table.rows[0].image_tokens is None
    assert "No question was asked of m-onnx" in table.warnings[0]


def test_a_speed_run_alone_has_a_row(speed_run: Write) -> None:
    table = closing_table([speed_run("x")])
    assert [(row.form, row.model, row.accuracy) for row in table.rows] == [("exported", "m-speed", None)]
    assert "no accuracy" in table.warnings[0]


def test_all_bad_folders_are_reported_together(tmp_path: Path, corpus: Path) -> None:
    with pytest.raises(ProblemsError) as caught:
        closing_table([corpus, tmp_path / "nowhere"])
    first, second = caught.value.problems
    assert "is of kind corpus" in first.what and "bluelm bench" in first.fix
    assert "does not exist" in second.what


def test_a_bench_artifact_with_neither_is_refused(tmp_path: Path) -> None:
    with create(tmp_path / "figure", ArtifactSpec(kind="bench", stage="bench", config={})) as draft:
        (draft.path / "figure.svg").write_text("<svg/>", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"neither eval\.json nor results\.jsonl"):
        closing_table([tmp_path / "figure"])


@pytest.mark.parametrize(
    ("text", "what"),
    [("{", "Invalid JSON"), ('{"schema_version": 1}', "model"), (None, "schema version 2")],
)
def test_a_broken_report_is_named(evaluation: Write, text: str | None, what: str) -> None:
    path = evaluation("onnx", ["red"] * 3) / "eval.json"
    newer = path.read_text(encoding="utf-8").replace('"schema_version": 1', '"schema_version": 2')
    path.write_text(newer if text is None else text, encoding="utf-8")
    with pytest.raises(ArtifactError) as caught:
        read_report(path.parent)
    assert what in caught.value.what and "eval.json" in caught.value.what
