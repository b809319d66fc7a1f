"""A real server on loopback over a fake model, asked by OpenAI's own client."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import openai
import pytest

from stages.artifacts.errors import ModelError, UsageError
from stages.device.runtime.cache import overflow
from stages.device.serve.access import Access, hosts_of

HELLO: Any = [{"role": "user", "content": "Hello"}]


def ask(live: Any, messages: Any = HELLO, **parameters: Any) -> Any:
    return live.client().chat.completions.create(model="fake", messages=messages, **parameters)


def test_a_completion(start: Any) -> None:
    found = ask(start())
    assert found.object == "chat.completion" and found.id.startswith("chatcmpl-")
    assert found.choices[0].message.content == "one two three"
    assert (found.choices[0].message.role, found.choices[0].finish_reason) == ("assistant", "stop")
    assert (found.usage.prompt_tokens, found.usage.completion_tokens, found.usage.total_tokens) == (10, 3, 13)
    assert (found.model, found.system_fingerprint) == ("fake", "fp_fake")


def test_an_answer_that_is_cut_says_length(start: Any) -> None:
    found = ask(start(), max_completion_tokens=2)
    assert (found.choices[0].message.content, found.choices[0].finish_reason) == ("one two", "length")


@pytest.mark.parametrize("usage", [False, True])
def test_a_stream(start: Any, usage: bool) -> None:
    options: Any = {"stream_options": {"include_usage": True}} if usage else {}
    chunks = list(ask(start(), stream=True, **options))
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    with_choices = [chunk for chunk in chunks if chunk.choices]
    assert with_choices[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in with_choices) == "one two three"
    assert [chunk.choices[0].finish_reason for chunk in with_choices][-2:] == [None, "stop"]
    if usage:
        assert not chunks[-1].choices and chunks[-1].usage.total_tokens == 13
        assert all(chunk.usage is None for chunk in chunks[:-1])
    else:
        assert all(chunk.usage is None for chunk in chunks)


def test_the_first_word_comes_before_the_last_is_made(start: Any, fake: Any) -> None:
    model = fake()
    live = start(model)
    model.words = ("one", " two")
    model.pause = 0.0
    stream = iter(ask(live, stream=True))
    assert next(stream).choices[0].delta.role == "assistant"
    assert next(stream).choices[0].delta.content == "one"
    assert len(list(stream)) == 2


def test_pictures_reach_the_model_once_each(start: Any, about: Any, data_uri: Any, png: Any) -> None:
    live = start()
    found = ask(live, about("What?", data_uri(), data_uri(png(30, 30))))
    assert found.usage.prompt_tokens_details.image_tokens == 8
    assert found.usage.prompt_tokens == 18


def test_models_health_metrics_and_root(start: Any) -> None:
    live = start()
    assert [model.id for model in live.client().models.list()] == ["fake"]
    assert live.client().models.retrieve("fake").owned_by == "bluelm"
    with pytest.raises(openai.NotFoundError, match="'other' does not exist"):
        live.client().models.retrieve("other")
    ask(live)
    health = httpx2.get(live.url + "/health")
    assert health.json() == {"status": "ok", "model": "fake", "queued": 0}
    metrics = httpx2.get(live.url + "/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = dict(line.rsplit(" ", 1) for line in metrics.text.splitlines() if not line.startswith("#"))
    assert lines['bluelm_requests_total{status="200"}'] == "3"
    assert lines['bluelm_requests_total{status="404"}'] == "1"
    assert lines['bluelm_jobs_total{end="answered"}'] == lines["bluelm_jobs_accepted_total"] == "1"
    assert (lines["bluelm_prompt_tokens_total"], lines["bluelm_completion_tokens_total"]) == ("10", "3")
    assert lines['bluelm_time_to_first_token_seconds_bucket{le="+Inf"}'] == "1"
    assert lines['bluelm_decode_tokens_per_second_bucket{le="10"}'] == "1"
    assert int(lines["process_resident_memory_bytes"]) > 10_000_000
    assert "/v1" in httpx2.get(live.url + "/").text
    assert "access-control-allow-origin" not in {**metrics.headers, **health.headers}


def error_of(response: httpx2.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    return dict(response.json()["error"])


def test_errors_are_those_that_the_client_knows(start: Any, about: Any, data_uri: Any) -> None:
    live = start()
    with pytest.raises(openai.BadRequestError) as bad:
        ask(live, temperature=3)
    assert (bad.value.param, bad.value.code) == ("temperature", "decimal_above_maximum_value")
    with pytest.raises(openai.BadRequestError) as picture:
        ask(live, about("What?", data_uri(b"no picture")), stream=True)
    assert picture.value.code == "image_parse_error"
    assert picture.value.param == "messages[0].content[0].image_url.url"
    with pytest.raises(openai.NotFoundError) as unknown:
        live.client().chat.completions.create(model="gpt-4o", messages=HELLO)
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        live.client().embeddings.create(model="fake", input="a")
    url = live.url + "/v1/chat/completions"
    assert error_of(httpx2.get(url), 405)["message"] == "Method not allowed (GET /v1/chat/completions)"
    assert error_of(httpx2.post(url, content=b"{}"), 415)["code"] == "unsupported_content_type"
    assert error_of(httpx2.post(url, json=[]), 400)["param"] == "body"
    cut = httpx2.post(url, content=b'{"a"', headers={"content-type": "application/json"})
    assert error_of(cut, 400)["code"] == "invalid_json"


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_model_finds_wrong(start: Any, fake: Any, about: Any, data_uri: Any, png: Any, stream: bool) -> None:
    model = fake()
    live = start(model)
    with pytest.raises(openai.BadRequestError, match="pixels are broken") as broken:
        ask(live, about("What?", data_uri(png(13, 13))), stream=stream)
    assert broken.value.code == "image_parse_error"
    model.refusing = overflow(3000, 2048)
    with pytest.raises(openai.BadRequestError, match="takes 3000 tokens; this model holds 2048") as long:
        ask(live, stream=stream)
    assert (long.value.code, long.value.param) == ("context_length_exceeded", "messages")
    model.refusing = ModelError("The template wants a user first.", "So it is.", "Begin with one.")
    with pytest.raises(openai.BadRequestError, match="wants a user first"):
        ask(live, stream=stream)
    model.refusing = None
    for failing, message in ((UsageError("Graph.", "b", "c"), "Graph."), (ZeroDivisionError("secret"), "had an error")):
        model.failing = failing
        with pytest.raises(openai.InternalServerError, match=message) as bug:
            ask(live, stream=stream)
        assert "secret" not in str(bug.value)
    model.failing = None
    assert ask(live).choices[0].message.content == "one two three"
    assert live.service.metrics.jobs.value("failed") == 3


def test_a_full_queue_says_429_and_when_to_come_again(start: Any, fake: Any) -> None:
    model = fake()
    model.gate.clear()
    live = start(model, limits={"queue": 2})
    with ThreadPoolExecutor(3) as pool:
        waiting = []
        for count in range(3):
            waiting.append(pool.submit(ask, live))
            live.until(lambda count=count: live.service.metrics.accepted.value() == count + 1)
            live.until(lambda: live.service.worker.running)
        live.until(lambda: live.service.worker.queued == 2)
        with pytest.raises(openai.RateLimitError) as full:
            ask(live)
        assert full.value.code == "rate_limit_exceeded"
        assert 1 <= int(full.value.response.headers["retry-after"]) <= 60
        assert live.service.metrics.refused.value() == 1
        model.gate.set()
        assert [job.result().choices[0].message.content for job in waiting] == ["one two three"] * 3
    assert ask(live).choices[0].finish_reason == "stop"
    assert live.service.metrics.requests.value("429") == 1


def test_clients_take_turns(start: Any, fake: Any) -> None:
    model = fake()
    model.gate.clear()
    live = start(model)
    order = ["greedy 0", "greedy 1", "greedy 2", "modest 0", "modest 1"]
    with ThreadPoolExecutor(5) as pool:
        for count, text in enumerate(order):
            user = text.split()[0]
            pool.submit(ask, live, [{"role": "user", "content": text}], user=user)
            live.until(lambda count=count: live.service.metrics.accepted.value() == count + 1)
            live.until(lambda: live.service.worker.running)
        model.gate.set()
    # The first was taken while it was alone; then one of each before a second of any.
    assert model.started == ["greedy 0", "greedy 1", "modest 0", "greedy 2", "modest 1"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("phase", ["encode", "prefill", "decode"])
def test_work_stops_when_the_client_leaves(
    start: Any, fake: Any, about: Any, data_uri: Any, phase: str, stream: bool
) -> None:
    model = fake(pause=5.0 if phase == "decode" else 0.0)
    live = start(model)
    if phase != "decode":
        model.gate.clear()
    messages = about("What?", data_uri()) if phase == "encode" else HELLO
    client = live.client(timeout=0.4)
    with pytest.raises((openai.APITimeoutError, httpx2.ReadTimeout)):
        list(client.chat.completions.create(model="fake", messages=messages, stream=stream))
    live.until(lambda: live.service.metrics.jobs.value("cancelled") == 1)
    assert model.interrupted_in == [phase]
    live.until(lambda: live.service.buffer.used == 0)
    model.gate.set()
    model.pause = 0
    assert ask(live).choices[0].finish_reason == "stop"


def test_a_waiting_request_whose_client_leaves_frees_its_place(start: Any, fake: Any) -> None:
    model = fake()
    model.gate.clear()
    live = start(model, limits={"queue": 1})
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, live)
        live.until(lambda: live.service.worker.running)
        with pytest.raises(openai.APITimeoutError):
            live.client(timeout=0.3).chat.completions.create(model="fake", messages=HELLO)
        live.until(lambda: live.service.worker.queued == 0)
        model.gate.set()
        first.result()
    assert len(model.started) == 1
    assert live.service.metrics.jobs.value("cancelled") == 1


def test_stopping_lets_what_runs_end_and_cancels_the_rest_after_the_grace(start: Any, fake: Any) -> None:
    model = fake()
    model.gate.clear()
    live = start(model)
    with ThreadPoolExecutor(3) as pool:
        whole, stream = pool.submit(ask, live), pool.submit(lambda: list(ask(live, stream=True)))
        live.until(lambda: live.service.worker.queued == 1)
        live.server.stop()
        for job in (whole, stream):
            with pytest.raises(openai.InternalServerError, match="is being stopped") as stopped:
                job.result()
            assert stopped.value.status_code == 503
    live.thread.join(10)
    assert not live.thread.is_alive()
    assert live.service.metrics.jobs.value("cancelled") == 2
    with pytest.raises(openai.APIConnectionError):
        ask(live)


def test_stopping_waits_for_an_answer_that_comes_in_time(start: Any, fake: Any) -> None:
    model = fake(pause=0.15)
    live = start(model, limits={"grace_s": 10})
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, live)
        live.until(lambda: live.service.worker.running)
        live.server.stop()
        assert answer.result().choices[0].message.content == "one two three"
    live.thread.join(10)
    assert not live.thread.is_alive()


def test_a_key_is_asked_for_everywhere_but_at_health(start: Any) -> None:
    live = start(access=Access("secret"))
    for path in ("/v1/models", "/metrics"):
        assert error_of(httpx2.get(live.url + path), 401)["code"] == "invalid_api_key"
    with pytest.raises(openai.AuthenticationError, match="Incorrect API key"):
        live.client(api_key="wrong").models.list()
    for header in (b"Bearer secrets", b"Bearer s\xe9cret", b"Bearer", b"Basic secret", b"secret"):
        assert error_of(httpx2.get(live.url + "/metrics", headers={"authorization": header}), 401)
    assert httpx2.get(live.url + "/health").status_code == 200
    assert [model.id for model in live.client(api_key="secret").models.list()] == ["fake"]


def test_a_page_cannot_reach_it_by_a_name_of_its_own(start: Any) -> None:
    live = start(access=Access(hosts=hosts_of("127.0.0.1", ["box.example"])))
    port = live.server.address.port
    for host in (f"evil.example:{port}", "127.0.0.1.evil.example", "", "[::2]:80"):
        assert error_of(httpx2.get(live.url + "/health", headers={"host": host}), 403)["code"] == "host_not_allowed"
    for host in (f"localhost:{port}", "127.0.0.1", f"[::1]:{port}", "box.example:443", "LOCALHOST"):
        assert httpx2.get(live.url + "/health", headers={"host": host}).status_code == 200
    assert hosts_of("0.0.0.0") is None and hosts_of("0.0.0.0", ["a"]) == {"a"}


def test_many_clients_at_once_all_get_their_own_answer(start: Any, fake: Any) -> None:
    live = start(fake(), limits={"queue": 64})
    seen = threading.Lock()
    ids = set()

    def one(number: int) -> str:
        found = ask(live, max_tokens=1 + number % 3, user=str(number % 5))
        with seen:
            ids.add(found.id)
        return str(found.choices[0].message.content)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(one, range(48)))
    assert answers == [("one", "one two", "one two three")[number % 3] for number in range(48)]
    assert len(ids) == 48
