"""Requests: what is understood, what is ignored, and the status, code and place of everything that is refused."""

from __future__ import annotations

from typing import Any

import pytest

from stages.device.runtime.engine import AnswerOptions
from stages.device.runtime.sampling import SamplingSpec
from stages.device.serve.api_errors import ApiError
from stages.device.serve.chat_request import ChatRequest, PictureReference, read_request
from stages.device.serve.limits import ServeLimits
from stages.device.serve.service import parse_json

HELLO = [{"role": "user", "content": "Hello"}]
LIMITS = ServeLimits(pictures=2, tokens=100)


def read(messages: Any = HELLO, **parameters: Any) -> ChatRequest:
    return read_request({"messages": messages, **parameters}, AnswerOptions(max_tokens=7), LIMITS)


def refused(body: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read_request(body, AnswerOptions(), LIMITS)
    return caught.value


def test_everything_that_is_understood() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:,", "detail": "high"}}
    messages = [
        {"role": "developer", "content": "Be short."},
        {"role": "user", "name": "Ann", "content": [{"type": "text", "text": "What?"}, image]},
        {"role": "assistant", "content": None},
        {"role": "user", "content": [image]},
    ]
    found = read(
        messages,
        model="it",
        max_tokens=5,
        max_completion_tokens=9,
        temperature=1,
        top_p=0.5,
        top_k=3,
        seed=-1,
        stop=["a", "b"],
        stream=True,
        stream_options={"include_usage": True},
        user="me",
    )
    assert found.messages == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": [{"type": "text", "text": "What?"}, {"type": "image"}]},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": [{"type": "image"}]},
    ]
    places = ["messages[1].content[1].image_url.url", "messages[3].content[0].image_url.url"]
    assert found.pictures == tuple(PictureReference(place, "data:,") for place in places)
    assert found.options == AnswerOptions(9, SamplingSpec(1.0, 3, 0.5, 2**64 - 1), ("a", "b"))
    assert (found.model, found.stream, found.include_usage, found.client) == ("it", True, True, "me")


def test_defaults_hold_where_nothing_is_said_and_nulls_say_nothing() -> None:
    absent = read()
    nulls = read(**dict.fromkeys(("model", "temperature", "top_p", "seed", "stop", "stream", "max_tokens", "n")))
    for found in (absent, nulls):
        assert found.options.max_tokens == 7
        assert found.options.sampling.temperature == 0
        assert (found.model, found.stream, found.options.stop) == (None, False, ())


def test_without_a_seed_every_answer_draws_anew() -> None:
    assert len({read(temperature=1.0).options.sampling.seed for _ in range(5)}) == 5


def test_more_tokens_than_allowed_are_as_many_as_allowed() -> None:
    assert read(max_tokens=10**9).options.max_tokens == 100


def test_what_asks_for_nothing_is_let_through() -> None:
    read(
        n=1,
        tools=[],
        tool_choice="none",
        logprobs=False,
        logit_bias={},
        frequency_penalty=0,
        presence_penalty=0.0,
        response_format={"type": "text"},
        modalities=["text"],
        metadata={"a": 1},
        some_new_thing=[1],
    )


IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}
BAD: list[tuple[dict[str, Any], str | None, str]] = [
    ({"messages": None}, "messages", "missing_required_parameter"),
    ({"messages": "Hello"}, "messages", "invalid_type"),
    ({"messages": []}, "messages", "empty_array"),
    ({"messages": ["Hello"]}, "messages[0]", "invalid_type"),
    ({"messages": [{"content": "a"}]}, "messages[0].role", "missing_required_parameter"),
    ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].role", "invalid_value"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
    ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content", "invalid_type"),
    ({"messages": [{"role": "user", "content": []}]}, "messages[0].content", "empty_array"),
    ({"messages": [{"role": "user", "content": ["a"]}]}, "messages[0].content[0]", "invalid_type"),
    (
        {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
        "messages[0].content[0].type",
        "invalid_value",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "messages[0].content[0].text",
        "missing_required_parameter",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "data:,"}]}]},
        "messages[0].content[0].image_url",
        "invalid_type",
    ),
    ({"messages": [{"role": "system", "content": [IMAGE]}]}, "messages[0].content[0].type", "invalid_value"),
    ({"messages": [{"role": "user", "content": [IMAGE] * 3}]}, "messages", "invalid_value"),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "a"}]}]},
        "messages[0].tool_calls",
        "unsupported_parameter",
    ),
    ({"model": 3}, "model", "invalid_type"),
    ({"temperature": "hot"}, "temperature", "invalid_type"),
    ({"temperature": True}, "temperature", "invalid_type"),
    ({"temperature": 2.1}, "temperature", "decimal_above_maximum_value"),
    ({"temperature": -0.1}, "temperature", "decimal_below_minimum_value"),
    ({"top_p": 1.5}, "top_p", "decimal_above_maximum_value"),
    ({"max_tokens": 0}, "max_tokens", "integer_below_minimum_value"),
    ({"max_completion_tokens": 1.5}, "max_completion_tokens", "invalid_type"),
    ({"seed": "a"}, "seed", "invalid_type"),
    ({"stop": 3}, "stop", "invalid_type"),
    ({"stop": ["a", 3]}, "stop", "invalid_type"),
    ({"stop": ""}, "stop", "invalid_value"),
    ({"stop": ["a"] * 17}, "stop", "array_above_max_length"),
    ({"stream": 1}, "stream", "invalid_type"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
    ({"stream": True, "stream_options": 3}, "stream_options", "invalid_type"),
    ({"n": 2}, "n", "unsupported_value"),
    ({"tools": [{"type": "function"}]}, "tools", "unsupported_parameter"),
    ({"tool_choice": "required"}, "tool_choice", "unsupported_parameter"),
    ({"functions": [{}]}, "functions", "unsupported_parameter"),
    ({"logprobs": True}, "logprobs", "unsupported_parameter"),
    ({"top_logprobs": 2}, "logprobs", "unsupported_parameter"),
    ({"logit_bias": {"3": 1}}, "logit_bias", "unsupported_parameter"),
    ({"presence_penalty": 0.5}, "presence_penalty", "unsupported_parameter"),
    ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_value"),
    ({"modalities": ["text", "audio"]}, "modalities", "unsupported_parameter"),
    ({"user": 3}, "user", "invalid_type"),
]


@pytest.mark.parametrize(("parameters", "param", "code"), BAD, ids=lambda value: str(value)[:60])
def test_every_bad_parameter_is_refused_by_its_name(parameters: dict[str, Any], param: str, code: str) -> None:
    error = refused({"messages": HELLO} | parameters)
    assert (error.status, error.param, error.code, error.kind) == (400, param, code, "invalid_request_error")
    assert param in error.message
    assert set(error.as_dict()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "text", [b"", b"{", b"\xff", b'{"a": NaN}', b'"\\ud800"', b"[" * 100_000, b'{"a": 1} {"b": 2}', b"1" * 5000 + b"x"]
)
def test_broken_json_is_refused(text: bytes) -> None:
    with pytest.raises(ApiError, match="could not parse the JSON body") as caught:
        parse_json(text)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


@pytest.mark.parametrize("body", [b"3", b"null", b"[]", b'"a"'])
def test_json_that_is_no_object_is_refused(body: bytes) -> None:
    assert refused(parse_json(body)).code == "invalid_type"


def test_limits_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="queue"):
        ServeLimits(queue=0)
