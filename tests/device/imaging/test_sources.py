"""What an input names: pictures, folders, LLaVA JSON, corpus folders."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stages.artifacts.errors import BluelmError, DataError, ImageError
from stages.device.imaging.loading import read_size
from stages.device.imaging.preview import save_preview
from stages.device.imaging.reading import completed, make_all
from stages.device.imaging.sources import list_pictures, parent_of_pictures


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)
    return path


def names(*inputs: Path) -> list[str]:
    return [item.name for item in list_pictures(inputs)]


def llava(path: Path, *images: object) -> Path:
    path.write_text(json.dumps([{"id": n, "image": image, "conversations": []} for n, image in enumerate(images)]))
    return path


def test_a_folder_is_searched_by_suffix_sorted_without_hidden_files(tmp_path: Path) -> None:
    for name in ("b.PNG", "a/z.jpg", ".hidden/c.png", "a/.d.png"):
        picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    assert names(tmp_path) == ["a/z.jpg", "b.PNG"]


def test_a_picture_is_itself_whatever_its_suffix(tmp_path: Path) -> None:
    path = tmp_path / "scan.0001"
    assert [(item.path, item.name) for item in list_pictures([path])] == [(path, "scan.0001")]


def test_a_json_names_each_picture_once_relative_to_itself(tmp_path: Path) -> None:
    rows = [{"image": "images/2.png"}, {"id": "text only"}, {"image": ["images/1.png", "images/2.png"]}]
    file = tmp_path / "data.json"
    file.write_text(json.dumps(rows))
    assert names(file) == ["images/2.png", "images/1.png"]
    assert list_pictures([file])[0].path == tmp_path / "images" / "2.png"


def test_json_lines_are_rows_too(tmp_path: Path) -> None:
    lines = [json.dumps(row) for row in ({"image": "2.png"}, {"conversations": []}, {"image": ["1.png", "2.png"]})]
    file = tmp_path / "data.jsonl"
    file.write_text("\n".join(lines))
    assert names(file) == ["2.png", "1.png"]


def test_a_corpus_names_pictures_in_other_folders(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    llava(corpus / "train.json", "0:a/1.png", "own.png", ["1:2.png", "0:a/1.png"])
    index = {"roots": [(tmp_path / "one").as_posix(), (tmp_path / "two").as_posix()]}
    (corpus / "index.json").write_text(json.dumps(index))
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    found = [(item.path, item.name) for item in list_pictures([corpus])]
    assert found == [
        (tmp_path / "one" / "a/1.png", "a/1.png"),
        (corpus / "own.png", "own.png"),
        (tmp_path / "two" / "2.png", "2.png"),
    ]
    llava(corpus / "train.json", {"shard": "0:a.tar", "member": "1.png", "offset": 512, "length": 3})
    with pytest.raises(DataError, match=r"names pictures inside 0:a\.tar") as shard:
        list_pictures([corpus])
    assert "--copy-pictures" in shard.value.fix
    llava(corpus / "train.json", "2:1.png")
    with pytest.raises(DataError, match=r"root 2, which its corpus' index\.json does not know"):
        list_pictures([corpus])
    (tmp_path / "two").rmdir()
    with pytest.raises(DataError, match="two, which does not exist any more") as moved:
        list_pictures([corpus])
    assert "--copy-pictures" in moved.value.fix
    (corpus / "index.json").write_text("[]")
    with pytest.raises(DataError, match="is no index of a corpus"):
        list_pictures([corpus])


def test_a_corpus_folder_is_its_two_splits(tmp_path: Path) -> None:
    llava(tmp_path / "train.json", "images/1.png", "images/2.png")
    llava(tmp_path / "heldout.json", "images/3.png", "images/1.png")
    picture(tmp_path / "images" / "unused.png")
    assert names(tmp_path) == ["images/1.png", "images/2.png", "images/3.png"]


@pytest.mark.parametrize("name", ["../secret.png", "/etc/secret.png", "images/../../secret.png"])
def test_a_json_reaches_no_picture_outside_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="lies outside the file's folder"):
        list_pictures([llava(tmp_path / "data.json", name)])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "row 1 is not LLaVA's: it is not JSON"),
        ('{"a": 1}', "row 1 is not LLaVA's: it is {'a': 1}"),
        ("[3]", "row 0 is not LLaVA's"),
        ('[{"image": 3}]', "row 0 is not LLaVA's"),
        ('[{"image": "a.png"}, {"image": [""]}]', "row 1 is not LLaVA's"),
        ("[" * 100_000, "is not JSON: nested too deeply"),
    ],
)
def test_a_json_that_is_not_llavas(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "data.json"
    file.write_text(text)
    with pytest.raises(DataError, match=f"data.json.*{reason}"):
        list_pictures([file])


def test_problems_of_several_inputs_are_reported_together(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    bad = llava(tmp_path / "bad.json", "../x.png")
    with pytest.raises(BluelmError) as caught:
        list_pictures([tmp_path / "none", bad])
    assert [type(problem) for problem in caught.value.problems] == [ImageError, DataError]
    assert "holds no pictures" in caught.value.problems[0].what


def test_the_published_llava_rows(data_dir: Path) -> None:
    pictures = list_pictures([data_dir / "llava_format" / "llava_v1_5_mix200.json"])
    assert 100 < len(pictures) <= 200
    assert all(item.path.is_relative_to(data_dir / "llava_format") for item in pictures)


def test_what_bluelm_made_is_no_input(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "made" / "deep" / "b.png")
    (tmp_path / "made" / "artifact.json").write_text("{}")
    (tmp_path / "drawn").mkdir()
    save_preview(Image.new("RGB", (4, 4)), tmp_path / "drawn" / "a.relaxed.png")
    assert names(tmp_path) == ["a.png"]
    assert names(tmp_path / "drawn" / "a.relaxed.png") == ["a.relaxed.png"], "named by itself it is wanted"
    with pytest.raises(ImageError, match="holds no pictures") as caught:
        list_pictures([tmp_path / "drawn"])
    assert "previews" in str(caught.value)


def test_a_name_too_long_is_left_to_the_reader(tmp_path: Path) -> None:
    long, absent = tmp_path / ("x" * 300 + ".png"), tmp_path / "absent.png"
    pictures = list_pictures([long, absent])
    assert [item.path for item in pictures] == [long, absent]
    with pytest.raises(BluelmError) as caught:
        completed(make_all("reading", lambda item: read_size(item.path), pictures))
    assert [type(problem) for problem in caught.value.problems] == [ImageError, ImageError]
    assert "File name too long" in caught.value.problems[0].what
    assert "absent.png does not exist" in caught.value.problems[1].what


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "locked" / "b.png")
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ImageError, match="locked cannot be listed: Permission denied"):
        list_pictures([tmp_path])


def test_a_file_out_of_reach_is_listed_so_that_reading_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, stat = picture(tmp_path / "a.png"), Path.stat

    def refuse(self: Path, **options: Any) -> os.stat_result:
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return stat(self, **options)

    monkeypatch.setattr(Path, "stat", refuse)
    assert names(tmp_path) == ["a.png"]
    with pytest.raises(ImageError, match=r"a.png cannot be read: Permission denied"):
        read_size(path)


def test_a_parents_digest_follows_the_pictures_alone(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    before = parent_of_pictures(tmp_path, {path: "1"})
    (tmp_path / "notes.txt").write_text("beside it")
    assert parent_of_pictures(tmp_path, {path: "1"}) == before
    assert parent_of_pictures(tmp_path, {path: "2"}).digest != before.digest
