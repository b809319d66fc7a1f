"""data check through the command line: what is told, what is kept, what an interruption and a moved folder leave."""

from __future__ import annotations

import json
import os
import resource
import sys
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages import data_check
from stages.artifacts.events import result_of
from stages.artifacts.folder import open_artifact
from stages.device.imaging.sources import list_pictures
from stages.workshop.corpus import checking, checking_pool
from stages.workshop.corpus.checking import KINDS, Finding, Length
from stages.workshop.corpus.readers.opening import open_rows
from stages.workshop.corpus.readers.source import all_rows
from stages.workshop.corpus.row import BadRow, Row
from stages.workshop.training.sources import FreshPreset

Run = Callable[..., Any]


def row(name: str, image: Any, *said: str) -> dict[str, Any]:
    turns = [{"from": ("human", "gpt")[index % 2], "value": text} for index, text in enumerate(said)]
    return {"id": name, "conversations": turns} | ({} if image is None else {"image": image})


ASKED = "<image>\nWhat is it?"
GOOD = [
    row("one", "a.png", ASKED, "A bear."),
    row("two", ["a.png", "deep/b.jpg"], "<image>\n<image>\nThe same?", "No.", "Sure?", "Yes."),
    row("text", None, "Why?", "So."),
    row("system", "deep/b.jpg", ASKED, "A wolf.") | {"task": "animals"},
]
GOOD[3]["conversations"].insert(0, {"from": "system", "value": "Be brief."})
BAD: dict[str, Any] = {
    "form": {"id": "form", "conversations": 3},
    "role": {"id": "role", "conversations": [{"from": "cat", "value": "Miau"}]},
    "outside": row("outside", "../a.png", ASKED, "?"),
    "marks": row("marks", "a.png", "What?", "?"),
    "missing-picture": row("missing-picture", "gone.png", ASKED, "?"),
    "broken-picture": row("broken-picture", "broken.png", ASKED, "?"),
    "empty-turn": row("empty-turn", "a.png", ASKED, " \n"),
    "role-order": row("role-order", "a.png", ASKED),
    "characters": row("characters", None, "Bell\x07", "Ding"),
    "too-long": row("too-long", None, "word " * 300, "?"),
    "duplicate": row("again", "copy.png", ASKED, "A bear."),
    "same-pictures": row("other", "copy.png", "<image>\nWho is it?", "A bear."),
}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    (folder / "copy.png").write_bytes((folder / "a.png").read_bytes())
    Image.fromarray(pixels[:20]).save(folder / "deep" / "b.jpg")
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:900])
    return folder


def write(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("\n".join(json.dumps(item) for item in rows), encoding="utf-8")
    return path


def test_every_kind_of_problem_is_told_and_only_good_rows_stay(bluelm: Run, tmp_path: Path, pictures: Path) -> None:
    data = write(tmp_path / "data.jsonl", [*GOOD, *BAD.values()])
    data.write_text(data.read_text() + '\n{"id": "json"\n', encoding="utf-8")
    words = ("data", "check", data, "--images", pictures, "--preset", "tiny", "--sequence-length", 200, "--threads", 1)
    done = bluelm(*words, "--out", tmp_path / "clean", "--json")
    assert done.code == 0, done.err
    report = done.json()
    assert set(report["problems"]) == set(KINDS) - {"shard"}
    assert all(found["rows"] == 1 and found["what"] for found in report["problems"].values())
    assert (report["rows"], report["kept"], report["dropped"]) == (17, 5, 12)
    dropped = [json.loads(line) for line in (tmp_path / "clean" / "dropped.jsonl").read_text().splitlines()]
    assert {item["problems"][0]["kind"]: item["line"] for item in dropped} == {
        **{kind: number for number, kind in enumerate(BAD, start=5) if kind != "same-pictures"},
        "json": 17,
    }
    texts = {item["problems"][0]["kind"]: item["problems"][0]["text"] for item in dropped}
    assert texts["missing-picture"] == f"the picture {pictures}/gone.png does not exist"
    assert texts["broken-picture"].startswith(f"{pictures}/broken.png is a broken picture")
    assert texts["duplicate"] == "it says what train one says"
    assert texts["characters"] == "turn 0 holds the control character U+0007"
    assert texts["too-long"].endswith("tokens, a sequence has 200")
    # What is kept are the good rows themselves, and it is what training, tiling and asking read.
    wanted = write(tmp_path / "wanted.jsonl", [*GOOD, BAD["same-pictures"]])
    kept = all_rows(open_rows(tmp_path / "clean"))
    assert kept == all_rows(open_rows(wanted, images=pictures))
    assert [picture.path for picture in list_pictures([tmp_path / "clean"])] == [
        pictures / name for name in ("a.png", "deep/b.jpg", "copy.png")
    ]
    index = json.loads((tmp_path / "clean" / "index.json").read_text())
    assert index["splits"]["train"] == {"pictures": 2, "rows": 5, "questions": {"animals": 1}}
    assert index["roots"] == [str(pictures)]
    assert open_artifact(tmp_path / "clean", "corpus").manifest is not None
    strict = bluelm(*words, "--out", tmp_path / "clean", "--strict")
    assert strict.code == 2
    assert "is up to date" in strict.err
    assert f"12 of 17 rows of {data} cannot be used" in strict.err
    assert "dropped.jsonl" in strict.err
    assert "one: " not in strict.out and "too-long: it has" in strict.out


def test_a_set_without_problems_passes_strictly_with_pictures_copied_once(
    bluelm: Run, tmp_path: Path, pictures: Path
) -> None:
    data = write(tmp_path / "data.json", GOOD)
    words = ("data", "check", data, "--images", pictures, "--copy-pictures", "--strict", "--out", tmp_path / "clean")
    done = bluelm(*words, "--threads", 2, "--set", "splits=[train]")
    assert done.code == 0, done.err
    clean = open_rows(tmp_path / "clean")
    kept = all_rows(clean)
    given = all_rows(open_rows(data, images=pictures))
    assert [row.turns for row in kept] == [row.turns for row in given]
    read = [[picture.read() for picture in row.pictures] for row in given]
    assert [[picture.read() for picture in row.pictures] for row in kept] == read
    copies = sorted(path.suffix for path in (tmp_path / "clean" / "images").rglob("*.*"))
    assert copies == [".jpg", ".png"]
    # It stands alone, and can be moved.
    for path in pictures.rglob("*.*"):
        path.unlink()
    (tmp_path / "clean").rename(tmp_path / "moved")
    moved = all_rows(open_rows(tmp_path / "moved"))
    assert [[picture.read() for picture in row.pictures] for row in moved] == read
    report = json.loads((tmp_path / "moved" / "report.json").read_text())
    assert report["dropped"] == 0 and set(report["problems"]) == set()


def test_pictures_in_place_that_were_moved_are_an_error(bluelm: Run, tmp_path: Path, pictures: Path) -> None:
    data = write(tmp_path / "data.jsonl", GOOD)
    out = tmp_path / "clean"
    assert bluelm("data", "check", data, "--images", pictures, "--threads", 1, "--out", out).code == 0
    pictures.rename(tmp_path / "elsewhere")
    train = ("pretrain", "--data", out, "--preset", "tiny", "--recipe", "tiny/pretrain.yaml", "--dry-run")
    lost = bluelm(*train)
    assert lost.code == 2
    assert f"its pictures lie in {pictures}, which does not exist any more" in lost.err
    assert "--images" in lost.err and "--copy-pictures" in lost.err
    found = bluelm(*train, "--images", tmp_path / "elsewhere", "--json")
    assert found.code == 0, found.err
    assert found.json()["conversations"] == 4


def test_splits_share_no_row(bluelm: Run, tmp_path: Path, pictures: Path) -> None:
    corpus = tmp_path / "corpus"
    pictures.rename(corpus)
    (corpus / "train.json").write_text(json.dumps(GOOD[:2]))
    (corpus / "heldout.json").write_text(json.dumps([GOOD[0], GOOD[3]]))
    count = {"pictures": 1, "rows": 2, "questions": {}}
    (corpus / "index.json").write_text(json.dumps({"splits": {"train": count, "heldout": count}}))
    plan = bluelm("data", "check", corpus, "--dry-run", "--json").json()
    assert plan["splits"] == {"train": {"rows": 2, "files": 1}, "heldout": {"rows": 2, "files": 1}}
    done = bluelm("data", "check", corpus, "--threads", 1, "--out", tmp_path / "clean", "--json")
    report = done.json()
    assert {name: split["kept"] for name, split in report["splits"].items()} == {"train": 2, "heldout": 1}
    assert report["problems"]["duplicate"]["first"] == [
        {"split": "heldout", "row": "one", "problem": "it says what train one says"}
    ]
    assert [row.name for row in all_rows(open_rows(tmp_path / "clean", split="heldout"))] == ["system"]


def test_processes_and_formats_change_nothing(bluelm: Run, tmp_path: Path, pictures: Path) -> None:
    rows = [row(f"r{number}", None, f"{number}?", "So.") for number in range(150)]
    rows[70:70] = [*GOOD, BAD["broken-picture"], BAD["duplicate"]]
    data = write(tmp_path / "data.jsonl", rows)
    reports = []
    for threads in (1, 2):
        out = tmp_path / f"clean{threads}"
        done = bluelm("data", "check", data, "--images", pictures, "--threads", threads, "--out", out, "--json")
        assert done.code == 0, done.err
        reports.append({key: value for key, value in done.json().items() if key != "out"})
        assert [row.name for row in all_rows(open_rows(out))][68:75] == ["r68", "r69", *(g["id"] for g in GOOD), "r70"]
    assert reports[0] == reports[1]
    assert open_artifact(tmp_path / "clean1", "corpus").digest == open_artifact(tmp_path / "clean2", "corpus").digest
    with tarfile.open(tmp_path / "data.tar", "w") as tar:
        for item in GOOD:
            names = item.get("image", [])
            for index, name in enumerate([names] if isinstance(names, str) else names):
                tar.add(pictures / name, f"{item['id']}.{index}{Path(name).suffix}")
            text = tmp_path / "row.json"
            text.write_text(json.dumps(item))
            tar.add(text, f"{item['id']}.json")
    assert bluelm("data", "check", tmp_path / "data.tar", "--threads", 1, "--out", tmp_path / "tarred").code == 0
    kept = all_rows(open_rows(tmp_path / "tarred"))
    assert [row.turns for row in kept] == [row.turns for row in all_rows(open_rows(data, images=pictures))[70:74]]
    assert kept[0].pictures[0].read() == (pictures / "a.png").read_bytes()
    tiled = bluelm("tile", tmp_path / "tarred", "--preset", "tiny", "--out", tmp_path / "tiles")
    assert tiled.code == 0, tiled.err


class StoppedError(Exception):
    """A kill, as far as a test can send one."""


def test_a_stopped_check_goes_on(tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write(tmp_path / "data.jsonl", [*GOOD, *BAD.values()])
    inputs = data_check.CheckInputs(data, pictures)
    config = data_check.CheckConfig(copy_pictures=True)
    whole = result_of(data_check.run(config, inputs, tmp_path / "whole", threads=1))
    looked: list[str | None] = []
    check_row = checking.check_row

    def stopping(item: Row | BadRow, length: Length | None, look: checking.Look) -> Finding:
        looked.append(item.name)
        if len(looked) == 8:
            raise StoppedError
        return check_row(item, length, look)

    monkeypatch.setattr(checking_pool, "check_row", stopping)
    out = tmp_path / "out"
    with pytest.raises(StoppedError):
        result_of(data_check.run(config, inputs, out, threads=1))
    assert not out.exists()
    log = tmp_path / ".out.partial" / "findings-train.jsonl"
    log.write_text(log.read_text() + '[[["marks", "half a li')
    resumed = result_of(data_check.run(config, inputs, out, threads=1))
    # The first seven were found before; the one that was stopped at and those behind it are looked at.
    assert len(looked) == 8 + len(GOOD) + len(BAD) - 7
    assert resumed.report == whole.report
    for name in ("train.json", "dropped.jsonl", "findings-train.jsonl", "index.json"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert open_artifact(out, "corpus").digest == open_artifact(tmp_path / "whole", "corpus").digest


def test_a_full_disk_is_said_and_the_check_goes_on(
    bluelm: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write(tmp_path / "data.jsonl", [row(str(number), None, f"Why {number}?", "So.") for number in range(2000)])
    words = ("data", "check", data, "--threads", 1, "--out", tmp_path / "clean", "--json")
    unseen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", unseen.append)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # No file may grow beyond so many bytes, as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, hard))
    try:
        full = bluelm(*words)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert full.code == 2 and "cannot be written: File too large" in full.err, full.err
    assert not unseen and not (tmp_path / "clean").exists()
    done = bluelm(*words)
    assert done.code == 0 and done.json()["kept"] == 2000
    assert "going on where an earlier run stopped" in done.err


def test_a_picture_that_comes_later_makes_it_again(bluelm: Run, tmp_path: Path, pictures: Path) -> None:
    data = write(tmp_path / "data.jsonl", [*GOOD, BAD["missing-picture"]])
    words = ("data", "check", data, "--images", pictures, "--threads", 1, "--out", tmp_path / "clean", "--json")
    assert bluelm(*words).json()["kept"] == 4
    (pictures / "a.png").rename(pictures / "gone.png")
    (pictures / "a.png").write_bytes((pictures / "deep" / "b.jpg").read_bytes())
    again = bluelm(*words)
    assert again.code == 2 and "made from other inputs" in again.err
    assert bluelm(*words, "--force").json()["kept"] == 5


def test_tokens_are_counted_as_training_counts_them(tmp_path: Path, pictures: Path) -> None:
    from stages.workshop.training.data import prepare, read_rows, texts_of
    from stages.workshop.training.recipe import TrainRecipe

    data = write(tmp_path / "data.jsonl", GOOD)
    config = data_check.CheckConfig(preset="tiny", sequence_length=4096)
    result_of(data_check.run(config, data_check.CheckInputs(data, pictures), tmp_path / "clean", threads=1))
    lines = (tmp_path / "clean" / "findings-train.jsonl").read_text().splitlines()
    rows = read_rows(open_rows(data, images=pictures))
    outline = FreshPreset("tiny").outline(texts_of(rows))
    length = outline.config.text_config.max_position_embeddings
    everything = [{"parameters": "*"}]
    recipe = TrainRecipe(trained=everything, learning_rate=1e-3, steps=1, global_batch=1, sequence_length=length)
    preparing = prepare(rows, outline, recipe, None)
    try:
        while True:
            next(preparing)
    except StopIteration as end:
        prepared = end.value
    assert [Finding.of_line(line + "\n").tokens for line in lines] == [len(s.ids) for s in prepared.samples]
    assert len(prepared.samples) == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere", "--out", "x"), "nowhere cannot be read: No such file"),
        (("data.jsonl",), "--out is missing"),
        (("data.jsonl", "--format", "csv", "--out", "x"), "There is no format 'csv'"),
        (("data.jsonl", "--preset", "tiny", "--model", "m", "--out", "x"), "A preset and --model are both given"),
        (("data.jsonl", "--preset", "tinny", "--out", "x"), "no preset 'tinny'"),
        (("data.jsonl", "--split", "train", "--model", "m", "--out", "x"), "m does not exist"),
        (("data.jsonl", "--split", "test", "--out", "x"), "data.jsonl tells of no split 'test'"),
        (("pipe", "--out", "x"), "pipe is no file"),
    ],
)
def test_what_cannot_be_done_is_said(
    bluelm: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    write(tmp_path / "data.jsonl", GOOD[2:3])
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    done = bluelm("data", "check", *words)
    assert done.code == 2
    assert said in done.err
    assert not (tmp_path / "x").exists()


def test_real_rows_without_their_pictures(bluelm: Run, data_dir: Path, tmp_path: Path) -> None:
    data = data_dir / "llava_format" / "llava_v1_5_mix200.json"
    done = bluelm("data", "check", data, "--threads", 1, "--out", tmp_path / "clean", "--strict", "--json")
    assert done.code == 2
    report = done.json()
    assert report["problems"]["missing-picture"]["rows"] == report["dropped"] > 100
    assert report["kept"] == 200 - report["dropped"]


def test_real_broken_pictures(bluelm: Run, data_dir: Path, tmp_path: Path) -> None:
    names = sorted(path.name for path in (data_dir / "img_edge").iterdir())
    data = write(tmp_path / "data.jsonl", [row(name, name, ASKED, name) for name in names])
    words = ("--images", data_dir / "img_edge", "--threads", 1, "--out", tmp_path / "clean", "--json")
    report = bluelm("data", "check", data, *words).json()
    dropped = {json.loads(line)["id"] for line in (tmp_path / "clean" / "dropped.jsonl").read_text().splitlines()}
    assert {"broken.png", "truncated_image.png", "decompression_bomb.gif", "zero_width.gif", "SOURCE.txt"} <= dropped
    assert {"hopper_orientation_6.jpg", "16_bit_binary.pgm", "iss634.apng"} <= set(names) - dropped
    assert report["dropped"] == len(dropped)
