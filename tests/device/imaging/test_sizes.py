"""Lists of sizes and their counting: every bad line is named, and nothing grows with the number of pictures."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.artifacts.errors import BluelmError, DataError
from stages.device.imaging import sizes
from stages.device.imaging.geometry import Size
from stages.device.imaging.sizes import SizeCounter, SizedPicture, read_size_list


def listed(tmp_path: Path, content: str | bytes) -> list[SizedPicture]:
    file = tmp_path / "sizes.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_size_list(file))


def counts(pictures: list[SizedPicture]) -> list[tuple[int, int, int]]:
    return [(*picture.size, picture.count) for picture in pictures]


@pytest.mark.parametrize(
    "content",
    [
        "640,480,2\n10,20,1\n",
        "width,height,count\n640,480,2\n10,20,1",
        "Height, W ,n\r\n480, 640 ,2\r\n20,10,1\r\n",
        b"\xef\xbb\xbfcount,width,height\n2,640,480\n\n1,10,20\n",
    ],
)
def test_columns_may_be_named_in_any_order(tmp_path: Path, content: str | bytes) -> None:
    assert counts(listed(tmp_path, content)) == [(640, 480, 2), (10, 20, 1)]


def test_a_size_without_a_count_is_one_picture_named_by_its_line(tmp_path: Path) -> None:
    (picture,) = listed(tmp_path, "width,height\n\n640,480\n")
    assert picture == SizedPicture(Size(640, 480), "sizes.csv, line 3", 1)


def test_each_line_may_leave_its_count_out(tmp_path: Path) -> None:
    assert counts(listed(tmp_path, "1,2,3\n4,5\n")) == [(1, 2, 3), (4, 5, 1)]


def test_a_size_that_no_picture_has_is_passed_over(tmp_path: Path) -> None:
    assert counts(listed(tmp_path, "1,2,0\n3,4,5\n")) == [(3, 4, 5)]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("640,480\n0,5\n", r"line 2: the width '0' is no whole number from 1 to 1,000,000"),
        ("640,-480\n", r"line 1: the height '-480'"),
        ("640,480.0\n", r"line 1: the height '480.0'"),
        ("640,1e3\n", r"line 1: the height '1e3'"),
        ("640,1_000\n", r"line 1: the height '1_000'"),
        ("640,٣\n", r"line 1: the height '٣'"),
        ("640,\n", r"line 1: the height ''"),
        ("640,480\n640,nan\n", r"line 2: the height 'nan'"),
        ("99999999999999999999,2\n", r"the width '99999999999999999999'"),
        ("1000001,2\n", r"the width '1000001'"),
        ("1,2,-1\n", r"the count '-1' is no whole number from 0"),
        ("1,2,1000000000001\n", r"the count '1000000000001'"),
        ("1,2,999999999999\n3,4,999999999999\n", r"lists 1,999,999,999,998 pictures, more than"),
        ("width,height\n1,2,3\n", r"line 2: '1,2,3' has 3 values, not 2"),
        ("width,height,count\n1,2\n", r"line 2: '1,2' has 2 values, not 3"),
        ("1,2,3,4\n", r"line 1: '1,2,3,4' has 4 values, not 2 or 3"),
        ("640;480\n", r"line 1: '640;480' has 1 values, not 2 or 3"),
        ("640\n", r"line 1: '640' has 1 values"),
        ("name,width,height\na,1,2\n", r"line 1: 'name,width,height' is no header"),
        ("width,width\n", r"is no header"),
        ("count,width\n", r"is no header"),
        ("", r"lists no size"),
        ("width,height\n", r"lists no size"),
        ("1,2,0\n", r"lists no size"),
        ("1," * 5000, r"line 1 is longer than 4,096 characters"),
        ("1,2\n\x00\n", r"line 2: '\\x00' has 1 values"),
        (b"1,2\n\xff\xfe", r"it is not UTF-8"),
    ],
)
def test_what_is_wrong_is_named_with_its_line_and_value(tmp_path: Path, content: str | bytes, what: str) -> None:
    with pytest.raises(DataError, match=what) as caught:
        listed(tmp_path, content)
    assert "sizes.csv" in caught.value.what


def test_all_bad_lines_are_told_together_up_to_twenty(tmp_path: Path) -> None:
    with pytest.raises(BluelmError) as caught:
        listed(tmp_path, "1,2\n" + "0,0\n" * 3 + "5,x\n")
    assert [problem.what.split(": ")[0].rpartition(" ")[2] for problem in caught.value.problems] == ["2", "3", "4", "5"]
    with pytest.raises(BluelmError) as caught:
        listed(tmp_path, "0,0\n" * 500)
    assert len(caught.value.problems) == 20


def test_a_list_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        list(read_size_list(tmp_path / "absent.csv"))


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5)), max_size=60))
def test_a_block_has_each_size_once_sorted_with_its_first_name(rows: list[tuple[int, int, int]]) -> None:
    counter = SizeCounter()
    expected: Counter[Size] = Counter()
    names: dict[Size, str] = {}
    for number, (width, height, count) in enumerate(rows):
        counter.add(SizedPicture(Size(width, height), str(number), count))
        expected[Size(width, height)] += count
        names.setdefault(Size(width, height), str(number))
    block = counter.take()
    found = list(zip(block.widths.tolist(), block.heights.tolist(), block.counts.tolist(), block.names, strict=True))
    assert found == [(*size, expected[size], names[size]) for size in sorted(expected)]
    assert len(counter.take()) == 0


def test_a_counter_is_full_after_so_many_distinct_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "MOST_SIZES", 3)
    counter = SizeCounter()
    for number in (1, 2, 2, 2, 1):
        counter.add(SizedPicture(Size(number, number), ""))
        assert not counter.is_full
    counter.add(SizedPicture(Size(3, 3), ""))
    assert counter.is_full
