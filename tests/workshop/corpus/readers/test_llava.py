"""LLaVA's JSON: real rows, what is written is read, and every way to be broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stages.artifacts.errors import BluelmError, DataError
from stages.workshop.corpus.llava import as_llava, write_llava
from stages.workshop.corpus.picture import PictureFile
from stages.workshop.corpus.readers.opening import open_rows
from stages.workshop.corpus.readers.source import all_rows
from stages.workshop.corpus.row import BadRow, Row, Turn

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
        all_rows(open_rows(path))
    assert all(isinstance(problem, DataError) for problem in caught.value.problems)
    assert all(problem.why and problem.fix for problem in caught.value.problems)
    return [problem.what for problem in caught.value.problems]


def test_real_rows(data_dir: Path) -> None:
    path = data_dir / "llava_format" / "llava_v1_5_mix200.json"
    given = json.loads(path.read_text(encoding="utf-8"))
    rows = all_rows(open_rows(path), check_pictures=False)
    assert [as_llava(row) for row in rows] == [
        {key: str(value) if key == "id" else value for key, value in item.items() if key in as_llava(row)}
        for item, row in zip(given, rows, strict=True)
    ]
    assert max(len(row.turns) for row in rows) > 4
    assert any("does not exist" in what for what in problems(path))


def some_rows(folder: Path) -> list[Row]:
    one, two = PictureFile(folder, "images/a.png"), PictureFile(folder, "images/b.png")
    return [
        Row("one", (Turn("user", "<image>\nWhat?"), Turn("assistant", "Ein Bär")), (one,), ("x",)),
        Row("text", (Turn("system", "Be brief."), Turn("user", "Why?"), Turn("assistant", "So.\u2028"))),
        Row(
            "two",
            (Turn("user", "<image>\n<image>\nSame?"), Turn("assistant", "No"), Turn("user", "Sure?")),
            (one, two),
            ("same", "sure"),
        ),
    ]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "images/b.png")
    rows = some_rows(tmp_path)
    write_llava(tmp_path / "rows.json", rows)
    assert all_rows(open_rows(tmp_path / "rows.json")) == rows
    assert rows[2].pictures == (PictureFile(tmp_path, "images/a.png"), PictureFile(tmp_path, "images/b.png"))
    write_llava(tmp_path / "none.json", [])
    assert all_rows(open_rows(tmp_path / "none.json")) == []
    # JSON lines and an array over many lines are the same rows, from a folder of their own.
    lines = "\n\n".join(json.dumps(as_llava(row)) for row in rows)
    indented = json.dumps([as_llava(row) for row in rows], indent=2)
    for number, text in enumerate((lines, indented, "\ufeff" + lines, "\ufeff" + indented)):
        (tmp_path / "moved").mkdir(exist_ok=True)
        path = tmp_path / "moved" / str(number)
        path.write_text(text, encoding="utf-8")
        assert all_rows(open_rows(path, images=tmp_path)) == rows


def test_messages_have_pictures_where_their_marks_were() -> None:
    row = Row("r", (Turn("user", "Look: <image>\nand <image>"), Turn("assistant", "  ok\n")))
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


CASES = [
    ("row", "it is a str, not an object"),
    ({"id": 7}, "(id 7): it has no key 'conversations'"),
    ({"conversations": []}, "'conversations' is not a list of turns"),
    ({"conversations": ["hi"]}, "turn 0 is a str"),
    ({"conversations": [{"from": "human"}]}, "turn 0 has no key 'value'"),
    ({"conversations": [{"value": "x"}]}, "turn 0 has no key 'from'"),
    ({"conversations": [{"from": "cat", "value": "x"}]}, "turn 0 is from 'cat', not one of human"),
    ({"conversations": [{"from": ["human"], "value": "x"}]}, "turn 0 is from \"['human']\", not one of human"),
    ({"conversations": [{"from": "human", "value": 3}]}, "turn 0: 'value' is not a text"),
    ({"conversations": [{"from": "human", "value": "a\ud800"}]}, "turn 0 holds half a character"),
    ({"image": 3, "conversations": HELLO}, "'image' is neither a name nor a list of names"),
    ({"image": "a\0.png", "conversations": HELLO}, "'image' is neither a name nor a list of names"),
    ({"image": {"shard": "a.tar"}, "conversations": HELLO}, "'image' is neither a name nor a list of names"),
    ({"task": 3, "conversations": HELLO}, "'task' is neither a name nor a list of names"),
    ({"image": "a.png", "conversations": HELLO}, "it has 0 <image> marks for 1 pictures"),
    ({"conversations": [{"from": "human", "value": "<image>\nWhat?"}]}, "it has 1 <image> marks for 0 pictures"),
    ({"image": "gone.png", "conversations": [{"from": "human", "value": "<image>"}]}, "gone.png does not exist"),
    (
        {"image": "../a.png", "conversations": [{"from": "human", "value": "<image>"}]},
        "the picture '../a.png' lies outside",
    ),
    (
        {"image": "/a.png", "conversations": [{"from": "human", "value": "<image>"}]},
        "the picture '/a.png' lies outside",
    ),
    (
        {"id": "\x1b[2J" + "x" * 200, "conversations": 1},
        "(id \\x1b[2J" + "x" * 72 + "…): 'conversations' is not a list of turns",
    ),
]


@pytest.mark.parametrize(("item", "said"), CASES)
@pytest.mark.parametrize("layout", ["array", "lines"])
def test_what_cannot_be_used_is_named(tmp_path: Path, item: Any, said: str, layout: str) -> None:
    text = json.dumps([item]) if layout == "array" else '{"conversations": [{"from": "human", "value": "x"}]}\n'
    where = "row 0" if layout == "array" else "line 2"
    found = problems(write(tmp_path, text if layout == "array" else text + json.dumps(item)))
    assert len(found) == 1
    assert said in found[0]
    assert f"{tmp_path / 'rows.json'}, {where}" in found[0]


def test_all_problems_come_together(tmp_path: Path) -> None:
    bad = {"image": ["a.png", "b.png"], "conversations": [{"from": "human", "value": "<image><image>"}]}
    found = problems(write(tmp_path, [{"id": 1}, {"conversations": HELLO}, bad, 5]))
    assert [what.split(": ")[0].split("rows.json, ")[1] for what in found] == [
        "row 0 (id 1)",
        "row 2 (id 2)",
        "row 2 (id 2)",
        "row 3",
    ]
    many = problems(write(tmp_path, [3] * 50))
    assert len(many) == 21
    assert "30 more problems" in many[-1]


def test_a_broken_line_leaves_the_others(tmp_path: Path) -> None:
    good = json.dumps({"conversations": HELLO})
    huge = json.dumps({"id": 1, "conversations": HELLO}).replace("1", "9" * 5000)
    deep = '{"id": ' + "[" * 100_000 + "]" * 100_000 + "}"
    lines = [good, "{", good + " 1", '{"a": "\x01"}', deep, good, huge]
    rows = list(open_rows(write(tmp_path, "\n".join(lines))))
    assert [row.problems[0].text if isinstance(row, BadRow) else row.place.number for row in rows] == [
        1,
        "it is not JSON: Expecting property name enclosed in double quotes at column 2",
        f"it is not JSON: more follows after column {len(good)}",
        "it is not JSON: Invalid control character at at column 8",
        "it is nested too deeply",
        6,
        7,
    ]
    assert isinstance(rows[-1], Row) and rows[-1].name == "9" * 5000


def test_unreadable_files(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in problems(tmp_path / "none.json")[0]
    path = tmp_path / "latin.json"
    path.write_bytes('["é"]'.encode("latin-1"))
    assert "is not UTF-8" in problems(path)[0]
    path.write_bytes('[{"id": "é"}]'.encode("utf-16"))
    assert "is not UTF-8" in problems(path)[0]
    path.write_bytes(b"")
    assert "is empty" in problems(path)[0]
    path.write_text('{\n "rows": []}')
    assert "one object over several lines, not a list" in problems(path)[0]
    path.write_text("id,image\n")
    assert "begins with 'id,image" in problems(path)[0]
