"""`bluelm info` and `bluelm doctor`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.artifacts.folder import ArtifactSpec, create
from stages.artifacts.manifest import Parent, parent_of


def make(out: Path, kind: str = "corpus", parents: tuple[Any, ...] = (), **config: object) -> Path:
    with create(out, ArtifactSpec(kind, "data render", dict(config), seed=1, parents=parents), force=True) as draft:
        (draft.path / "a.bin").write_bytes(b"12345")
    return out


def test_info_shows_kind_size_and_lineage(tmp_path: Path, bluelm: Callable[..., Any]) -> None:
    source = make(tmp_path / "source", count=1)
    made = make(tmp_path / "made", "checkpoint", (parent_of(source),))
    shown = bluelm("info", made, "--json")
    assert shown.code == 0
    assert shown.json()["kind"] == "checkpoint"
    assert shown.json()["bytes"] == 5
    assert [(step["kind"], step["state"]) for step in shown.json()["lineage"]] == [("corpus", "unchanged")]
    table = bluelm("info", made)
    assert table.code == 0
    assert "checkpoint" in table.out
    assert str(source) in table.out.replace("\n", "")


def test_info_says_when_a_parent_changed_or_left(tmp_path: Path, bluelm: Callable[..., Any]) -> None:
    source = make(tmp_path / "source", count=1)
    made = make(tmp_path / "made", "checkpoint", (parent_of(source),))
    source.rename(tmp_path / "elsewhere")
    assert bluelm("info", made, "--json").json()["lineage"][0]["state"] == "not on disk"
    make(source, count=2)
    assert bluelm("info", made, "--json").json()["lineage"][0]["state"] == "changed since"


def test_a_changed_parent_is_not_followed(tmp_path: Path, bluelm: Callable[..., Any]) -> None:
    made = make(tmp_path / "made", parents=(Parent(path=str(tmp_path / "made"), digest="0" * 64),))
    steps = bluelm("info", made, "--json").json()["lineage"]
    assert [(step["depth"], step["state"]) for step in steps] == [(1, "changed since")]


def test_a_damaged_parent_is_said_to_be(tmp_path: Path, bluelm: Callable[..., Any]) -> None:
    source = make(tmp_path / "source")
    made = make(tmp_path / "made", "checkpoint", (parent_of(source),))
    (source / "artifact.json").write_text("{")
    shown = bluelm("info", made, "--json")
    assert shown.code == 0
    assert [(step["kind"], step["state"]) for step in shown.json()["lineage"]] == [("–", "damaged")]


def test_relative_parents_are_found_from_any_folder(
    tmp_path: Path, bluelm: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    elsewhere.mkdir()
    project.mkdir()
    monkeypatch.chdir(project)
    Path("picture.png").write_bytes(b"picture")
    source = make(Path("runs/source"), parents=(parent_of(Path("picture.png")),))
    make(Path("runs/made"), "checkpoint", (parent_of(source),))
    monkeypatch.chdir(elsewhere)
    steps = bluelm("info", "../project/runs/made", "--json").json()["lineage"]
    assert [(step["path"], step["state"]) for step in steps] == [
        ("runs/source", "unchanged"),
        ("picture.png", "an input that is no artifact"),
    ]
    make(project / "runs/source", count=2)
    steps = bluelm("info", project / "runs/made", "--json").json()["lineage"]
    assert [step["state"] for step in steps] == ["not on disk"]


def test_info_compares_two(tmp_path: Path, bluelm: Callable[..., Any]) -> None:
    first, second = make(tmp_path / "one", alpha=0.1), make(tmp_path / "two", alpha=0.2)
    found = bluelm("info", first, second, "--json").json()["differences"]
    assert found == [{"name": "config.alpha", "first": 0.1, "second": 0.2}]
    assert bluelm("info", first, first, "--json").json()["differences"] == []


def test_info_refuses_what_is_no_artifact(tmp_path: Path, bluelm: Callable[..., Any]) -> None:
    for path, words in ((tmp_path, "holds no artifact.json"), (tmp_path / "none", "does not exist")):
        refused = bluelm("info", path)
        assert refused.code == 2
        assert words in refused.err
        assert refused.out == ""
    assert bluelm("info", tmp_path, tmp_path, tmp_path).code == 2


def test_doctor_finds_this_installation_sound(bluelm: Callable[..., Any]) -> None:
    done = bluelm("doctor", "--json")
    findings = {item["name"]: item for item in done.json()["findings"]}
    wrong = [item for item in findings.values() if item["verdict"] == "wrong"]
    assert done.code == (2 if wrong else 0)
    assert {"python", "threads", "memory", "torch", "onnxruntime"} <= findings.keys()
    assert all(item["advice"] for item in findings.values() if item["verdict"] != "ok")


def test_doctor_names_a_version_that_does_not_fit(bluelm: Callable[..., Any], monkeypatch: Any) -> None:
    monkeypatch.setattr("stages.measure.health._version", lambda name: "0.0.1" if name == "torch" else None)
    done = bluelm("doctor", "--json")
    findings = {item["name"]: item for item in done.json()["findings"]}
    assert done.code == 2
    assert findings["torch"]["verdict"] == "wrong"
    assert "pip install" in findings["torch"]["advice"]
    assert findings["onnxruntime"]["value"] == "missing"
