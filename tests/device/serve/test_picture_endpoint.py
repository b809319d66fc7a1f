"""Pictures ahead of their question: plan, tiles, end; what is refused; and the page's files."""

from __future__ import annotations

import json
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

import stages.device.serve.page_files as page_files
from stages.device.imaging.geometry import Size
from stages.device.serve.access import Access
from stages.device.serve.limits import ServeLimits
from stages.device.serve.picture_sources import PictureSources

PATH = "/v1/bluelm/pictures"
PNG = {"content-type": "image/png"}


def encoded(live: Any, data: bytes, user: str = "a") -> list[dict[str, Any]]:
    """All events of one picture."""
    found = httpx2.post(f"{live.url}{PATH}?user={user}", content=data, headers=PNG)
    assert found.status_code == 200, found.text
    assert found.headers["content-type"].startswith("text/event-stream")
    assert found.headers["cache-control"] == "no-store"
    return [json.loads(line.removeprefix("data: ")) for line in found.text.split("\n\n") if line]


def test_a_plan_then_every_tile_then_the_end(start: Any, fake: Any, png: Any) -> None:
    model = fake()
    live = start(model)
    data = png(100, 60)
    plan, *tiles, end = encoded(live, data)
    wanted = model.tiling(Size(100, 60))
    assert plan["type"] == "plan" and plan["grid"] == list(wanted.grid) and wanted.has_thumbnail
    assert (plan["tiles"], plan["tokens"], plan["thumbnail"]) == (wanted.tiles, wanted.tokens, True)
    assert plan["boxes"] == [list(box) for box in wanted.boxes]
    covered = sum((right - left) * (low - top) for left, top, right, low in plan["boxes"])
    assert covered == plan["canvas"][0] * plan["canvas"][1]
    assert [event["done"] for event in tiles] == list(range(wanted.tiles + 1))
    assert {(event["type"], event["tiles"]) for event in tiles} == {("tiles", wanted.tiles)}
    assert end["type"] == "encoded" and not end["reused"] and end["seconds"] >= 0
    plan, end = encoded(live, data)
    assert end["reused"]
    assert plan["sha256"] in model.known


def test_a_question_finds_what_was_encoded_ahead(start: Any, fake: Any, png: Any, data_uri: Any, about: Any) -> None:
    model = fake()
    model.gate.clear()
    live = start(model)
    data = png(50, 40)
    asked = {"messages": about("What?", data_uri(data)), "user": "a"}
    with ThreadPoolExecutor(2) as pool:
        ahead = pool.submit(encoded, live, data)
        live.until(lambda: live.service.worker.running)
        question = pool.submit(httpx2.post, live.url + "/v1/chat/completions", json=asked)
        live.until(lambda: live.service.worker.queued == 1)
        model.gate.set()
        assert not ahead.result()[-1]["reused"]
        assert question.result().status_code == 200
    pictures, jobs = live.service.metrics.pictures, live.service.metrics.jobs
    assert (pictures.value("encoder"), pictures.value("cache")) == (1, 1)
    assert (jobs.value("encoded"), jobs.value("answered")) == (1, 1)
    assert live.service.metrics.accepted.value() == 2
    live.until(lambda: live.service.buffer.used == 0)


def test_a_client_that_takes_its_picture_back_is_not_worked_for(start: Any, fake: Any, png: Any) -> None:
    model = fake()
    model.gate.clear()
    live = start(model)
    data = png(100, 60)
    head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: {len(data)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", live.server.address.port), timeout=10) as connection:
        connection.sendall(head.encode() + data)
        seen = b""
        while b'"plan"' not in seen:
            seen += connection.recv(65536)
    live.until(lambda: live.service.metrics.jobs.value("cancelled") == 1)
    assert model.interrupted_in == ["encode"] and not model.known
    live.until(lambda: live.service.buffer.used == 0)


def test_broken_pixels_are_told_in_the_stream_and_all_else_before_it(start: Any, png: Any) -> None:
    sources = PictureSources(ServeLimits(megapixels=0.01))
    live = start(limits={"picture_mb": 0.05, "queue": 1}, sources=sources)
    *_, end = encoded(live, png(13, 13))
    assert end["error"]["code"] == "image_parse_error" and "pixels are broken" in end["error"]["message"]
    cases: list[tuple[bytes, dict[str, str], int, str]] = [
        (b"GIF89a", PNG, 400, "image_parse_error"),
        (b"", PNG, 400, "image_parse_error"),
        (b" " * 50_001, PNG, 413, "request_too_large"),
        (png(120, 90), PNG, 400, "image_too_large"),
        (png(), {"content-type": "text/plain"}, 415, "unsupported_content_type"),
        (png(), {}, 415, "unsupported_content_type"),
        (b"a=b", {"content-type": "application/x-www-form-urlencoded"}, 415, "unsupported_content_type"),
    ]
    for data, headers, status, code in cases:
        found = httpx2.post(live.url + PATH, content=data, headers=headers)
        assert (found.status_code, found.json()["error"]["code"]) == (status, code), found.text
    assert httpx2.get(live.url + PATH).status_code == 405
    assert encoded(live, png())[-1]["type"] == "encoded"


def test_one_client_leaves_places_for_another(start: Any, fake: Any, png: Any) -> None:
    model = fake()
    model.gate.clear()
    live = start(model, limits={"queue": 4, "client_queue": 2})
    accepted = live.service.metrics.accepted
    with ThreadPoolExecutor(4) as pool:
        waiting = []
        for count in range(1, 4):  # one runs, two wait
            waiting.append(pool.submit(encoded, live, png(seed=count), "greedy"))
            live.until(lambda count=count: accepted.value() == count)
            live.until(lambda: live.service.worker.running)
        full = httpx2.post(f"{live.url}{PATH}?user=greedy", content=png(), headers=PNG)
        assert full.status_code == 429 and 1 <= int(full.headers["retry-after"]) <= 60
        assert "2 of your requests wait" in full.json()["error"]["message"]
        waiting.append(pool.submit(encoded, live, png(seed=9), "modest"))
        live.until(lambda: accepted.value() == 4)
        model.gate.set()
        assert all(job.result()[-1]["type"] == "encoded" for job in waiting)
    assert live.service.metrics.refused.value() == 1


def test_the_page_and_its_files(start: Any) -> None:
    live = start(access=Access("secret"))
    page = httpx2.get(live.url + "/")
    assert page.status_code == 200 and page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    wanted = re.findall(r'(?:href|src)="([^"]+)"', page.text)
    assert {"/page/style.css", "/page/app.js", "/page/icon.svg"} <= set(wanted)
    for path in wanted:
        found = httpx2.get(live.url + path)
        assert found.status_code == 200 and len(found.content) > 100, path
        again = httpx2.get(live.url + path, headers={"if-none-match": found.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    for path in ("/page/", "/page/none.js", "/page/..%2fapp.py", "/page/../app.py", "/page"):
        assert httpx2.get(live.url + path).status_code in (401, 404), path


def test_the_page_asks_no_other_machine_for_anything_and_runs_nothing_inline() -> None:
    folder = Path(page_files.__file__).with_name("page")
    files = sorted(folder.iterdir())
    assert {file.suffix for file in files} == {".html", ".css", ".js", ".svg"}
    for file in files:
        text = file.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert "//" not in re.sub(r"^\s*//.*$|\s// .*$", "", text, flags=re.M), file
        assert len(text.splitlines()) <= 350
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "url(", "@import"):
            assert word not in text, (file, word)
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|<script(?![^>]*src=)| style=| on[a-z]+=", page)


@pytest.mark.parametrize("name", ["app.js", "api.js", "picture.js", "turn.js", "markdown.js"])
def test_every_import_of_a_module_is_there(name: str) -> None:
    folder = Path(page_files.__file__).with_name("page")
    text = (folder / name).read_text(encoding="utf-8")
    for names, file in re.findall(r'^import \{ ([^}]+) \} from "\./([a-z]+\.js)";$', text, re.M):
        exported = set(
            re.findall(r"^export (?:async )?(?:function\*?|class|const) (\w+)", (folder / file).read_text(), re.M)
        )
        assert {word.strip() for word in names.split(",")} <= exported
