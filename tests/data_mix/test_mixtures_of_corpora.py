"""`bluelm data mix` over corpora: copies of rows, held-out splits, and what is never written over."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stages.workshop.corpus.readers.opening import open_rows
from stages.workshop.corpus.readers.source import all_rows
from stages.workshop.corpus.row import Row

Run = Callable[..., Any]


def rows_of(out: Path, split: str = "train") -> list[Row]:
    return all_rows(open_rows(out, split=split))


def source_of(row: Row) -> str:
    return row.name.partition("/")[0]


def test_rows_repeated_on_purpose_pass_a_check_and_those_that_came_twice_do_not(
    bluelm: Run, mix: Run, tmp_path: Path, sets: dict[str, Path]
) -> None:
    twice = json.loads(sets["ocr"].read_text())
    sets["ocr"].write_text(json.dumps([*twice, {**twice[0], "id": "again"}]))
    assert mix(tmp_path / "mixture", "--total", 400).code == 0
    rows = rows_of(tmp_path / "mixture")
    copies = Counter(row.turns for row in rows if source_of(row) == "ocr")
    assert min(copies.values()) >= 3
    report = bluelm("data", "check", tmp_path / "mixture", "--threads", 1, "--out", tmp_path / "clean", "--json").json()
    (most,) = {count for turns, count in copies.items() if twice[0]["conversations"][1]["value"] == turns[1].text}
    assert set(report["problems"]) <= {"duplicate", "same-pictures"}
    assert report["dropped"] == report["problems"]["duplicate"]["rows"] == most // 2
    # A mixture of what is left tells its copies apart again.
    again = ("--source", f"m={tmp_path / 'clean'}", "--set", "sources.m.repeat=2", "--total", 2 * report["kept"])
    assert bluelm("data", "mix", *again, "--out", tmp_path / "again").code == 0
    last = bluelm("data", "check", tmp_path / "again", "--threads", 1, "--out", tmp_path / "last", "--json").json()
    assert (last["kept"], last["dropped"]) == (2 * report["kept"], 0)


def test_the_sources_own_held_out_rows_are_taken_whole(bluelm: Run, tmp_path: Path, sets: dict[str, Path]) -> None:
    first = bluelm("data", "mix", "--source", f"a={sets['ocr']}", "--heldout", 5, "--out", tmp_path / "first")
    assert first.code == 0, first.err
    given = ("--source", f"one={tmp_path / 'first'}", "--source", f"text={sets['text']}", "--json")
    left = bluelm("data", "mix", *given, "--out", tmp_path / "left")
    assert "one: held-out rows of their own are not taken; --heldout own takes them" in left.err
    done = bluelm("data", "mix", *given, "--heldout", "own", "--out", tmp_path / "both")
    assert done.code == 0 and "held-out" not in done.err, done.err
    for split in ("train", "heldout"):
        before, after = (
            {row.turns: [picture.digest() for picture in row.pictures] for row in rows_of(tmp_path / name, split)}
            for name in ("first", "both")
        )
        assert {turns: after.pop(turns) for turns in before} == before
        assert len(after) == (50 if split == "train" else 0)
    assert [source["heldout"] for source in done.json()["sources"]] == [5, 0]
    none = bluelm("data", "mix", "--source", f"a={sets['ocr']}", "--heldout", "own", "--out", tmp_path / "none")
    assert none.code == 2 and "No source has a held-out split of its own" in none.err


def test_a_mixture_never_takes_the_place_of_what_it_is_made_of(
    bluelm: Run, mix: Run, tmp_path: Path, sets: dict[str, Path]
) -> None:
    assert mix(tmp_path / "first", "--total", 60, "--copy-pictures").code == 0
    assert bluelm("data", "mix", "--source", f"a={tmp_path / 'first'}", "--out", tmp_path / "second").code == 0
    before = sorted((tmp_path / "first").rglob("*"))
    for verb in (
        ("mix", "--source", f"a={tmp_path / 'first'}"),
        ("check", tmp_path / "first"),
        ("check", tmp_path / "first" / "train.json"),
        # Its pictures lie in the first.
        ("check", tmp_path / "second"),
        ("revise", tmp_path / "first", "--endpoint", "http://localhost:1", "--model", "m"),
    ):
        done = bluelm("data", *verb, "--out", tmp_path / "first", "--force")
        assert done.code == 2 and "an input" in done.err and "would be lost" in done.err, (verb, done.err)
    assert sorted((tmp_path / "first").rglob("*")) == before


def test_pictures_of_a_source_that_is_not_given_are_refused(bluelm: Run, sets: dict[str, Path], tmp_path: Path) -> None:
    given = ("--source", f"vqa={sets['vqa']}", "--images", f"vqaa={tmp_path}")
    done = bluelm("data", "mix", *given, "--out", tmp_path / "out")
    assert done.code == 2 and "--images vqaa=" in done.err and "Sources: vqa." in done.err
