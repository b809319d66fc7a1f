"""Where pictures may come from: data URIs of every kind, one folder and nothing beside it."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from stages.device.serve.api_errors import ApiError
from stages.device.serve.chat_request import PictureReference
from stages.device.serve.limits import ServeLimits
from stages.device.serve.picture_files import PictureFolder
from stages.device.serve.picture_sources import PictureSources

PLACE = "messages[0].content[0].image_url.url"
LIMITS = ServeLimits(picture_mb=0.01, megapixels=0.01)


@pytest.fixture
def folder(tmp_path: Path, png: Any) -> Path:
    """An allowed folder beside a secret."""
    allowed = tmp_path / "allowed"
    (allowed / "in ner").mkdir(parents=True)
    (allowed / "a.png").write_bytes(png())
    (allowed / "in ner" / "b.png").write_bytes(png(seed=1))
    (tmp_path / "secret.png").write_bytes(png())
    (tmp_path / "allowed-too").mkdir()
    (tmp_path / "allowed-too" / "c.png").write_bytes(png())
    (allowed / "out.png").symlink_to(tmp_path / "secret.png")
    (allowed / "outer").symlink_to(tmp_path)
    (allowed / "loop").symlink_to(allowed / "loop")
    (allowed / "good.png").symlink_to("in ner/b.png")
    os.mkfifo(allowed / "pipe.png")
    (allowed / "large.png").write_bytes(b"x" * 10_001)
    return allowed


def read(url: str, folder: Path | None = None) -> bytes:
    sources = PictureSources(LIMITS, None if folder is None else PictureFolder(folder))
    return sources.read(PictureReference(PLACE, url)).data


def refused(url: str, folder: Path | None = None) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read(url, folder)
    assert (caught.value.status, caught.value.param) == (400, PLACE)
    assert PLACE in caught.value.message
    return caught.value


def test_a_data_uri_in_the_forms_that_clients_write(data_uri: Any, png: Any) -> None:
    plain = data_uri()
    body = plain.partition(",")[2]
    assert "+" in body or "/" in body
    forms = [
        plain,
        plain.replace("data:image/png", "DATA:image/png"),
        plain.replace("image/png", "image/jpeg"),  # what it is, is seen from its bytes
        plain.replace("image/png;", "image/png;name=a.png;"),
        f"data:;base64,{body}",
        f"data:image/png;base64,{body[:40]}\n{body[40:]}",
        "data:image/png;base64," + body.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D"),
        "data:image/png," + "".join(f"%{byte:02x}" for byte in png()),
    ]
    for form in forms:
        assert read(form) == png(), form[:50]


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("data:image/png;base64,$$$", "invalid_base64"),
        ("data:image/png;base64,QQ", "invalid_base64"),
        ("data:image/png;base64,é", "invalid_base64"),
        ("data:image/png;base64,", "image_parse_error"),
        ("data:image/png;base64,QUJD", "image_parse_error"),
        ("data:text/html;base64,QUJD", "invalid_image_format"),
        ("data:image/png;base64", "invalid_image_url"),
        ("data:image/png;base64," + "A" * 20_000, "image_too_large"),
        ("data:image/png," + "A" * 20_000, "image_too_large"),
        ("file:///etc/passwd", "invalid_image_url"),
        ("http://127.0.0.1/a.png", "invalid_image_url"),
        ("https://example.com/a.png", "invalid_image_url"),
        ("ftp://example.com/a.png", "invalid_image_url"),
        ("a.png", "invalid_image_url"),
        ("", "invalid_image_url"),
    ],
)
def test_what_is_no_picture_is_refused(url: str, code: str) -> None:
    assert refused(url).code == code


def test_a_broken_picture_and_a_bomb_are_refused_by_their_headers(data_uri: Any, png: Any) -> None:
    assert refused(data_uri(png()[:20])).code == "image_parse_error"
    assert refused(data_uri(bomb(200, 200))).code == "image_too_large"
    assert "claims more than" in refused(data_uri(bomb(60_000, 60_000))).message


def bomb(width: int, height: int) -> bytes:
    """A small PNG that claims to be large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(5000))) + chunk(b"IEND", b"")
    )


def test_pictures_of_the_folder_are_read(folder: Path, png: Any) -> None:
    for url in (
        f"file://{folder}/a.png",
        f"file://localhost{folder}/a.png",
        "file:a.png",
        "file:in%20ner/../a.png",
        f"file://{folder}/in%20ner/../a.png",
    ):
        assert read(url, folder) == png(), url
    assert read("file:good.png", folder) == read("file:in%20ner/b.png", folder) == png(seed=1)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "{folder}/../secret.png",
        "{folder}/%2e%2e/secret.png",
        "{folder}/out.png",
        "{folder}/outer/secret.png",
        "{folder}-too/c.png",
        "{folder}/../absent.png",
        "{folder}/a%00.png",
        "{folder}/%ff.png",
        "/proc/self/cwd/pyproject.toml",
        "/" + "a" * 5000,
    ],
)
def test_nothing_outside_is_read_and_nothing_told_about_it(folder: Path, path: str) -> None:
    message = refused("file://" + path.format(folder=folder), folder).message
    assert (
        message.endswith("It is not in the folder that this server reads pictures from.")
        or "There is no such" in message
    )


def test_other_machines_files_are_refused(folder: Path) -> None:
    assert "not in the folder" in refused(f"file://other{folder}/a.png", folder).message


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("absent.png", "no such file"),
        ("in%20ner", "no such file|not a regular"),
        ("", "folder"),
        ("a.png/b", "no such file"),
        ("pipe.png", "not a regular file"),
        ("loop", "not in the folder|no such file"),
        ("large.png", "larger than the 10,000 bytes"),
    ],
)
def test_what_is_no_picture_file_is_refused(folder: Path, name: str, why: str) -> None:
    import re

    assert re.search(why, refused(f"file://{folder}/{name}", folder).message)


def test_a_link_that_appears_after_the_check_is_not_followed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = PictureFolder(folder)
    opened = pictures._opened

    def swapped(parts: tuple[str, ...]) -> int:
        (folder / "in ner" / "b.png").unlink()
        (folder / "in ner").rmdir()
        (folder / "in ner").symlink_to(tmp_path / "allowed-too")
        return opened(("in ner", "c.png"))

    monkeypatch.setattr(pictures, "_opened", swapped)
    with pytest.raises(ApiError, match="no such file"):
        pictures.read("file:in%20ner/b.png", PLACE, 10_000)
