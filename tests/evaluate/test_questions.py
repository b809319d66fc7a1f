"""Questions as they are read from LLaVA's JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.artifacts.errors import DataError
from stages.evaluate.questions import Question, read_questions
from stages.workshop.corpus.llava import write_llava
from stages.workshop.corpus.row import Row, Turn


def write(folder: Path, rows: Any, split: str = "heldout") -> Path:
    (folder / f"{split}.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder


def test_rows_become_questions(corpus: Path) -> None:
    questions = read_questions(corpus, "heldout")
    assert [question.name for question in questions] == ["h0", "h1", "h2", "h3"]
    assert questions[0] == Question("h0", (corpus / "images/1.png",), "Which colour?", "red", "colours")


def test_each_turn_is_a_question_and_all_pictures_belong_to_it(tmp_path: Path) -> None:
    turns = [
        {"from": "human", "value": "<image>\n<image>\nSame?"},
        {"from": "gpt", "value": "no "},
        {"from": "human", "value": "Sure?"},
        {"from": "gpt", "value": "yes"},
    ]
    row = {"id": 7, "image": ["a.png", "b.png"], "conversations": turns}
    pictures = (tmp_path / "a.png", tmp_path / "b.png")
    assert read_questions(write(tmp_path, [row]), "heldout") == [
        Question("7/0", pictures, "Same?", "no", "general"),
        Question("7/1", pictures, "Sure?", "yes", "general"),
    ]


def test_a_text_row_has_no_picture(tmp_path: Path, row: Callable[..., dict[str, Any]]) -> None:
    text_only = row("x", "", "Two and two?", "four", "sums")
    del text_only["image"]
    text_only["conversations"][0]["value"] = "Two and two?"
    assert read_questions(write(tmp_path, [text_only]), "heldout")[0].pictures == ()


def conversation(*said: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[index % 2], "value": text} for index, text in enumerate(said)]


def test_each_question_has_its_own_task(tmp_path: Path) -> None:
    turns = conversation("Colour?", "red", "How many?", "2")
    rows = [{"task": ["colour", "count"], "conversations": turns}, {"task": "both", "conversations": turns}]
    tasks = [question.task for question in read_questions(write(tmp_path, rows), "heldout")]
    assert tasks == ["colour", "count", "both", "both"]


def test_rows_of_the_corpus_writer_keep_their_tasks(tmp_path: Path) -> None:
    turns = tuple(
        Turn(role, text) for role, text in zip(("user", "assistant") * 2, ("A?", "a", "B?", "b"), strict=True)
    )
    write_llava(tmp_path / "train.json", [Row("r", turns, tasks=("one", "two"))])
    assert [question.task for question in read_questions(tmp_path, "train")] == ["one", "two"]


def test_a_system_turn_at_the_start_is_no_question(tmp_path: Path) -> None:
    turns = [{"from": "system", "value": "Be brief."}, *conversation("Sure?", "yes")]
    row = {"id": "s", "image": None, "conversations": turns}
    assert read_questions(write(tmp_path, [row]), "heldout") == [Question("s", (), "Sure?", "yes", "general")]


def test_no_rows_are_no_questions(tmp_path: Path) -> None:
    assert read_questions(write(tmp_path, []), "heldout") == []


MARKED = conversation("<image>\nx", "y")


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ({"a": 1}, "row 1: it has no key 'conversations'"),
        ([3], "row 0: it is a int, not an object"),
        ([{"image": "a.png", "conversations": []}], "row 0: 'conversations' is not a list of turns"),
        ([{"conversations": [{"from": "human", "value": "x"}]}], "row 0: 'conversations' is not question and answer"),
        ([{"image": 3, "conversations": conversation("x", "y")}], "row 0: 'image' is neither a name"),
        ([{"image": "../a.png", "conversations": conversation("<image>", "y")}], "lies outside the file's folder"),
        ([{"conversations": [{"from": "system", "value": "x"}]}], "row 0: 'conversations' is not question and answer"),
        (
            [{"task": ["a", "b"], "conversations": conversation("x", "y")}],
            "row 0: 'task' names 2 tasks for 1 questions",
        ),
        ([{"task": {"a": 1}, "conversations": conversation("x", "y")}], "row 0: 'task' is neither"),
        (
            [{"conversations": [{"from": "gpt", "value": "x"}, {"from": "gpt", "value": "x"}]}],
            "row 0: 'conversations' is not question and answer",
        ),
        ([{"image": "a.png", "conversations": conversation("x", "y")}], "row 0: it has 0 <image> marks for 1 pictures"),
        (
            [{"image": {"shard": "0:a.tar", "member": "a", "offset": 1, "length": 2}, "conversations": MARKED}],
            "names pictures inside 0:a.tar",
        ),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, rows: Any, what: str) -> None:
    with pytest.raises(DataError) as caught:
        read_questions(write(tmp_path, rows), "heldout")
    assert what in caught.value.what


def test_a_missing_split_lists_those_there_are(corpus: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_questions(corpus, "test")
    assert "test.json does not exist" in caught.value.what
    assert "heldout, train" in caught.value.fix


def test_broken_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "heldout.json").write_text("[", encoding="utf-8")
    with pytest.raises(DataError, match=r"heldout\.json is not JSON: Expecting value at line 1, column 2"):
        read_questions(tmp_path, "heldout")
    (tmp_path / "heldout.json").write_text('{"conversations": 1\n', encoding="utf-8")
    with pytest.raises(DataError, match="row 1: it is not JSON"):
        read_questions(tmp_path, "heldout")
