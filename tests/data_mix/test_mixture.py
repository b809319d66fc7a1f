"""`bluelm data mix`: what it draws of real files, what it tells, what it refuses."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stages.artifacts.folder import open_artifact
from stages.workshop.corpus import mixture_draw
from stages.workshop.corpus.readers.opening import open_rows
from stages.workshop.corpus.readers.source import all_rows
from stages.workshop.corpus.row import Row

Run = Callable[..., Any]


def rows_of(out: Path, split: str = "train") -> list[Row]:
    return all_rows(open_rows(out, split=split))


def source_of(row: Row) -> str:
    return row.name.partition("/")[0]


def test_a_mixture_has_the_shares_that_were_asked_for(mix: Run, tmp_path: Path, sets: dict[str, Path]) -> None:
    out = tmp_path / "out"
    done = mix(out, "--total", 200)
    assert done.code == 0, done.err
    rows = rows_of(out)
    assert Counter(map(source_of, rows)) == {"vqa": 100, "ocr": 50, "text": 50}
    # Drawn rows are the sources' own: their texts and their pictures.
    known = {name: {row.turns: row for row in all_rows(open_rows(path))} for name, path in sets.items()}
    for row in rows:
        original = known[source_of(row)][row.turns]
        assert [picture.digest() for picture in row.pictures] == [picture.digest() for picture in original.pictures]
    # A small set is repeated evenly; where it need not be, no row comes twice.
    times = Counter(row.turns for row in rows if source_of(row) == "ocr")
    assert len(times) == 30 and set(times.values()) == {1, 2}
    assert max(Counter(row.turns for row in rows if source_of(row) != "ocr").values()) == 1
    assert len({row.name for row in rows}) == 200
    # Shuffled: none of the sources keeps to itself.
    assert all(set(map(source_of, rows[start : start + 40])) == {"vqa", "ocr", "text"} for start in range(0, 200, 40))
    report = done.json()
    assert [(source["name"], source["drawn"], source["share_drawn"]) for source in report["sources"]] == [
        *(("vqa", 100, 0.5), ("ocr", 50, 0.25), ("text", 50, 0.25))
    ]
    assert report["sources"][1]["times"] == pytest.approx(50 / 30) and report["sources"][1]["pictures"] == 30
    assert [(item["name"], item["share_asked"], item["share_drawn"]) for item in report["categories"]] == [
        *(("vqa", 0.5, 0.5), ("ocr", 0.25, 0.25), ("text", 0.25, 0.25))
    ]
    manifest = open_artifact(out, "corpus").manifest
    assert manifest is not None and manifest.metrics["mixture"]["rows"] == 200
    assert str(tmp_path) not in json.dumps(manifest.model_dump()["config"])
    assert manifest.metrics["splits"]["train"]["pictures"] == len({picture for row in rows for picture in row.pictures})


def test_the_same_seed_gives_the_same_rows_and_another_others(
    mix: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = mix(tmp_path / "one", "--total", 200, "--seed", 5)
    assert "up to date" in mix(tmp_path / "one", "--total", 200, "--seed", 5).err
    mix(tmp_path / "two", "--total", 200, "--seed", 5)
    assert open_artifact(tmp_path / "one", "corpus").digest == open_artifact(tmp_path / "two", "corpus").digest
    mix(tmp_path / "other", "--total", 200, "--seed", 6)
    one, other = rows_of(tmp_path / "one"), rows_of(tmp_path / "other")
    assert [row.name for row in one] != [row.name for row in other]
    assert {row.turns for row in one if source_of(row) == "vqa"} != {
        row.turns for row in other if source_of(row) == "vqa"
    }
    refused = mix(tmp_path / "one", "--total", 100, "--seed", 5)
    assert refused.code == 2 and "total is 200, not 100" in refused.err
    # By way of many files on disk, as for sets larger than memory, the same rows come, in another order.
    monkeypatch.setattr(mixture_draw, "_ROWS_IN_MEMORY", 10)
    assert mix(tmp_path / "large", "--total", 200, "--seed", 5).json()["sources"] == done.json()["sources"]
    assert sorted(row.name for row in rows_of(tmp_path / "large")) == sorted(row.name for row in one)
    assert not list((tmp_path / "large").glob(".*"))


def test_what_is_too_small_and_what_is_missing_is_said(mix: Run, tmp_path: Path) -> None:
    done = mix(tmp_path / "out", "--total", 1000, without=("text",))
    assert done.code == 0, done.err
    assert "not given: text; their places stay empty" in done.err
    assert "ocr is too small: its share is 250 rows, it gives 120 (30 rows, each at most 4 times)" in done.err
    report = done.json()
    assert (report["rows"], report["missing"], report["short"]) == (620, ["text"], ["ocr"])
    filled = mix(tmp_path / "filled", "--total", 1000, "--renormalize", "--fill", without=("text",))
    assert {source["name"]: source["drawn"] for source in filled.json()["sources"]} == {
        "vqa": 880,
        "ocr": 120,
        "text": 0,
    }
    assert filled.json()["sources"][0]["share_aimed"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("heldout", ["0.2", "90"])
def test_a_held_out_split_shares_no_picture(mix: Run, tmp_path: Path, sets: dict[str, Path], heldout: str) -> None:
    # The same pictures lie elsewhere too, under other names, and some rows have two of them.
    twice = tmp_path / "ocr" / "rows.json"
    rows = json.loads(twice.read_text())
    for number in range(30):
        data = (tmp_path / "vqa" / f"{number}.png").read_bytes()
        (tmp_path / "ocr" / f"{number}.png").write_bytes(data)
        if number < 10:
            rows[number]["image"] = [f"{number}.png", f"{number + 10}.png"]
            rows[number]["conversations"][0]["value"] = "<image><image>\nWhat differs?"
    twice.write_text(json.dumps(rows))
    done = mix(tmp_path / "out", "--heldout", heldout)
    assert done.code == 0, done.err
    train, apart = rows_of(tmp_path / "out"), rows_of(tmp_path / "out", "heldout")
    digests = [{picture.digest() for row in side for picture in row.pictures} for side in (train, apart)]
    assert digests[0].isdisjoint(digests[1]) and digests[1]
    assert {row.turns for row in train}.isdisjoint(row.turns for row in apart if not row.pictures)
    report = done.json()
    counted = [sum(source[key] for source in report["sources"]) for key in ("rows", "heldout", "between", "unusable")]
    assert sum(counted) == 480 and counted[1] == len(apart) and counted[3] == 0
    assert counted[2] > 0 and "have pictures on both sides of the split" in done.err
    if heldout == "90":
        assert 80 < len(apart) <= 90
    else:
        assert 0.1 < len(apart) / 480 < 0.3


def test_rows_that_cannot_be_used_are_listed(mix: Run, tmp_path: Path, sets: dict[str, Path]) -> None:
    rows = json.loads(sets["ocr"].read_text())
    rows[3]["conversations"] = "none"
    sets["ocr"].write_text(json.dumps(rows))
    (tmp_path / "ocr" / "7.png").unlink()
    done = mix(tmp_path / "out", "--total", 100)
    assert done.code == 0, done.err
    listed = [json.loads(line) for line in (tmp_path / "out" / "left_out.jsonl").read_text().splitlines()]
    assert [(line["source"], line["id"]) for line in listed] == [("ocr", "3"), ("ocr", "7")]
    assert "conversations" in listed[0]["reason"] and "7.png does not exist" in listed[1]["reason"]
    assert "ocr: 2 rows cannot be used; left_out.jsonl tells why" in done.err
    assert done.json()["sources"][1]["rows"] == 28


def test_pictures_are_copied_where_that_is_asked(mix: Run, tmp_path: Path) -> None:
    assert mix(tmp_path / "out", "--total", 200, "--copy-pictures").code == 0
    rows = rows_of(tmp_path / "out")
    paths = {picture.root / picture.name for row in rows for picture in row.pictures}
    assert {path for path in (tmp_path / "out" / "images").rglob("*") if path.is_file()} == paths
    assert "roots" not in json.loads((tmp_path / "out" / "index.json").read_text())
    mix(tmp_path / "in-place", "--total", 200)
    others = rows_of(tmp_path / "in-place")
    assert [[picture.read() for picture in row.pictures] for row in rows] == [
        [picture.read() for picture in row.pictures] for row in others
    ]


def test_tokens_are_counted(mix: Run, tmp_path: Path, project_root: Path) -> None:
    from tokenizers import Tokenizer

    folder = project_root / "recipes" / "demo"
    done = mix(tmp_path / "out", "--total", 40, "--tokenizer", folder)
    assert done.code == 0, done.err
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    counted: Counter[str] = Counter()
    for row in rows_of(tmp_path / "out"):
        counted[source_of(row)] += sum(
            len(tokenizer.encode(turn.text, add_special_tokens=False).ids) for turn in row.turns
        )
    assert {source["name"]: source["tokens"] for source in done.json()["sources"]} == counted
    broken = mix(tmp_path / "none", "--tokenizer", tmp_path / "vqa" / "0.png")
    assert broken.code == 2 and "is no tokenizer" in broken.err


def test_a_plan_writes_nothing(bluelm: Run, mix: Run, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    plan = mix(tmp_path / "out", "--total", 1000, "--dry-run")
    assert plan.code == 0 and plan.json()["dry_run"] and plan.json()["rows"] == 500 + 120 + 200
    assert "ocr is too small" in plan.err and "text is too small" in plan.err
    assert sorted(tmp_path.rglob("*")) == before


def test_sources_without_a_recipe_go_by_their_rows(bluelm: Run, sets: dict[str, Path], tmp_path: Path) -> None:
    given = [word for name, path in sets.items() for word in ("--source", f"{name}={path}")]
    done = bluelm("data", "mix", *given, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert "480 rows" in done.out and "vqa" in done.out
    assert len(rows_of(tmp_path / "out")) == 480


def test_a_mixture_of_mixtures_keeps_all_pictures(bluelm: Run, mix: Run, tmp_path: Path) -> None:
    assert mix(tmp_path / "first", "--total", 60).code == 0
    done = bluelm("data", "mix", "--source", f"a={tmp_path / 'first'}", "--out", tmp_path / "second")
    assert done.code == 0, done.err
    names = {row.name.partition("/")[2]: row for row in rows_of(tmp_path / "second")}
    for row in rows_of(tmp_path / "first"):
        assert [picture.digest() for picture in names[row.name].pictures] == [
            picture.digest() for picture in row.pictures
        ]


def test_a_source_that_changes_meanwhile_is_noticed(mix: Run, tmp_path: Path, sets: dict[str, Path]) -> None:
    from stages import data_mix
    from stages.artifacts.errors import DataError
    from stages.artifacts.events import Progress
    from stages.artifacts.recipes import validate
    from stages.workshop.corpus.mixture import Mixture

    config = validate(Mixture, {"sources": {"vqa": {"path": str(sets["vqa"])}}}, "the test")
    with pytest.raises(DataError, match="changed while it was read"):
        for event in data_mix.run(config, tmp_path / "out"):
            if isinstance(event, Progress) and event.label == "reading vqa":
                sets["vqa"].write_text(json.dumps(json.loads(sets["vqa"].read_text())[:390]))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--source", "vqa"), "--source vqa has no name and path"),
        (("--source", "vqa=missing.json"), "vqa: missing.json cannot be read"),
        (("--source", "vaq=rows.json"), "Did you mean vqa?"),
        (("--total", "many"), "total"),
        (("--heldout", "1.5"), "neither a share nor a number"),
        (("--images", "text=nowhere", "--source", "text=text.json"), "not one row of text.json can be used"),
    ],
)
def test_what_does_not_fit_is_told(
    bluelm: Run, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"id": 1, "image": "1.png", "conversations": [{"from": "human", "value": "<image>?"}]}]
    (tmp_path / "text.json").write_text(json.dumps(rows))
    done = bluelm("data", "mix", "--recipe", recipe, *words, "--out", tmp_path / "out")
    assert done.code == 2 and told in done.err, done.err
    assert not (tmp_path / "out").exists()


def test_nothing_given_is_told(bluelm: Run, recipe: Path, tmp_path: Path) -> None:
    done = bluelm("data", "mix", "--recipe", "mix-table1.yaml", "--out", tmp_path / "out")
    assert done.code == 2 and "No source has a path" in done.err and "vqa-in-house" in done.err
    assert bluelm("data", "mix").code == 2


def test_pictures_in_shards_are_mixed_in_place_or_copied_out(
    bluelm: Run, sets: dict[str, Path], tmp_path: Path
) -> None:
    import io
    import tarfile

    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "tars").mkdir()
    cells: list[dict[str, Any]] = []
    with tarfile.open(tmp_path / "tars" / "00.tar", "w") as tar:
        for number in range(20):
            stream = io.BytesIO()
            Image.new("RGB", (8, 8), (number, 200, 0)).save(stream, "PNG")
            turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": f"tar {number}"}]
            row = json.dumps({"conversations": turns}).encode()
            for name, data in ((f"{number:03d}.png", stream.getvalue()), (f"{number:03d}.json", row)):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
            turns = [*turns[:1], {"from": "gpt", "value": f"table {number}"}]
            cells.append({"image": {"bytes": stream.getvalue(), "path": None}, "conversations": turns})
    pq.write_table(pa.Table.from_pylist(cells), tmp_path / "rows.parquet")
    places = {"tar": tmp_path / "tars", "table": tmp_path / "rows.parquet", "files": sets["ocr"]}
    given = [word for name, path in places.items() for word in ("--source", f"{name}={path}")]
    contents = []
    for out, more in ((tmp_path / "in-place", ()), (tmp_path / "copied", ("--copy-pictures",))):
        done = bluelm("data", "mix", *given, "--heldout", 0.3, "--out", out, "--json", *more)
        assert done.code == 0, done.err
        sides = [{row.name: row for row in rows_of(out, split)} for split in ("train", "heldout")]
        assert len(sides[0]) + len(sides[1]) == 70
        digests = [{picture.digest() for row in side.values() for picture in row.pictures} for side in sides]
        assert digests[0].isdisjoint(digests[1]) and all(digests)
        contents.append(
            {row.turns: [picture.read() for picture in row.pictures] for side in sides for row in side.values()}
        )
    assert contents[0] == contents[1]
