"""Pictures and their sizes out of every kind of input: the same ones, each as often as rows use it."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stages.artifacts.errors import BluelmError, DataError
from stages.device.imaging.geometry import Size
from stages.workshop.corpus import picture
from stages.workshop.corpus.picture import PictureInTar
from stages.workshop.corpus.picture_sizes import Measured, picture_sizes
from stages.workshop.corpus.picture_streams import Unusable, open_pictures

SIZES = (Size(30, 20), Size(7, 90), Size(64, 64))
FORMATS = ("PNG", "JPEG", "WEBP")


def encoded(size: Size, format: str = "PNG", orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = io.BytesIO()
    Image.new("RGB", size, "olive").save(data, format, exif=exif)
    return data.getvalue()


ENCODED = tuple(encoded(size, format) for size, format in zip(SIZES, FORMATS, strict=True))


def folder(path: Path) -> Path:
    for number, data in enumerate(ENCODED):
        (path / "images").mkdir(exist_ok=True)
        (path / "images" / f"{number}.png").write_bytes(data)
    return path / "images"


def llava(path: Path) -> Path:
    folder(path)
    rows = [{"image": f"images/{number}.png", "conversations": "whatever"} for number in range(3)]
    (path / "data.json").write_text(json.dumps([*rows, {"conversations": []}]))
    return path / "data.json"


def messages(path: Path) -> Path:
    folder(path)
    turns = [{"role": "user", "content": "<image> What?"}, {"role": "assistant", "content": "This."}]
    rows = [{"messages": turns, "images": [f"images/{number}.png"]} for number in range(3)]
    (path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return path / "data.jsonl"


def parquet(path: Path) -> Path:
    cells = [{"bytes": data, "path": None} for data in ENCODED]
    # Row groups of one row, and no text column at all.
    pq.write_table(pa.table({"label": [1, 2, 3], "image": cells}), path / "0.parquet", row_group_size=1)
    return path / "0.parquet"


def folder_of_tables(path: Path) -> Path:
    (path / "tables").mkdir()
    pq.write_table(pa.table({"images": [[*ENCODED[:2]], None, []]}), path / "tables" / "0.parquet")
    pq.write_table(pa.table({"photo": [{"bytes": ENCODED[2], "path": "x.webp"}]}), path / "tables" / "1.parquet")
    return path / "tables"


def saved_dataset(path: Path) -> Path:
    from datasets import Dataset, DatasetDict

    parts = [[{"bytes": data, "path": None} for data in part] for part in (ENCODED[:2], ENCODED[2:])]
    splits = {name: Dataset.from_dict({"image": part}) for name, part in zip(("train", "test"), parts, strict=True)}
    DatasetDict(splits).save_to_disk(path / "set")
    return path / "set"


def tar(path: Path, members: tuple[tuple[str, bytes], ...] | None = None) -> Path:
    with tarfile.open(path / "0.tar", "w") as file:
        for name, data in members or tuple((f"{number}.png", data) for number, data in enumerate(ENCODED)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
            # A label beside each picture, as image sets have; no caption.
            file.addfile(tarfile.TarInfo(f"{Path(name).stem}.cls"))
    return path / "0.tar"


def found(path: Path, **options: Any) -> list[Measured | Unusable]:
    return [item for batch in picture_sizes(path, **options) for item in batch]


def sizes(items: list[Measured | Unusable]) -> list[Size]:
    assert all(isinstance(item, Measured) for item in items), items
    return [item.sized.size for item in items if isinstance(item, Measured)]


@pytest.mark.parametrize("make", [folder, llava, messages, parquet, folder_of_tables, saved_dataset, tar])
def test_every_input_gives_the_same_sizes_in_its_order(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    assert sizes(found(make(tmp_path))) == list(SIZES)


def test_names_say_where_a_picture_lies(tmp_path: Path) -> None:
    assert [item.name for item in open_pictures(folder(tmp_path))] == ["0.png", "1.png", "2.png"]
    assert [item.name for item in open_pictures(tar(tmp_path))] == ["0.tar/0.png", "0.tar/1.png", "0.tar/2.png"]
    tables = [item.name for item in open_pictures(folder_of_tables(tmp_path))]
    assert tables == ["0.parquet[0].images", "0.parquet[0].images[1]", "1.parquet[0].photo"]


def test_a_list_of_sizes_and_a_picture_by_itself(tmp_path: Path) -> None:
    (tmp_path / "sizes.csv").write_text("1,2,3\n4,5\n")
    listed = [item.sized for item in found(tmp_path / "sizes.csv") if isinstance(item, Measured)]
    assert [(each.size, each.count) for each in listed] == [(Size(1, 2), 3), (Size(4, 5), 1)]
    (tmp_path / "scan.0001").write_bytes(ENCODED[1])
    assert sizes(found(tmp_path / "scan.0001")) == [SIZES[1]]


def test_a_picture_counts_as_often_as_rows_use_it(tmp_path: Path) -> None:
    folder(tmp_path)
    rows = [{"image": name} for name in ("images/1.png", "images/0.png", "images/1.png")]
    (tmp_path / "data.json").write_text(json.dumps(rows))
    assert sizes(found(tmp_path / "data.json")) == [SIZES[1], SIZES[0], SIZES[1]]


def test_pictures_may_lie_elsewhere(tmp_path: Path) -> None:
    file = llava(tmp_path)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (tmp_path / "images").rename(moved / "images")
    assert all(isinstance(item, Unusable) for item in found(file))
    assert sizes(found(file, images=moved)) == list(SIZES)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("format", FORMATS)
def test_sizes_in_shards_are_upright(tmp_path: Path, format: str, orientation: int) -> None:
    data = encoded(Size(40, 10), format, orientation)
    upright = Size(10, 40) if orientation == 6 else Size(40, 10)
    assert sizes(found(tar(tmp_path, (("a.jpg", data),)))) == [upright]
    pq.write_table(pa.table({"image": [data]}), tmp_path / "0.parquet")
    assert sizes(found(tmp_path / "0.parquet")) == [upright]


def test_of_a_tar_little_more_than_headers_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = encoded(Size(40, 10), "JPEG") + bytes(10**6)
    file = tar(tmp_path, (("a.jpg", large), ("b.jpg", large)))
    read: list[int] = []

    class Counting(picture._Window):
        def readinto(self, buffer: Any) -> int:
            read.append(count := super().readinto(buffer))
            return count

    monkeypatch.setattr(picture, "_Window", Counting)
    assert sizes(found(file)) == [Size(40, 10)] * 2
    assert 0 < sum(read) < 100_000


def test_a_window_is_the_member_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"..abcdef..")
    with (tmp_path / "x").open("rb") as stream:
        window = picture._Window(stream, 2, 6)
        assert window.read() == b"abcdef"
        assert (window.seek(-2, io.SEEK_END), window.read(9), window.tell()) == (4, b"ef", 6)
        assert (window.seek(1), window.seek(1, io.SEEK_CUR), window.read(2)) == (1, 2, b"cd")
        assert (window.seek(50), window.read()) == (50, b"")


def test_what_cannot_be_read_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    members = (("a.png", ENCODED[0]), ("b.png", b"no picture"), ("../c.png", ENCODED[1]), ("d.png", ENCODED[1]))
    items = found(tar(tmp_path, members))
    assert [isinstance(item, Measured) for item in items] == [True, False, False, True]
    whats = [item.what for item in items if isinstance(item, Unusable)]
    assert "0.tar/b.png is not a picture that can be read" in whats[0]
    assert "leads out of the tar" in whats[1]
    (tmp_path / "data.jsonl").write_text('{"image": "images/9.png"}\n{"image": 5}\n{"image": "../x.png"}\n[]\n{"im\n')
    whats = [item.what for item in found(tmp_path / "data.jsonl") if isinstance(item, Unusable)]
    beats = ("9.png does not exist", "line 2: 'image' is neither", "line 3: the picture '../x.png' lies outside")
    for what, beat in zip(
        whats, (*beats, "line 4: it is a list, not an object", "line 5: it is not JSON"), strict=True
    ):
        assert beat in what


def test_a_tar_that_breaks_off_gives_what_lies_before(tmp_path: Path) -> None:
    file = tar(tmp_path)
    file.write_bytes(file.read_bytes()[:1600])
    items = found(file)
    assert sizes(items[:1]) == [SIZES[0]]
    assert isinstance(items[-1], Unusable)
    assert "breaks off" in items[-1].what


def test_a_cell_with_a_path_names_a_file_beside_the_table(tmp_path: Path) -> None:
    folder(tmp_path)
    cells = [{"bytes": None, "path": "images/1.png"}, {"bytes": None, "path": "/etc/x.png"}, None]
    pq.write_table(pa.table({"image": cells}), tmp_path / "images.parquet")
    first, second = found(tmp_path / "images.parquet")
    assert sizes([first]) == [SIZES[1]]
    assert isinstance(second, Unusable)
    assert "outside" in second.what


def test_inputs_that_cannot_be_told_or_have_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "both").mkdir()
    tar(tmp_path / "both")
    (tmp_path / "both" / "x.png").write_bytes(ENCODED[0])
    with pytest.raises(DataError, match="holds shards and pictures"):
        found(tmp_path / "both")
    pq.write_table(pa.table({"label": [1]}), tmp_path / "0.parquet")
    with pytest.raises(DataError, match=r"has the columns label\.\nNone is a picture's"):
        found(tmp_path / "0.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BluelmError, match="holds no pictures"):
        found(tmp_path / "empty")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(DataError, match=r"broken\.parquet cannot be read"):
        found(tmp_path / "broken.parquet")


def test_a_picture_in_a_tar_that_is_gone(tmp_path: Path) -> None:
    gone = PictureInTar(tmp_path, "gone.tar", "a.png", 512, 10)
    with pytest.raises(BluelmError, match=r"gone\.tar cannot be read"):
        gone.size()
