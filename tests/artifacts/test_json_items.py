"""Large JSON read item by item is what `json.loads` reads whole, wherever the chunks end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.artifacts import json_items as module
from stages.artifacts.errors import DataError
from stages.artifacts.json_items import BrokenItem, json_items, json_layout

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
EXAMPLES = settings(max_examples=60, deadline=None)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("json") / "items"


def read(path: Path, chunk: int) -> list[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK", chunk)
        return [item for _, item in json_items(path, "array")]


@EXAMPLES
@given(
    items=st.lists(VALUES, max_size=5),
    chunk=st.integers(1, 40),
    indent=st.sampled_from([None, 0, 3]),
    bom=st.booleans(),
    ascii=st.booleans(),
)
def test_an_array_is_what_json_reads(
    file: Path, items: list[Any], chunk: int, indent: int | None, bom: bool, ascii: bool
) -> None:
    text = json.dumps(items, indent=indent, ensure_ascii=ascii)
    file.write_bytes(text.encode("utf-8-sig" if bom else "utf-8", "surrogatepass" if ascii else "strict"))
    assert read(file, chunk) == items


@EXAMPLES
@given(items=st.lists(VALUES, min_size=1, max_size=4), data=st.data(), chunk=st.integers(1, 30))
def test_a_cut_array_is_an_error_that_names_the_end(
    file: Path, items: list[Any], data: st.DataObject, chunk: int
) -> None:
    text = json.dumps(items)
    kept = text[: data.draw(st.integers(1, len(text) - 1))]
    file.write_text(kept, encoding="utf-8")
    with pytest.raises(DataError, match=r"is not JSON: .* at line 1, column \d+"):
        read(file, chunk)


@EXAMPLES
@given(
    lines=st.lists(st.dictionaries(st.text(max_size=4), VALUES, max_size=3), min_size=1, max_size=5),
    broken=st.integers(0, 5),
)
def test_a_broken_line_hides_no_other(file: Path, lines: list[Any], broken: int) -> None:
    texts = [json.dumps(line) for line in lines]
    texts.insert(min(broken, len(texts)), '{"a": ')
    file.write_text("\n".join(texts) + "\n", encoding="utf-8")
    found = [item for _, item in json_items(file, "lines")]
    assert [item for item in found if not isinstance(item, BrokenItem)] == lines
    assert sum(isinstance(item, BrokenItem) for item in found) == 1


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('[1,\n {"a": tru}]', "Expecting value at line 2, column 8"),
        ("[1 2]", "Expecting ',' at line 1, column 4"),
        ("[1,]", "Expecting value at line 1, column 4"),
        ("[1] [2]", "more follows after the list at line 1, column 5"),
        ('["a\n"]', "Invalid control character at at line 1, column 4"),
        ('["' + "x" * 200_000, "Unterminated string starting at at line 1, column 2"),
    ],
)
def test_a_broken_place_is_named(file: Path, text: str, what: str) -> None:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        list(json_items(file))
    assert what in caught.value.what


def test_bytes_that_are_no_utf8_are_counted(file: Path) -> None:
    file.write_bytes(b'["' + b"x" * 70_000 + b'\xff"]')
    with pytest.raises(DataError, match="is not UTF-8: invalid start byte at byte 70002"):
        list(json_items(file, "array"))
    file.write_bytes(b'{"a": 1}\n{"b": "\xff"}\n')
    assert [item for _, item in json_items(file)] == [
        {"a": 1},
        BrokenItem("it is not UTF-8: invalid start byte at byte 7"),
    ]


def test_what_is_longer_than_a_row_may_be_is_not_read_into_memory(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ITEM", 1 << 20)
    file.write_text('{"a": 1}\n{"b": "' + "x" * (3 << 20) + '"}\n{"c": 1}\n', encoding="utf-8")
    found = list(json_items(file, "lines"))
    assert found == [(1, {"a": 1}), (2, BrokenItem("it is longer than 1 MiB")), (3, {"c": 1})]
    file.write_text('["' + "x" * (3 << 20) + '"]', encoding="utf-8")
    with pytest.raises(DataError, match="a row longer than 1 MiB"):
        list(json_items(file, "array"))


def test_the_layout_is_seen_in_the_first_characters(file: Path) -> None:
    for text, layout in ((" \n[]", "array"), ('{"a": 1}', "lines"), ('{"a": 1}\n{}', "lines"), ("{", "lines")):
        file.write_text(text, encoding="utf-8")
        assert json_layout(file) == layout
