"""An endpoint that stalls, errors, truncates, vanishes; a run that is killed; a disk that is full."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Ask = Callable[..., Any]
PAIRS = json.dumps([{"question": "q", "answer": "a"}])


@pytest.fixture
def words(chat_server: Any) -> Callable[..., list[str]]:
    """The command line of data revise against the server."""

    def build(source: Path, out: Path, *more: object) -> list[str]:
        chat_server.answer = lambda body: PAIRS
        line = ("data", "revise", source, "--task", "create-qa", "--endpoint", chat_server.url, "--model", "m")
        waits = ("--set", "patience.backoff=0.01", "--set", "patience.retries=3")
        return [str(word) for word in (*line, *waits, "--out", out, "--json", *more)]

    return build


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("status", {"status": 429}),
        ("status", {"status": 500}),
        ("status", {"status": 503, "body": b"<html>"}),
        ("status", {"status": 529, "body": b""}),
        ("not json", {}),
        ("no message", {}),
        ("truncated", {}),
        ("dropped", {}),
    ],
)
def test_what_passes_is_tried_again(
    bluelm: Ask, words: Any, chat_server: Any, conversations: Path, tmp_path: Path, kind: str, more: dict[str, Any]
) -> None:
    chat_server.fails(kind, 3, **more)
    done = bluelm(*words(conversations, tmp_path / "out", "--concurrency", 2))
    assert done.code == 0, done.err
    assert (done.json()["rows"], done.json()["failed"]) == (10, 0)
    assert chat_server.asked == 13
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["answers"] == {"asked": 10, "known": 0, "retries": 3}


def test_an_endpoint_that_stalls_is_asked_again(
    bluelm: Ask, words: Any, chat_server: Any, conversations: Path, tmp_path: Path
) -> None:
    chat_server.fails("stalled", 2, seconds=1.5)
    done = bluelm(*words(conversations, tmp_path / "out", "--concurrency", 2, "--set", "patience.timeout=1"))
    assert done.code == 0, done.err
    # A machine that is itself slow may let more time out than the two that stall.
    assert done.json()["rows"] == 10 and chat_server.asked >= 12


def test_a_wait_that_the_endpoint_asks_for_is_kept_by_all(
    bluelm: Ask, words: Any, chat_server: Any, conversations: Path, tmp_path: Path
) -> None:
    chat_server.fails("status", status=429, headers={"Retry-After": "1"})
    done = bluelm(*words(conversations, tmp_path / "out", "--concurrency", 1))
    assert done.code == 0, done.err
    assert chat_server.times[1] - chat_server.times[0] >= 1


def test_a_wait_that_is_too_long_ends_it(
    bluelm: Ask, words: Any, chat_server: Any, conversations: Path, tmp_path: Path
) -> None:
    chat_server.fails("status", status=429, headers={"Retry-After": "86400"})
    done = bluelm(*words(conversations, tmp_path / "out"))
    assert done.code == 2 and "asks to wait 86,400 seconds" in done.err


@pytest.mark.parametrize("fault", [{"kind": "status", "status": 400}, {"kind": "status", "status": 500}])
def test_a_request_that_always_fails_is_one_rows_failure(
    bluelm: Ask, words: Any, chat_server: Any, conversations: Path, tmp_path: Path, fault: dict[str, Any]
) -> None:
    chat_server.fails_where("4 plus", **fault)
    done = bluelm(*words(conversations, tmp_path / "out"))
    assert done.code == 0, done.err
    (failed,) = (json.loads(line) for line in (tmp_path / "out" / "failed.jsonl").read_text().splitlines())
    assert failed["id"] == "row-4" and f"{fault['status']}: out of order" in failed["reason"]
    # It was not paid for, so it is asked again; all others are not.
    chat_server.fault_for = lambda body: None
    before = chat_server.asked
    again = bluelm(*words(conversations, tmp_path / "out", "--force"))
    assert again.json()["rows"] == 10 and chat_server.asked == before + 1


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ({"status": 401}, "refuses: 401"),
        ({"status": 402}, "refuses: 402"),
        ({"status": 429, "body": b'{"error": {"message": "pay", "code": "insufficient_quota"}}'}, "refuses: 429: pay"),
        ({"status": 404}, "does not know what is asked"),
        ({"status": 307, "headers": {"Location": "http://elsewhere.test/"}}, "redirects to http://elsewhere.test/"),
    ],
)
def test_an_endpoint_that_refuses_everything_ends_it_at_once(
    bluelm: Ask, words: Any, chat_server: Any, conversations: Path, tmp_path: Path, fault: dict[str, Any], told: str
) -> None:
    chat_server.fails("status", 100, **fault)
    done = bluelm(*words(conversations, tmp_path / "out", "--concurrency", 1))
    assert done.code == 2 and told in done.err and chat_server.asked == 1
    assert not (tmp_path / "out").exists()


def test_a_vanished_endpoint_keeps_the_answers_and_the_same_command_goes_on(
    bluelm: Ask, words: Any, chat_server: Any, conversations: Path, tmp_path: Path
) -> None:
    # From the seventh request on, every connection is dropped.
    line = words(conversations, tmp_path / "out", "--concurrency", 2)
    chat_server.fault_for = lambda body: type("F", (), {"kind": "dropped"})() if chat_server.asked > 6 else None
    gone = bluelm(*line)
    assert gone.code == 2, gone.err
    assert "does not answer" in gone.err and "6 answers are kept in" in gone.err and "same command again" in gone.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.answers.jsonl", "rows.json"]
    answered = set(chat_server.texts()[:6])
    chat_server.fault_for = lambda body: None
    before = chat_server.asked
    back = bluelm(*line)
    assert back.code == 0, back.err
    assert back.json()["rows"] == 10 and chat_server.asked == before + 4
    assert answered.isdisjoint(chat_server.texts()[before:])


def test_an_endpoint_that_was_never_there(bluelm: Ask, conversations: Path, tmp_path: Path) -> None:
    line = ("data", "revise", conversations, "--task", "create-qa", "--endpoint", "http://127.0.0.1:9/v1")
    waits = ("--set", "patience.backoff=0", "--set", "patience.retries=1")
    done = bluelm(*line, "--model", "m", *waits, "--out", tmp_path / "out")
    assert done.code == 2 and "http://127.0.0.1:9/v1 does not answer" in done.err


def test_answers_that_are_of_no_use_end_it_before_it_is_dear(
    bluelm: Ask, words: Any, chat_server: Any, tmp_path: Path
) -> None:
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    rows = [
        {"id": str(number), "conversations": [*turns[:1], {**turns[1], "value": f"{number}"}]} for number in range(60)
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    line = words(tmp_path / "rows.json", tmp_path / "out", "--set", "tries=1")
    chat_server.answer = lambda body: "No."
    done = bluelm(*line)
    assert done.code == 2 and "None of the first 20 rows" in done.err and "no JSON" in done.err
    assert chat_server.asked < 40


def test_a_killed_run_goes_on_without_asking_again(
    words: Any, chat_server: Any, conversations: Path, tmp_path: Path
) -> None:
    line = [sys.executable, "-m", "bluelm_cli", *words(conversations, tmp_path / "out", "--concurrency", 2)]
    cache = tmp_path / "out.answers.jsonl"
    chat_server.delay = 0.1
    kept: set[str] = set()
    for wanted in (3, 6):
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while process.poll() is None and (not cache.is_file() or cache.read_bytes().count(b"\n") < wanted):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        _, err = process.communicate()
        assert process.returncode == -signal.SIGKILL, err.decode()
        assert not (tmp_path / "out").exists()
        kept = {json.loads(one)["key"] for one in cache.read_bytes().split(b"\n")[:-1]}
        assert len(kept) >= wanted
    # As a kill in the middle of a write leaves it.
    with cache.open("ab") as stream:
        stream.write(b'{"key": "00", "text": "half of an ans')
    before = chat_server.asked
    done = subprocess.run(line, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONWARNINGS": ""})
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["rows"] == 10 and chat_server.asked - before == 10 - len(kept)
    # What was on its way when the run was killed may have been asked twice, nothing else: two requests a kill.
    repeated = Counter(chat_server.texts())
    assert sum(count - 1 for count in repeated.values()) <= 4


def test_a_full_disk_is_said_and_what_was_answered_stays(
    words: Any, chat_server: Any, conversations: Path, tmp_path: Path
) -> None:
    line = [sys.executable, "-m", "bluelm_cli", *words(conversations, tmp_path / "out", "--concurrency", 1)]
    # No file may grow beyond so many bytes: a write ends in the middle of an answer, as on a full disk.
    limit = 900

    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    full = subprocess.run(line, capture_output=True, text=True, check=False, preexec_fn=small_disk)
    assert full.returncode == 2, full.stderr
    assert (
        "out.answers.jsonl cannot be written: File too large" in full.stderr
        and "those that it holds stay" in full.stderr
    )
    kept = (tmp_path / "out.answers.jsonl").read_bytes()
    answers = kept.count(b"\n")
    assert kept.endswith(b"\n") and 0 < answers == chat_server.asked - 1
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # The answer for which there was no room is the only one asked twice.
    assert chat_server.asked == 11


def test_a_cache_that_is_no_file_is_refused(bluelm: Ask, words: Any, conversations: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        done = bluelm(*words(conversations, tmp_path / "out", "--cache", path))
        assert done.code == 2 and f"{path} cannot be written" in done.err


def test_two_runs_do_not_share_a_cache(bluelm: Ask, words: Any, conversations: Path, tmp_path: Path) -> None:
    from stages.workshop.corpus.revision.answer_cache import AnswerCache

    with AnswerCache(tmp_path / "out.answers.jsonl"):
        done = bluelm(*words(conversations, tmp_path / "out"))
    assert done.code == 2 and "being written by another bluelm" in done.err
