"""A request for a chat completion, read from JSON: what is asked, and how to answer.

Unknown parameters, and those that change no answer (`user`, `metadata`, …), are ignored; those that would change it in
a way this server does not know are refused (see `unsupported`). Source: OpenAI's API reference, chat completions.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stages.device.prompt.messages import ROLES
from stages.device.runtime.engine import AnswerOptions
from stages.device.runtime.sampling import SamplingSpec
from stages.device.serve.api_errors import ApiError, bad_type, bad_value, missing
from stages.device.serve.json_fields import JsonFields, as_fields
from stages.device.serve.limits import ServeLimits
from stages.device.serve.unsupported import refuse_calls, refuse_unsupported

# OpenAI's own: `developer` is what it calls `system` since 2024-12.
ROLES_TAKEN = ("system", "developer", "user", "assistant")
MOST_STOPS, LONGEST_STOP = 16, 512
# OpenAI takes a top_p of 0; the likeliest token alone makes up any smaller mass.
_SMALLEST_TOP_P = 1e-9


@dataclass(frozen=True)
class PictureReference:
    """A picture that a request names: where in the request, and its URL."""

    place: str
    url: str


@dataclass(frozen=True)
class ChatRequest:
    """What is asked.

    Attributes:
        model: the model that is wanted; None for whatever there is.
        messages: see `stages.device.prompt.messages`.
        pictures: what its picture parts show, in order.
        options: how to answer.
        stream: send the answer as it comes.
        include_usage: end the stream with the tokens that were used.
        client: whom the request is from, in the client's own words; None where it does not say.
    """

    model: str | None
    messages: list[dict[str, Any]]
    pictures: tuple[PictureReference, ...]
    options: AnswerOptions
    stream: bool = False
    include_usage: bool = False
    client: str | None = None


def read_request(body: Any, defaults: AnswerOptions, limits: ServeLimits) -> ChatRequest:
    """Reads a request.

    Args:
        body: the JSON.
        defaults: how to answer where the request does not say; without a `seed` every answer draws anew.
        limits: how many pictures and tokens it may have.

    Raises:
        ApiError: it cannot be answered; the first problem.
    """
    fields = as_fields(body, "")
    refuse_unsupported(fields)
    pictures: list[PictureReference] = []
    messages = [_message(message, pictures) for message in fields.objects("messages")]
    if not messages:
        raise bad_value("messages", "empty array. Expected an array with minimum length 1.", "empty_array")
    if len(pictures) > limits.pictures:
        many = f"{len(pictures)} pictures; this server takes {limits.pictures} in a request (--set limits.pictures)."
        raise bad_value("messages", many)
    stream = fields.flag("stream")
    return ChatRequest(
        model=fields.text("model") if fields.given("model") else None,
        messages=messages,
        pictures=tuple(pictures),
        options=_options(fields, defaults, limits),
        stream=stream,
        include_usage=_include_usage(fields, stream),
        client=fields.text("user") if fields.given("user") else None,
    )


def _message(fields: JsonFields, pictures: list[PictureReference]) -> dict[str, Any]:
    """One message; its pictures are added to the list."""
    role = fields.choice("role", ROLES_TAKEN)
    refuse_calls(fields)
    role = "system" if role == "developer" else role
    assert role in ROLES
    content = fields.values.get("content")
    if isinstance(content, str):
        return {"role": role, "content": content}
    if content is None and role == "assistant":
        return {"role": role, "content": ""}
    if content is None:
        raise missing(fields.path("content"))
    if not isinstance(content, list):
        raise bad_type(fields.path("content"), "a string or an array of objects", content)
    if not content:
        raise bad_value(fields.path("content"), "empty array. Expected an array with minimum length 1.", "empty_array")
    return {"role": role, "content": list(_parts(fields, role, pictures))}


def _parts(fields: JsonFields, role: str, pictures: list[PictureReference]) -> Iterator[dict[str, Any]]:
    for part in fields.objects("content"):
        kind = part.choice("type", ("text", "image_url"))
        if kind == "text":
            yield {"type": "text", "text": part.text("text")}
            continue
        if role != "user":
            raise bad_value(
                part.path("type"), f"a picture in a message of the role '{role}'; only users show pictures."
            )
        image = part.object("image_url")
        pictures.append(PictureReference(image.path("url"), image.text("url")))
        yield {"type": "image"}


def _options(fields: JsonFields, defaults: AnswerOptions, limits: ServeLimits) -> AnswerOptions:
    older, asked = fields.integer("max_tokens", 1), fields.integer("max_completion_tokens", 1)
    asked = older if asked is None else asked
    sampling = defaults.sampling
    temperature = fields.number("temperature", 0, 2)
    top_p = fields.number("top_p", 0, 1)
    top_k = fields.integer("top_k", -1)
    seed = fields.integer("seed")
    return AnswerOptions(
        max_tokens=min(defaults.max_tokens if asked is None else asked, limits.tokens),
        sampling=SamplingSpec(
            temperature=sampling.temperature if temperature is None else temperature,
            top_k=sampling.top_k if top_k is None else max(top_k, 0),
            top_p=sampling.top_p if top_p is None else max(top_p, _SMALLEST_TOP_P),
            seed=secrets.randbits(63) if seed is None else seed % 2**64,
        ),
        stop=_stops(fields),
    )


def _stops(fields: JsonFields) -> tuple[str, ...]:
    given = fields.values.get("stop")
    texts = [] if given is None else [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise bad_type("stop", "a string or an array of strings", given if not isinstance(given, list) else given[0])
    if len(texts) > MOST_STOPS:
        raise bad_value("stop", f"{len(texts)} texts. Expected at most {MOST_STOPS}.", "array_above_max_length")
    if not all(0 < len(text) <= LONGEST_STOP for text in texts):
        raise bad_value("stop", f"a text is empty or longer than {LONGEST_STOP} letters.")
    return tuple(texts)


def _include_usage(fields: JsonFields, stream: bool) -> bool:
    if not fields.given("stream_options"):
        return False
    if not stream:
        message = "Invalid value for 'stream_options': it is only allowed when 'stream' is true."
        raise ApiError(400, message, "invalid_value", "stream_options")
    return fields.object("stream_options").flag("include_usage")
