"""`bluelm data revise` against a real server: what it sends, what it makes, what it costs, where it stops."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stages.artifacts.folder import open_artifact
from stages.workshop.corpus.picture import PictureFile
from stages.workshop.corpus.readers.opening import open_rows
from stages.workshop.corpus.readers.source import all_rows
from stages.workshop.corpus.row import Row

Ask = Callable[..., Any]


@pytest.fixture
def ask(bluelm: Callable[..., Any], chat_server: Any) -> Ask:
    """Runs data revise against the server, without long waits between retries."""

    def run(source: Path, task: str, out: Path, *more: object) -> Any:
        named = ("--endpoint", chat_server.url, "--model", "m", "--out", out, "--json")
        return bluelm("data", "revise", source, "--task", task, *named, "--set", "patience.backoff=0.01", *more)

    return run


def rows_of(out: Path) -> list[Row]:
    return all_rows(open_rows(out))


def failed_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "failed.jsonl").read_text().splitlines()]


def as_pairs(*pairs: tuple[str, str]) -> str:
    return json.dumps([{"question": question, "answer": answer} for question, answer in pairs])


def colour_of(body: dict[str, Any]) -> tuple[int, ...]:
    """The middle pixel of a request's picture."""
    image = shown(body)
    return tuple(image.getpixel((image.width // 2, image.height // 2)))


def shown(body: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(sent_bytes(body)))


def sent_bytes(body: dict[str, Any]) -> bytes:
    """The file of a request's picture."""
    url = body["messages"][-1]["content"][0]["image_url"]["url"]
    assert url.startswith("data:image/jpeg;base64,")
    return base64.b64decode(url.partition(",")[2])


def test_captions_are_made_for_a_folder_of_pictures(
    ask: Ask, chat_server: Any, picture_folder: Path, tmp_path: Path
) -> None:
    chat_server.answer = lambda body: f"red {round(colour_of(body)[0] / 20)}"
    done = ask(picture_folder, "create-caption", tmp_path / "out")
    assert done.code == 0, done.err
    rows = rows_of(tmp_path / "out")
    # Each caption belongs to its own picture, although the answers came in any order.
    assert [row.name for row in rows] == [f"{number:02d}.png" for number in range(12)]
    assert [row.turns[1].text for row in rows] == [f"red {number}" for number in range(12)]
    assert all(row.turns[0].text.startswith("<image>\n") and row.tasks == ("caption",) for row in rows)
    assert len({row.turns[0].text for row in rows}) > 2
    assert [row.pictures[0] for row in rows] == [PictureFile.at(path) for path in sorted(picture_folder.iterdir())]
    report = done.json()
    assert (report["rows"], report["failed"], report["unasked"]) == (12, 0, 0)
    assert report["cost"]["answers"] == chat_server.asked == 12
    assert (report["cost"]["prompt_tokens"], report["cost"]["completion_tokens"]) == (1200, 120)
    manifest = open_artifact(tmp_path / "out", "corpus").manifest
    assert manifest is not None and manifest.metrics["splits"]["train"]["pictures"] == 12


def test_what_is_sent_is_the_prompt_and_the_scaled_picture_and_no_more(
    ask: Ask, chat_server: Any, tmp_path: Path
) -> None:
    picture = Image.new("RGB", (300, 100), (0, 0, 200))
    exif = Image.Exif()
    exif[0x010E] = "a secret place"
    picture.save(tmp_path / "secret-name.jpg", exif=exif)
    prompt = tmp_path / "ask.jinja"
    prompt.write_text("{% block system %}You see {{ pictures }}.{% endblock %}{% block user %}Say it.{% endblock %}")
    sets = ("--set", "pictures.side=60", "--set", "sampling.temperature=0.5", "--set", "pictures.detail=low")
    done = ask(tmp_path / "secret-name.jpg", "create-caption", tmp_path / "out", "--prompt", prompt, *sets)
    assert done.code == 0, done.err
    (body,) = chat_server.bodies
    assert shown(body).size == (60, 20)
    assert "secret" not in json.dumps(body) and b"secret" not in sent_bytes(body)
    assert not shown(body).getexif()
    url = body["messages"][1]["content"][0]["image_url"].pop("url")
    assert url
    assert body == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "You see 1."},
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"detail": "low"}}, {"type": "text", "text": "Say it."}],
            },
        ],
        "temperature": 0.5,
        "max_tokens": 1024,
    }
    (headers,) = chat_server.headers
    said = {name for name in headers if name.startswith(("authorization", "openai", "x-stainless"))}
    assert said <= {"x-stainless-raw-response"}


def test_the_key_comes_from_the_environment_and_stays_there(
    ask: Ask, chat_server: Any, conversations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    chat_server.answer = lambda body: as_pairs(("q", "a"))
    chat_server.fails("status", 2, status=500, body=b'{"error": {"message": "bad key sk-very-secret"}}')
    done = ask(conversations, "revise", tmp_path / "out", "--key-variable", "MY_KEY")
    assert done.code == 0, done.err
    assert {headers["authorization"] for headers in chat_server.headers} == {"Bearer sk-very-secret"}
    chat_server.fails("status", status=401, body=b'{"error": {"message": "bad key sk-very-secret"}}')
    refused = ask(conversations, "create-qa", tmp_path / "other", "--key-variable", "MY_KEY")
    assert refused.code == 2 and "bad key …" in refused.err and "--key-variable" in refused.err
    for text in (done.out, done.err, refused.out, refused.err):
        assert "sk-very-secret" not in text
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or b"sk-very-secret" not in file.read_bytes(), file


def test_pairs_are_revised_in_place(ask: Ask, chat_server: Any, conversations: Path, tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> str:
        text = chat_server.text_of(body)
        (pair,) = json.JSONDecoder().raw_decode(text, text.index("["))[0]
        if pair["answer"] == "3":
            return "[]"
        return f"<think>[hm]</think>```json\n{as_pairs((pair['question'], pair['answer'] + '!'))}\n```"

    chat_server.answer = answer
    done = ask(conversations, "revise", tmp_path / "out")
    assert done.code == 0, done.err
    rows = rows_of(tmp_path / "out")
    assert [row.turns[1].text for row in rows] == [f"{number + 1}!" for number in range(10) if number != 2]
    assert [row.turns[0].text for row in rows][:2] == ["What is 0 plus one?", "What is 1 plus one?"]
    (failed,) = failed_of(tmp_path / "out")
    assert failed["id"] == "row-2" and "keeps none" in failed["reason"]
    assert "failed.jsonl" in done.err


def test_an_answer_that_cannot_be_read_is_asked_again_then_listed(
    ask: Ask, chat_server: Any, conversations: Path, tmp_path: Path
) -> None:
    good = as_pairs(("What is it?", "a number"))

    def answer(body: dict[str, Any]) -> str:
        text = chat_server.text_of(body)
        if "7 plus" in text:
            return "I would rather not."
        if "4 plus" in text and len(body["messages"]) == 2:
            return '[{"question": "cut'
        return good

    chat_server.answer = answer
    done = ask(conversations, "create-qa", tmp_path / "out")
    assert done.code == 0, done.err
    assert [row.name for row in rows_of(tmp_path / "out")] == [f"row-{number}" for number in range(10) if number != 7]
    (failed,) = failed_of(tmp_path / "out")
    assert failed["id"] == "row-7" and failed["answers"] == ["I would rather not."] * 3
    assert failed["reason"] == "the answer cannot be used: it holds no JSON"
    assert chat_server.asked == 9 + 1 + 3
    (corrected,) = [body for body in chat_server.bodies if len(body["messages"]) == 4 and "4 plus" in str(body)]
    assert corrected["messages"][2] == {"role": "assistant", "content": '[{"question": "cut'}
    assert "its JSON is broken" in corrected["messages"][3]["content"]
    # What was paid for without use is paid for once: a new run asks nothing.
    assert ask(conversations, "create-qa", tmp_path / "out", "--force").code == 0
    assert chat_server.asked == 13


def test_a_broken_picture_is_that_rows_failure(ask: Ask, picture_folder: Path, tmp_path: Path) -> None:
    (picture_folder / "03.png").write_bytes(b"no picture")
    (picture_folder / "05.png").write_bytes((picture_folder / "05.png").read_bytes()[:60])
    done = ask(picture_folder, "create-caption", tmp_path / "out")
    assert done.code == 0, done.err
    assert [failure["id"] for failure in failed_of(tmp_path / "out")] == ["03.png", "05.png"]
    assert len(rows_of(tmp_path / "out")) == done.json()["rows"] == 10


def test_rows_that_ask_the_same_at_once_are_paid_for_once(
    ask: Ask, chat_server: Any, conversations: Path, tmp_path: Path
) -> None:
    rows = json.loads(conversations.read_text())
    conversations.write_text(json.dumps([{**row, "id": f"{row['id']}-{copy}"} for row in rows for copy in range(4)]))
    chat_server.answer = lambda body: as_pairs(("q", chat_server.text_of(body)[-40:]))
    chat_server.delay = 0.02
    done = ask(conversations, "revise", tmp_path / "out", "--concurrency", 16, "--most-answers", 40)
    assert done.code == 0, done.err
    assert chat_server.asked == 10 and len(rows_of(tmp_path / "out")) == 40
    # A corpus made of ten answers on forty rows costs ten.
    assert done.json()["cost"]["answers"] == 10


def test_an_answer_of_half_a_character_can_be_written(
    ask: Ask, chat_server: Any, picture_folder: Path, tmp_path: Path
) -> None:
    chat_server.answer = lambda body: "red \ud83d\n\u2028 end"
    done = ask(picture_folder, "create-caption", tmp_path / "out", "--rows", 1)
    assert done.code == 0, done.err
    assert rows_of(tmp_path / "out")[0].turns[1].text.startswith("red ?\n\u2028")


def test_a_budget_ends_it_and_a_larger_one_goes_on(
    ask: Ask, chat_server: Any, conversations: Path, tmp_path: Path
) -> None:
    chat_server.answer = lambda body: as_pairs(("q", "a"))
    # 100 + 10 tokens each at 1 and 10 a million: 0.0002; what is set aside for one is less than 0.001.
    prices = ("--price-in", 1, "--price-out", 10, "--set", "sampling.max_tokens=20", "--concurrency", 3)
    out = tmp_path / "out"
    done = ask(conversations, "create-qa", out, "--most-money", 0.001, *prices)
    assert done.code == 0, done.err
    report = done.json()
    assert report["rows"] + report["unasked"] == 10 and 0 < report["rows"] < 10
    assert report["cost"]["money"] == pytest.approx(report["rows"] * 0.0002)
    assert report["stopped_at"] == "0.001 in money"
    assert "the budget of 0.001 in money is spent" in done.err
    # The same budget is the same corpus; a larger one asks the rest.
    asked = chat_server.asked
    assert "up to date" in ask(conversations, "create-qa", out, "--most-money", 0.001, *prices).err
    refused = ask(conversations, "create-qa", out, "--most-money", 1, *prices)
    assert refused.code == 2 and "budget.money is 0.001, not 1" in refused.err
    more = ask(conversations, "create-qa", out, "--most-money", 1, *prices, "--force")
    assert more.json()["rows"] == 10 and more.json()["stopped_at"] is None
    assert asked == report["rows"] and chat_server.asked == 10


@pytest.mark.parametrize(("flag", "most", "rows"), [("--most-answers", 4, 4), ("--most-tokens", 700, 6)])
def test_a_budget_is_never_overdrawn(
    ask: Ask, chat_server: Any, conversations: Path, tmp_path: Path, flag: str, most: int, rows: int
) -> None:
    chat_server.answer = lambda body: as_pairs(("q", "a"))
    prompt = tmp_path / "long.jinja"
    prompt.write_text("Write a pair about {{ turns[0].text }} " + "x" * 380)
    sets = ("--set", "sampling.max_tokens=10", "--concurrency", 5, "--prompt", prompt)
    done = ask(conversations, "create-qa", tmp_path / "out", flag, most, *sets)
    assert done.code == 0, done.err
    cost = done.json()["cost"]
    assert done.json()["rows"] == chat_server.asked == rows
    assert cost["answers"] <= most and (flag != "--most-tokens" or cost["prompt_tokens"] + 10 * rows <= most)


def test_tokens_are_guessed_where_the_endpoint_counts_none(
    ask: Ask, chat_server: Any, conversations: Path, tmp_path: Path
) -> None:
    chat_server.usage = False
    chat_server.answer = lambda body: as_pairs(("q", "a" * 81))
    done = ask(conversations, "create-qa", tmp_path / "out")
    cost = done.json()["cost"]
    assert cost["guessed"] == 10 and cost["prompt_tokens"] > 500 and cost["completion_tokens"] > 10 * 20


def test_dry_run_estimates_and_sends_nothing(ask: Ask, chat_server: Any, picture_folder: Path, tmp_path: Path) -> None:
    (picture_folder / "03.png").write_bytes(b"no picture")
    more = ("--price-in", 1, "--price-out", 10, "--dry-run")
    plan = ask(picture_folder, "create-caption", tmp_path / "out", *more).json()
    assert (plan["rows"], plan["unusable"], plan["requests"], plan["cached"]) == (12, 1, 11, 0)
    assert plan["most_completion_tokens"] == 11 * 1024
    assert 11 * 255 < plan["prompt_tokens"] < 11 * 500
    assert plan["most_money"] == pytest.approx((plan["prompt_tokens"] + 10 * 11 * 1024) / 1e6)
    assert chat_server.asked == 0 and not list(tmp_path.glob("*out*"))
    ask(picture_folder, "create-caption", tmp_path / "out", "--rows", 5)
    again = ask(picture_folder, "create-caption", tmp_path / "out", *more).json()
    assert (again["cached"], again["requests"]) == (4, 7)


def test_an_estimate_needs_no_endpoint(bluelm: Ask, conversations: Path) -> None:
    done = bluelm("data", "revise", conversations, "--task", "create-qa", "--model", "m", "--dry-run")
    assert done.code == 0 and "requests" in done.out


def test_what_is_missing_is_said(bluelm: Ask, conversations: Path, tmp_path: Path) -> None:
    base = ("data", "revise", conversations)
    no_endpoint = bluelm(*base, "--model", "m", "--out", tmp_path / "out")
    assert no_endpoint.code == 2 and "--endpoint is missing" in no_endpoint.err
    no_out = bluelm(*base, "--model", "m", "--endpoint", "http://127.0.0.1:1/v1")
    assert no_out.code == 2 and "--out is missing" in no_out.err
    no_model = bluelm(*base, "--dry-run")
    assert no_model.code == 2 and "model" in no_model.err
    with_password = bluelm(*base, "--model", "m", "--endpoint", "http://me:word@host/v1", "--out", tmp_path / "out")
    assert with_password.code == 2 and "word" not in with_password.err.replace("password", "")
    no_address = bluelm(*base, "--model", "m", "--endpoint", "localhost", "--out", tmp_path / "out")
    assert no_address.code == 2 and "is no address" in no_address.err
    no_price = bluelm(*base, "--model", "m", "--most-money", 3, "--dry-run")
    assert no_price.code == 2 and "no prices are given" in no_price.err
    no_prompt = bluelm(*base, "--model", "m", "--prompt", "nonesuch", "--dry-run")
    assert no_prompt.code == 2 and "caption, qa, revise" in no_prompt.err
    assert not (tmp_path / "out").exists()
