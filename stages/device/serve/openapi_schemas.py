"""JSON schemas of what the server takes and answers: exactly what the readers let through, bounds included.

Source: OpenAI's API reference, chat completions; what is narrower here is what `unsupported` refuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages.device.serve.chat_request import LONGEST_STOP, MOST_STOPS, ROLES_TAKEN

Schema = dict[str, Any]


def request_schemas(model: str) -> dict[str, Schema]:
    """Schemas of a request for a completion, by name.

    Args:
        model: the name of the one that is served.
    """
    return {
        "ChatCompletionRequest": _completion_request(model),
        "Message": {"anyOf": [_message(role) for role in ROLES_TAKEN]},
        "TextPart": _object({"type": {"const": "text"}, "text": {"type": "string"}}, "type", "text"),
        "PicturePart": _object(
            {
                "type": {"const": "image_url"},
                "image_url": _object(
                    {"url": {"type": "string", "description": _URLS}, "detail": {"description": "Ignored."}}, "url"
                ),
            },
            "type",
            "image_url",
        ),
    }


def answer_schemas() -> dict[str, Schema]:
    """Schemas of answers, by name."""
    text, count = {"type": "string"}, {"type": "integer", "minimum": 0}
    model = _object(
        {"id": text, "object": {"const": "model"}, "created": count, "owned_by": text},
        *("id", "object", "created", "owned_by"),
    )
    error = _object(
        {"message": text, "type": text, "param": _or_null(text), "code": _or_null(text)},
        *("message", "type", "param", "code"),
        closed=True,
    )
    return {
        "ChatCompletion": _completion(),
        "ChatCompletionChunk": _chunk(),
        "PicturePlan": _plan(),
        "PictureTiles": _event("tiles", done=count, tiles=count),
        "PictureEncoded": _event("encoded", seconds={"type": "number", "minimum": 0}, reused={"type": "boolean"}),
        "Usage": _usage(),
        "Model": model,
        "Models": _object(
            {"object": {"const": "list"}, "data": {"type": "array", "items": reference("Model")}}, "object", "data"
        ),
        "Health": _object(
            {"status": {"enum": ["ok", "stopping"]}, "model": text, "queued": count}, "status", "model", "queued"
        ),
        "Error": _object({"error": error}, "error", closed=True),
    }


def reference(name: str) -> Schema:
    """A schema by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def stream_of(*names: str, done: bool = False) -> Schema:
    """Server-sent events whose data are JSON of these schemas, or an error; `done`: `[DONE]` at the end."""
    payload = {"anyOf": [reference(name) for name in (*names, "Error")]}
    json: Schema = {"type": "string", "contentMediaType": "application/json", "contentSchema": payload}
    data = {"if": {"not": {"const": "[DONE]"}}, "then": json, "else": {"const": "[DONE]"}} if done else json
    # As FastAPI writes it: OpenAPI 3.2's word for what one event is, which readers of 3.1 leave aside.
    return {"itemSchema": _object({"data": data}, "data")}


_URLS = (
    "A data URI of a PNG, JPEG or other picture; with --allow-files a file: URL inside of that folder, with "
    "--allow-urls an http: or https: URL of a public machine."
)
_NOTHING: Schema = {"enum": [None, []], "description": "Not supported."}


def _completion_request(model: str) -> Schema:
    integer = {"type": ["integer", "null"]}
    unsupported: dict[str, Schema] = {
        "n": {"enum": [1, None]},
        "tools": _NOTHING,
        "functions": _NOTHING,
        "tool_choice": {"enum": ["none", "auto", None]},
        "function_call": {"enum": ["none", "auto", None]},
        "logprobs": {"enum": [False, None]},
        "top_logprobs": {"enum": [0, None]},
        "logit_bias": {"enum": [{}, None]},
        "frequency_penalty": {"enum": [0, None]},
        "presence_penalty": {"enum": [0, None]},
        "response_format": {"anyOf": [_object({"type": {"const": "text"}}, "type"), {"type": "null"}]},
        "modalities": {"enum": [["text"], None]},
        "audio": {"type": "null"},
    }
    stop = {"type": "string", "minLength": 1, "maxLength": LONGEST_STOP}
    request = _object(
        {
            "model": {"enum": [model, None]},
            "messages": {"type": "array", "minItems": 1, "items": reference("Message")},
            "stream": {"type": ["boolean", "null"]},
            "stream_options": {
                "anyOf": [_object({"include_usage": {"type": ["boolean", "null"]}}), {"type": "null"}],
                "description": "Only where stream is true.",
            },
            "max_completion_tokens": integer | {"minimum": 1},
            "max_tokens": integer | {"minimum": 1},
            "temperature": {"type": ["number", "null"], "minimum": 0, "maximum": 2},
            "top_p": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
            "top_k": integer | {"minimum": -1},
            "seed": integer,
            "stop": {"anyOf": [stop, {"type": "array", "maxItems": MOST_STOPS, "items": stop}, {"type": "null"}]},
            "user": {"type": ["string", "null"], "description": "Whom it is from, for taking turns."},
            **unsupported,
        },
        "messages",
    )
    streaming = {"properties": {"stream": {"const": True}}, "required": ["stream"]}
    return request | {"anyOf": [streaming, {"properties": {"stream_options": {"type": "null"}}}]}


def _message(role: str) -> Schema:
    parts = [reference("TextPart"), *([reference("PicturePart")] if role == "user" else [])]
    content: list[Schema] = [{"type": "string"}, {"type": "array", "minItems": 1, "items": {"anyOf": parts}}]
    silent = role == "assistant"
    return _object(
        {
            "role": {"const": role},
            "content": {"anyOf": [*content, *([{"type": "null"}] if silent else [])]},
            "tool_calls": _NOTHING,
            "function_call": {"type": "null"},
        },
        "role",
        *(() if silent else ("content",)),
    )


def _completion() -> Schema:
    text = {"type": "string"}
    message = _object(
        {"role": {"const": "assistant"}, "content": text, "refusal": {"type": "null"}}, "role", "content", "refusal"
    )
    choice = _object(
        {
            "index": {"const": 0},
            "message": message,
            "logprobs": {"type": "null"},
            "finish_reason": {"enum": ["stop", "length"]},
        },
        *("index", "message", "logprobs", "finish_reason"),
    )
    return _object(
        {
            "id": text,
            "object": {"const": "chat.completion"},
            "created": {"type": "integer"},
            "model": text,
            "system_fingerprint": text,
            "choices": {"type": "array", "items": choice, "minItems": 1, "maxItems": 1},
            "usage": reference("Usage"),
        },
        *("id", "object", "created", "model", "system_fingerprint", "choices", "usage"),
    )


def _chunk() -> Schema:
    text, null = {"type": "string"}, {"type": "null"}
    delta = _object({"role": {"const": "assistant"}, "content": text, "refusal": null})
    choice = _object(
        {
            "index": {"const": 0},
            "delta": delta,
            "logprobs": null,
            "finish_reason": {"enum": ["stop", "length", None]},
        },
        *("index", "delta", "logprobs", "finish_reason"),
    )
    return _object(
        {
            "id": text,
            "object": {"const": "chat.completion.chunk"},
            "created": {"type": "integer"},
            "model": text,
            "system_fingerprint": text,
            "choices": {"type": "array", "items": choice, "maxItems": 1},
            "usage": _or_null(reference("Usage")),
        },
        *("id", "object", "created", "model", "system_fingerprint", "choices"),
    )


def _plan() -> Schema:
    """How a picture is cut; boxes are left, top, right, bottom in pixels of the canvas."""
    count: Schema = {"type": "integer", "minimum": 0}
    pair: Schema = {"type": "array", "items": count, "minItems": 2, "maxItems": 2}
    box: Schema = {"type": "array", "items": count, "minItems": 4, "maxItems": 4}
    return _event(
        "plan",
        sha256={"type": "string", "pattern": "^[0-9a-f]{64}$"},
        **dict.fromkeys(("size", "grid", "canvas"), pair),
        picture=box,
        boxes={"type": "array", "items": box},
        thumbnail={"type": "boolean"},
        **dict.fromkeys(("tiles", "tokens"), count),
    )


def _event(kind: str, **fields: Schema) -> Schema:
    """An event of a picture that is encoded."""
    return _object({"type": {"const": kind}, **fields}, "type", *fields, closed=True)


def _usage() -> Schema:
    count = {"type": "integer", "minimum": 0}
    details = {
        "prompt_tokens_details": _object(dict.fromkeys(("cached_tokens", "image_tokens"), count)),
        "completion_tokens_details": _object({"reasoning_tokens": count}),
    }
    counts = ("prompt_tokens", "completion_tokens", "total_tokens")
    return _object({**dict.fromkeys(counts, count), **details}, *counts, *details)


def _object(properties: Mapping[str, Schema], *required: str, closed: bool = False) -> Schema:
    """An object; `closed`: no other properties."""
    made: Schema = {"type": "object", "properties": dict(properties)}
    if required:
        made["required"] = list(required)
    return made | ({"additionalProperties": False} if closed else {})


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}
