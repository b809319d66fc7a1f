"""LLaVA's JSON: real rows, what is written is read, and every way to be broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stages.artifacts.errors import BluelmError, DataError
from stages.workshop.corpus.llava import Row, Turn, read_llava, write_llava

HELLO = [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi"}]


def write(folder: Path, content: Any) -> Path:
    path = folder / "rows.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def problems(path: Path) -> list[str]:
    with pytest.raises(BluelmError) as caught:
        read_llava(path)
    assert all(isinstance(problem, DataError) for problem in caught.value.problems)
    assert all(problem.why and problem.fix for problem in caught.value.problems)
    return [problem.what for problem in caught.value.problems]


def test_real_rows(data_dir: Path) -> None:
    path = data_dir / "llava_format" / "llava_v1_5_mix200.json"
    given = json.loads(path.read_text(encoding="utf-8"))
    rows = read_llava(path, check_pictures=False)
    assert [row.as_json() for row in rows] == [
        {key: str(value) if key == "id" else value for key, value in item.items() if key in row.as_json()}
        for item, row in zip(given, rows, strict=True)
    ]
    assert max(len(row.turns) for row in rows) > 4
    assert any("does not exist" in what for what in problems(path))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "images/b.png")
    rows = [
        Row("one", (Turn("user", "<image>\nWhat?"), Turn("assistant", "Ein Bär")), ("images/a.png",), tmp_path, ("x",)),
        Row("text", (Turn("system", "Be brief."), Turn("user", "Why?"), Turn("assistant", "So.")), folder=tmp_path),
        Row(
            "two",
            (Turn("user", "<image>\n<image>\nSame?"), Turn("assistant", "No"), Turn("user", "Sure?")),
            ("images/a.png", "images/b.png"),
            tmp_path,
            ("same", "sure"),
        ),
    ]
    write_llava(tmp_path / "rows.json", rows)
    assert read_llava(tmp_path / "rows.json") == rows
    assert rows[2].paths == (tmp_path / "images/a.png", tmp_path / "images/b.png")
    write_llava(tmp_path / "none.json", [])
    assert read_llava(tmp_path / "none.json") == []


def test_messages_have_pictures_where_their_marks_were() -> None:
    row = Row("r", (Turn("user", "Look: <image>\nand <image>"), Turn("assistant", "  ok\n")), ("a", "b"))
    assert row.messages() == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look: "},
                {"type": "image"},
                {"type": "text", "text": "and "},
                {"type": "image"},
            ],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "  ok\n"}]},
    ]


def test_broken_json_says_where(tmp_path: Path) -> None:
    assert "line 2, column 9" in problems(write(tmp_path, '[\n  {"id" 1}\n]'))[0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"id": 1}, "holds a dict, not a list"),
        (["row"], "row 0: it is a str, not an object"),
        ([{"id": 7}], "row 0 (id 7): it has no key 'conversations'"),
        ([{"conversations": []}], "'conversations' is not a list of turns"),
        ([{"conversations": ["hi"]}], "turn 0 is a str"),
        ([{"conversations": [{"from": "human"}]}], "turn 0 has no key 'value'"),
        ([{"conversations": [{"value": "x"}]}], "turn 0 has no key 'from'"),
        ([{"conversations": [{"from": "cat", "value": "x"}]}], "turn 0 is from 'cat', not one of human"),
        ([{"conversations": [{"from": "human", "value": 3}]}], "turn 0: 'value' is not a text"),
        ([{"image": 3, "conversations": HELLO}], "'image' is neither a name nor a list of names"),
        ([{"image": "a.png", "conversations": HELLO}], "it has 0 <image> marks for 1 pictures"),
        (
            [{"conversations": [{"from": "human", "value": "<image>\nWhat?"}]}],
            "it has 1 <image> marks for 0 pictures",
        ),
        (
            [{"image": "gone.png", "conversations": [{"from": "human", "value": "<image>"}]}],
            "gone.png does not exist",
        ),
        (
            [{"image": "../a.png", "conversations": [{"from": "human", "value": "<image>"}]}],
            "the picture '../a.png' lies outside",
        ),
        (
            [{"image": "/a.png", "conversations": [{"from": "human", "value": "<image>"}]}],
            "the picture '/a.png' lies outside",
        ),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, content: Any, said: str) -> None:
    found = problems(write(tmp_path, content))
    assert len(found) == 1
    assert said in found[0]
    assert str(tmp_path / "rows.json") in found[0]


def test_all_problems_come_together(tmp_path: Path) -> None:
    bad = {"image": ["a.png", "b.png"], "conversations": [{"from": "human", "value": "<image><image>"}]}
    found = problems(write(tmp_path, [{"id": 1}, {"conversations": HELLO}, bad, 5]))
    assert [what.split(": ")[0].split("rows.json, ")[1] for what in found] == [
        "row 0 (id 1)",
        "row 2",
        "row 2",
        "row 3",
    ]
    many = problems(write(tmp_path, [3] * 50))
    assert len(many) == 21
    assert "30 more problems" in many[-1]


def test_unreadable_files(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in problems(tmp_path / "none.json")[0]
    path = tmp_path / "latin.json"
    path.write_bytes('["é"]'.encode("latin-1"))
    assert "is not UTF-8" in problems(path)[0]
