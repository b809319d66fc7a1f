"""Every way in which a row of messages, a table or a tar can be broken costs that row and no other."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.artifacts.errors import DataError
from stages.workshop.corpus.picture import PictureFile
from stages.workshop.corpus.readers.opening import open_rows, splits_of
from stages.workshop.corpus.row import BadRow, Row

GOOD = {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]}
ASKED = [{"role": "user", "content": "<image>What?"}, {"role": "assistant", "content": "A bear."}]


def texts(path: Path, **options: Any) -> list[str]:
    """What is wrong with each row, or its name."""
    rows = list(open_rows(path, **options))
    return ["; ".join(p.text for p in row.problems) if isinstance(row, BadRow) else row.name for row in rows]


def user(*content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(content)}, GOOD["messages"][1]]}


IMAGE = {"type": "image"}


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (3, "it is a int, not an object"),
        ({"id": 1}, "it has none of the keys 'messages', 'conversations', 'texts'"),
        ({"messages": []}, "'messages' is not a list of turns"),
        ({"messages": "Why?"}, "'messages' is not a list of turns"),
        ({"messages": ["Why?"]}, "turn 0 is a str, not an object"),
        ({"messages": [{"role": "user"}]}, "turn 0 has no key 'content'"),
        ({"messages": [{"role": "tool", "content": "?"}]}, "turn 0 is from 'tool', not one of"),
        ({"messages": [{"role": "assistant", "content": None}]}, "turn 0: 'content' is not a text"),
        (user({"type": "video", "video": "a.mp4"}), "turn 0 holds a part of type 'video', neither text nor a picture"),
        (user("Why?"), "turn 0 holds a str, neither text nor a picture"),
        (user({"type": "text"}), "turn 0 holds a part of type 'text', neither text nor a picture"),
        (user(IMAGE), "it has 1 <image> marks for 0 pictures"),
        (user(IMAGE, IMAGE) | {"images": ["a.png"]}, "it has 2 <image> marks for 1 pictures"),
        ({"messages": ASKED, "images": ["a.png", "b.png"]}, "it has 1 <image> marks for 2 pictures"),
        (user(IMAGE | {"path": "a.png"}) | {"images": ["a.png"]}, "its pictures are named twice"),
        ({"messages": ASKED, "images": [3]}, "a picture is named by a int that is no path"),
        ({"messages": ASKED, "images": ["a\0"]}, "a picture is named by a str that is no path"),
        ({"messages": ASKED, "images": ["../a.png"]}, "the picture '../a.png' lies outside the folder of pictures"),
        ({"messages": ASKED, "images": ["/etc/a.png"]}, "the picture '/etc/a.png' lies outside the folder"),
        ({"messages": ASKED, "images": ["file:///etc/a.png"]}, "the picture '/etc/a.png' lies outside the folder"),
        (user(IMAGE | {"url": "https://x/a.png"}), "'https://x/a.png' lies on the web, from where nothing is fetched"),
        (user(IMAGE | {"image_url": {"url": "data:image/png;base64,AA"}}), "is written into the row itself (data:)"),
        ({"texts": [{"user": "Why?"}]}, "turn 0 has no key 'role'; turn 0 has no key 'content'"),
        ({"messages": {"role": ["user"], "content": []}}, "'messages' is not a list of turns"),
    ],
)
def test_messages(tmp_path: Path, item: Any, said: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([json.dumps(GOOD), json.dumps(item), "{", json.dumps(GOOD)]))
    first, found, broken, last = texts(path)
    assert (first, last) == ("1", "4")
    assert said in found
    assert broken.startswith("it is not JSON")


def test_cells_of_tables(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    turns = [[{"user": "What?", "assistant": "A bear."}]] * 6
    cells = [
        {"bytes": b"png", "path": None},
        {"bytes": None, "path": "a.png"},
        {"bytes": None, "path": "../a.png"},
        {"bytes": None, "path": None},
        None,
        {"bytes": b"", "path": "a.png"},
    ]
    pq.write_table(pa.table({"texts": turns, "image": cells, "id": list("abcdef")}), tmp_path / "a.parquet")
    path = tmp_path / "a.parquet"
    assert texts(path) == ["a", "b", "the picture '../a.png' lies outside the folder of pictures",
                           "a picture is named by a dict that is no path", "e", "f"]  # fmt: skip
    found = {row.name: row for row in open_rows(path, images=tmp_path / "pictures") if isinstance(row, Row)}
    assert found["b"].pictures == (PictureFile(tmp_path / "pictures", "a.png"),)
    assert found["e"].pictures == () and found["e"].turns[0].text == "What?"
    assert found["a"].turns[0].text == "<image>\nWhat?"
    assert found["f"].pictures[0].read() == b""
    pq.write_table(pa.table({"prompt": ["?"], "answer": ["!"]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="has the columns prompt, answer"):
        list(open_rows(tmp_path / "b.parquet"))
    (tmp_path / "c.parquet").write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"c\.parquet cannot be read"):
        list(open_rows(tmp_path / "c.parquet"))


def member(name: str, data: bytes = b"x", kind: bytes = tarfile.REGTYPE, size: int | None = None) -> bytes:
    """A member of a tar, as its bytes."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data) if size is None else size
    if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        info.linkname, info.size = "/etc/passwd", 0
    return info.tobuf(tarfile.GNU_FORMAT, errors="surrogateescape") + data + bytes(-len(data) % 512)


GOOD_SAMPLE = member("good.jpg") + member("good.txt", b"A bear.")
END = bytes(1024)


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        (member("a.jpg"), "it has neither a json with a conversation or caption nor a txt"),
        (member("a.txt", b"A bear."), "it has a caption and no picture"),
        (member("a.jpg") + member("a.txt", b"\xff"), "its txt is not UTF-8: invalid start byte at byte 0"),
        (member("a.jpg") + member("a.json", b"{"), "its json: it is not JSON"),
        (member("a.jpg") + member("a.json", b"[]"), "its json holds a list, not an object"),
        (member("a.jpg") + member("a.json", b'{"x": 1}'), "it has neither a json with a conversation"),
        (member("a.json", json.dumps(GOOD | {"image": "b.jpg"}).encode()), "the sample lacks its picture 'b.jpg'"),
        (member("a.0.jpg") + member("a.1.jpg") + member("a.json", json.dumps({"messages": ASKED}).encode()),
         "it has 1 <image> marks for 2 pictures"),
        (member("../a.jpg") + member("../a.txt"), "the member '../a.jpg' leads out of the tar"),
        (member("/etc/a.jpg"), "the member '/etc/a.jpg' leads out of the tar"),
        (member("a.jpg", b"", tarfile.SYMTYPE) + member("a.txt"), "the member 'a.jpg' is no plain file"),
        (member("a.jpg", b"", tarfile.LNKTYPE), "the member 'a.jpg' is no plain file"),
        (member("a.jpg", b"", tarfile.FIFOTYPE), "the member 'a.jpg' is no plain file"),
        (member("a\udcff.jpg"), "is not UTF-8"),
    ],
)  # fmt: skip
def test_samples_of_tars(tmp_path: Path, sample: bytes, said: str) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(GOOD_SAMPLE + sample + GOOD_SAMPLE.replace(b"good", b"fine") + END)
    first, *found, last = fixed(path)
    assert first == "good" and last == "fine"
    assert len(found) == 1 and said in found[0]
    assert not [entry for entry in tmp_path.rglob("*") if entry != path], "nothing is extracted"


def fixed(path: Path) -> list[str]:
    """The tar with its checksums made right again."""
    data = bytearray(path.read_bytes())
    at = data.find(b"fine.jpg")
    while at >= 0 and at % 512 == 0:
        header = data[at : at + 512]
        header[148:156] = b" " * 8
        data[at + 148 : at + 156] = b"%06o\0 " % sum(header)
        at = data.find(b"fine.", at + 512)
    path.write_bytes(data)
    return texts(path)


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        (member("a.jpg", b"short", size=2**32), "the tar breaks off here: unexpected end of data"),
        (b"", "the tar breaks off here: no end mark"),
        (b"no header" + bytes(503), "the tar breaks off here: no header where one must be"),
        (member("a.jpg")[:300], "the tar breaks off here"),
    ],
)
def test_a_tar_that_breaks_off_says_so_behind_its_whole_samples(tmp_path: Path, ending: bytes, said: str) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(GOOD_SAMPLE + ending)
    found = texts(path)
    assert found[0] == "good"
    assert any(said in text for text in found[1:])


def test_a_picture_that_claims_to_be_huge_is_not_read(tmp_path: Path) -> None:
    sparse = tmp_path / "a.tar"
    with sparse.open("wb") as stream:
        stream.write(member("a.jpg", b"", size=2**30 + 512))
        stream.seek(2**30 + 512, io.SEEK_CUR)
        stream.write(GOOD_SAMPLE + END)
    assert texts(sparse) == ["the member 'a.jpg' has 1,073,742,336 bytes, more than 1,073,741,824", "good"]


def make(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


UNCLEAR: list[tuple[Callable[[Path], object], str]] = [
    (lambda folder: folder.mkdir(), "holds no corpus and no data file that is known"),
    (lambda folder: [make(folder, name, GOOD_SAMPLE + END) for name in ("a.tar", "b.parquet")], "holds .parquet, "),
    (lambda folder: make(folder, "", b"\x1f\x8b\x08"), "is packed with gzip"),
    (lambda folder: make(folder, "", b"PK\x03\x04"), "is packed with zip"),
    (lambda folder: make(folder, "", b"\x00\x01binary"), "neither a list of rows nor a row"),
    (lambda folder: make(folder, "", json.dumps([GOOD, {"conversations": [{"from": "human", "value": "?"}]}]).encode()),
     "holds rows of LLaVA and of messages"),
    (lambda folder: make(folder, "dataset_dict.json", b"{}"), "is no list of splits"),
    (lambda folder: make(folder, "dataset_dict.json", b'{"splits": ["test"]}'), "has no split 'train'"),
    (lambda folder: make(folder, "dataset_dict.json", b'{"splits": ["../x"]}'), "is no list of splits"),
    (lambda folder: make(folder, "state.json", b"{}"), "is not a whole set of datasets"),
    (lambda folder: make(folder, "state.json", b'{"_data_files": [{"filename": "../a.arrow"}]}'), "lies outside it"),
    (lambda folder: make(folder, "state.json", b'{"_data_files": [{"filename": "a.arrow"}]}'), "cannot be read"),
]  # fmt: skip


@pytest.mark.parametrize(("prepare", "said"), UNCLEAR)
def test_an_input_that_is_unclear_or_broken_says_why(
    tmp_path: Path, prepare: Callable[[Path], object], said: str
) -> None:
    prepare(tmp_path / "input")
    with pytest.raises(DataError) as caught:
        list(open_rows(tmp_path / "input"))
    assert said in caught.value.what


def test_the_format_is_seen_whatever_the_name_and_can_be_said(tmp_path: Path) -> None:
    tar = make(tmp_path, "data.json", GOOD_SAMPLE + END)
    assert open_rows(tar).format == "webdataset"
    mixed = make(
        tmp_path, "mixed.json", json.dumps([GOOD, {"conversations": [{"from": "human", "value": "?"}]}]).encode()
    )
    assert texts(mixed, format="messages") == ["0", "1"]
    assert texts(mixed, format="llava") == ["it has no key 'conversations'", "1"]
    folder = make(tmp_path, "rows/only.jsonl", json.dumps(GOOD).encode()).parent
    assert open_rows(folder).format == "messages"
    make(tmp_path, "corpus/train.json", json.dumps([GOOD]).encode())
    assert open_rows(tmp_path / "corpus").format == "messages"
    assert splits_of(tmp_path / "corpus") == ("train",)
    with pytest.raises(DataError, match=r"heldout\.json does not exist"):
        open_rows(tmp_path / "corpus", split="heldout")
