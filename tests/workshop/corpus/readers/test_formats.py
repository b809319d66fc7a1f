"""The same rows, written by each format's library, are read back the same; ranks share them; memory is bounded."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.artifacts.errors import DataError, ImageError
from stages.workshop.corpus.llava import as_llava, write_llava
from stages.workshop.corpus.picture import PictureFile, PictureInTable, PictureInTar
from stages.workshop.corpus.readers.opening import open_rows
from stages.workshop.corpus.readers.source import all_rows
from stages.workshop.corpus.row import BadRow, Row, Turn

Said = tuple[str, tuple[Turn, ...], tuple[bytes, ...], tuple[str, ...]]


def said(row: Row | BadRow) -> Said:
    """What a row says, wherever its pictures lie."""
    assert isinstance(row, Row), row
    return row.name, row.turns, tuple(picture.read() for picture in row.pictures), row.tasks


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Rows with one picture, none, and two, over and over."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "images").mkdir()
    pictures = []
    for number in range(5):
        name = f"images/{number}.png"
        pixels = np.random.default_rng(number).integers(0, 256, (9 + number, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
        pictures.append(PictureFile(folder, name))
    made = []
    for number in range(40):
        one, two = pictures[number % 5], pictures[(number + 1) % 5]
        asked = (Turn("user", "<image>\nWhat?"), Turn("assistant", f"Ein Bär {number}"))
        made += [
            Row(f"{number:03d}a", asked, (one,), ("x",)),
            Row(f"{number:03d}b", (Turn("system", "Be brief."), Turn("user", "Why?"), Turn("assistant", "So."))),
            Row(f"{number:03d}c", (Turn("user", "<image>\n<image>\nSame?"), Turn("assistant", "No")), (one, two)),
        ]
    write_llava(folder / "rows.json", made)
    return made


def as_messages(row: Row, pictures: list[Any], parts: bool = False) -> dict[str, Any]:
    plain = [{"role": turn.role, "content": turn.text} for turn in row.turns]
    item = {"id": row.name, "messages": row.messages() if parts else plain}
    return item | {"images": pictures} | ({"task": list(row.tasks)} if row.tasks else {})


def write_lines(path: Path, items: list[Any]) -> Path:
    path.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items), encoding="utf-8")
    return path


def by_name(rows: list[Row], folder: Path) -> Path:
    return write_lines(
        folder / "a.jsonl", [as_messages(row, [picture.name for picture in row.pictures]) for row in rows]
    )


def by_path(rows: list[Row], folder: Path) -> Path:
    items = [as_messages(row, [str(picture.root / picture.name) for picture in row.pictures]) for row in rows]
    (folder / "b.json").write_text(json.dumps(items), encoding="utf-8")
    return folder / "b.json"


def in_parts(rows: list[Row], folder: Path) -> Path:
    """transformers' parts with a path in each, and OpenAI's `image_url` for every second row."""
    items = []
    for number, row in enumerate(rows):
        item = as_messages(row, [], parts=True)
        names = iter([picture.name for picture in row.pictures])
        for message in item["messages"]:
            for part in message["content"]:
                if part["type"] == "image" and number % 2:
                    part["path"] = next(names)
                elif part["type"] == "image":
                    part.update(type="image_url", image_url={"url": next(names)})
        items.append(item)
    return write_lines(folder / "c.jsonl", items)


def cells(row: Row) -> list[dict[str, Any]]:
    return [{"bytes": picture.read(), "path": picture.name} for picture in row.pictures]


def as_dataset(rows: list[Row]) -> Any:
    import datasets

    items = [as_messages(row, cells(row)) | {"task": list(row.tasks)} for row in rows]
    return datasets.Dataset.from_list(items).cast_column("images", datasets.List(datasets.Image(decode=False)))


def as_saved(rows: list[Row], folder: Path) -> Path:
    as_dataset(rows).save_to_disk(folder / "saved", num_shards=3)
    return folder / "saved"


def as_saved_splits(rows: list[Row], folder: Path) -> Path:
    import datasets

    held = as_dataset(rows[:3])
    datasets.DatasetDict({"train": as_dataset(rows), "test": held}).save_to_disk(folder / "splits")
    return folder / "splits"


def as_parquet(rows: list[Row], folder: Path) -> Path:
    as_dataset(rows).to_parquet(folder / "rows.parquet", batch_size=17)
    return folder / "rows.parquet"


def as_hub_folder(rows: list[Row], folder: Path) -> Path:
    for number in range(3):
        part = as_dataset(rows[number * 40 : (number + 1) * 40])
        part.to_parquet(folder / "hub" / "data" / f"train-0000{number}-of-00003.parquet")
    as_dataset(rows[:5]).to_parquet(folder / "hub" / "data" / "test-00000-of-00001.parquet")
    return folder / "hub"


def as_cauldron(rows: list[Row], folder: Path) -> Path:
    """The Cauldron's columns, by pyarrow alone: `texts` without marks."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    items = []
    for row in rows:
        pairs = [turn for turn in row.turns if turn.role != "system"]
        asked = pairs[0].text.replace("<image>", "").strip()
        texts = [{"user": asked, "assistant": pairs[1].text, "source": "x"}]
        items.append({"images": cells(row), "texts": texts, "id": row.name, "task": list(row.tasks)})
    pq.write_table(pa.Table.from_pylist(items), folder / "texts.parquet", row_group_size=16)
    return folder / "texts.parquet"


def as_tar(rows: list[Row], folder: Path, shards: int = 1) -> Path:
    target = folder / "tars"
    target.mkdir()
    for number in range(shards):
        with tarfile.open(target / f"{number:05d}.tar", "w") as tar:
            for row in rows[number::shards]:
                for index, picture in enumerate(row.pictures):
                    add(tar, f"{row.name}.{index}.png" if index else f"{row.name}.png", picture.read())
                turns = as_llava(row)["conversations"]
                extra = {"task": list(row.tasks)} if row.tasks else {}
                add(tar, f"{row.name}.json", json.dumps({"conversations": turns} | extra).encode())
                add(tar, f"{row.name}.pickle", pickle.dumps(1))
    return target


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


WRITERS: dict[Callable[[list[Row], Path], Path], str] = {
    by_name: "messages",
    by_path: "messages",
    in_parts: "messages",
    as_saved: "datasets",
    as_saved_splits: "datasets",
    as_parquet: "parquet",
    as_hub_folder: "parquet",
    as_cauldron: "parquet",
    as_tar: "webdataset",
}


@pytest.mark.parametrize("write", WRITERS)
def test_each_format_gives_the_rows_of_llavas_json(
    rows: list[Row], tmp_path: Path, write: Callable[[list[Row], Path], Path]
) -> None:
    folder = rows[0].pictures[0].root
    truth = [said(row) for row in open_rows(folder / "rows.json")]
    assert truth == [said(row) for row in rows]
    if write is as_cauldron:
        truth = [(name, tuple(turn for turn in turns if turn.role != "system"), *rest) for name, turns, *rest in truth]
    source = open_rows(write(rows, tmp_path), images=folder)
    assert source.format == WRITERS[write]
    found = list(source)
    assert [said(row) for row in found] == truth
    assert [said(row) for row in pickle.loads(pickle.dumps(source))] == truth
    assert source.count in (None, len(rows))
    assert all(picture.check() == picture.size() for row in found[:9] for picture in row.pictures)
    assert all_rows(source) == found


@pytest.mark.parametrize(("shards", "ranks"), [(1, 1), (1, 3), (4, 3), (4, 4), (2, 3)])
def test_ranks_share_rows(rows: list[Row], tmp_path: Path, shards: int, ranks: int) -> None:
    source = open_rows(as_tar(rows, tmp_path, shards))
    assert len(source.shards) == shards
    shares = [[row.name for row in source.part(rank, ranks) if isinstance(row, Row)] for rank in range(ranks)]
    assert sorted(name for share in shares for name in share) == sorted(row.name for row in rows)
    assert all(shares)


def test_captions_answer_their_pictures(rows: list[Row], tmp_path: Path) -> None:
    png = rows[0].pictures[0].read()
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "./train/0.jpg", png)
        add(tar, "./train/0.txt", "A bear.\n".encode("utf-8-sig"))
        add(tar, "./train/1.PNG", png)
        add(tar, "./train/1.json", b'{"caption": "Two", "image": "ignored.png"}')
        add(tar, "._2.jpg", b"what macOS writes")
    found = [said(row) for row in open_rows(tmp_path / "a.tar")]
    asked = Turn("user", "<image>")
    assert found == [
        ("train/0", (asked, Turn("assistant", "A bear.")), (png,), ()),
        ("train/1", (asked, Turn("assistant", "Two")), (png,), ()),
    ]


def test_older_datasets_hold_an_object_of_lists(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    turns = {"from": ["human", "gpt"], "value": ["Why?", "So."]}
    pq.write_table(pa.Table.from_pylist([{"conversations": turns}]), tmp_path / "a.parquet")
    assert [said(row)[1] for row in open_rows(tmp_path / "a.parquet")] == [
        (Turn("user", "Why?"), Turn("assistant", "So."))
    ]


def big_lines(folder: Path, items: int, filler: str) -> Path:
    return write_lines(folder / "big.jsonl", [{"id": number, "conversations": talk(filler)} for number in range(items)])


def big_array(folder: Path, items: int, filler: str) -> Path:
    path = folder / "big.json"
    path.write_text(json.dumps([{"id": number, "conversations": talk(filler)} for number in range(items)]))
    return path


def big_parquet(folder: Path, items: int, filler: str) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / "big.parquet"
    item = {"image": {"bytes": filler.encode(), "path": "a.png"}, "texts": [{"user": "Why?", "assistant": "So."}]}
    schema = pa.Table.from_pylist([item]).schema
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for _ in range(items // 20):
            writer.write_table(pa.Table.from_pylist([item] * 20, schema))
    return path


def big_tar(folder: Path, items: int, filler: str) -> Path:
    with tarfile.open(folder / "big.tar", "w") as tar:
        for number in range(items):
            add(tar, f"{number}.jpg", filler.encode())
            add(tar, f"{number}.txt", b"So.")
    return folder / "big.tar"


def talk(filler: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": filler}, {"from": "gpt", "value": "So."}]


@pytest.mark.parametrize("write", [big_lines, big_array, big_parquet, big_tar])
def test_a_set_much_larger_than_memory_streams(tmp_path: Path, write: Callable[[Path, int, str], Path]) -> None:
    import pyarrow as pa

    path = write(tmp_path, 400, "x" * 100_000)
    limit = path.stat().st_size // 20
    assert limit > 1_900_000
    source = open_rows(path)
    next(iter(source))  # what is loaded once is loaded now
    tracemalloc.start()
    arrow = pa.total_allocated_bytes()
    most = count = 0
    try:
        for row in source:
            assert isinstance(row, Row)
            count += 1
            most = max(most, pa.total_allocated_bytes() - arrow)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 400
    assert peak < limit
    # A parquet file is read by row group, here of 20 rows, and pages of it are held twice.
    assert most <= 3 * limit


def test_pictures_in_shards_say_when_the_shard_changed(rows: list[Row], tmp_path: Path) -> None:
    parquet, tars = as_parquet(rows, tmp_path), as_tar(rows, tmp_path)
    inside = [next(row for row in open_rows(path) if isinstance(row, Row)).pictures[0] for path in (parquet, tars)]
    assert [type(picture) for picture in inside] == [PictureInTable, PictureInTar]
    assert [picture.name for picture in inside] == ["rows.parquet[0].images", "00000.tar/000a.png"]
    assert inside[0].read() == inside[1].read() == rows[0].pictures[0].read()
    as_dataset(rows[1:2]).to_parquet(parquet)
    (tars / "00000.tar").write_bytes(b"short")
    for picture in inside:
        with pytest.raises(ImageError, match="where its row saw it"):
            picture.read()
    parquet.unlink()
    (tars / "00000.tar").unlink()
    for picture in inside:
        assert not picture.exists()
        with pytest.raises(ImageError, match="cannot be read: No such file"):
            picture.load()
    parquet.write_bytes(b"PAR1 and no more")
    with pytest.raises(ImageError, match="cannot be read"):
        inside[0].read()
    with pytest.raises(DataError, match="cannot be read"):
        open_rows(parquet)
