"""The server's own description, /openapi.json (OpenAPI 3.1): every route, what it takes, and each status it answers.

Written out rather than derived: requests are read by hand, with OpenAI's error messages, and what schemathesis finds
when it asks a server by this description is held by a test.
"""

from __future__ import annotations

from typing import Any

from stages.device.serve.openapi_schemas import Schema, answer_schemas, reference, request_schemas, stream_of
from stages.device.serve.page_files import FOLDER
from stages.device.serve.picture_endpoint import PATH as PICTURES_PATH

OPENAPI_PATH = "/openapi.json"
# What the gate says before any route is asked: a wrong key, a wrong name.
_GATE = {"401": "No API key, or a wrong one.", "403": "This server does not go by that name."}
_BODY = {
    "400": "It cannot be answered; the message says why.",
    "408": "The body did not come in time.",
    "413": "The body is too large.",
    "415": "The content type is another one.",
    "429": "There is no place; Retry-After says when to come again.",
    "500": "The model failed; the server's log says more.",
    "503": "The server is being stopped.",
}


def description(model: str, key: bool, version: str) -> dict[str, Any]:
    """The document.

    Args:
        model: the name of the model that is served.
        key: requests must carry an API key.
        version: bluelm's.
    """
    components: dict[str, Any] = {"schemas": {**request_schemas(model), **answer_schemas()}}
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "bluelm chat --serve", "version": version, "license": {"name": "Apache-2.0"}},
        "paths": _paths(),
        "components": components,
    }
    if key:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
    return document


def _paths() -> dict[str, Any]:
    text, chunks = {"schema": {"type": "string"}}, stream_of("ChatCompletionChunk", done=True)
    picture = {"schema": {"description": "The bytes of a PNG, JPEG or other picture's file."}}
    user = _parameter("user", "query", "Whom it is from, as `user` in a question.", required=False)
    return {
        "/v1/chat/completions": {
            "post": _operation(
                "Answers a conversation, whole or as server-sent events.",
                {"application/json": {"schema": reference("ChatCompletionRequest")}},
                answers={"application/json": {"schema": reference("ChatCompletion")}, "text/event-stream": chunks},
                errors={"404": "There is no such model.", **_BODY},
            )
        },
        PICTURES_PATH: {
            "post": _operation(
                "Encodes a picture ahead of its question; tells of its tiles as server-sent events.",
                {"image/*": picture, "application/octet-stream": picture},
                answers={"text/event-stream": stream_of("PicturePlan", "PictureTiles", "PictureEncoded")},
                errors=_BODY,
                parameters=[user],
            )
        },
        "/v1/models": {"get": _operation("The model, as a list.", answers=_json("Models"))},
        "/v1/models/{name}": {
            "get": _operation(
                "The model.",
                answers=_json("Model"),
                errors={"404": "There is no such model."},
                parameters=[_parameter("name", "path", "What clients call it.")],
            )
        },
        "/health": {"get": _health()},
        "/metrics": {"get": _operation("Counters and times, for Prometheus.", answers={"text/plain": text})},
        OPENAPI_PATH: {"get": _operation("This description.", answers={"application/json": {"schema": _ANYTHING}})},
        "/": {"get": _open(_operation("The page.", answers={"text/html": text}, errors={"304": _UNCHANGED}))},
        FOLDER + "{name}": {
            "get": _open(
                _operation(
                    "A file of the page.",
                    answers=dict.fromkeys(("text/html", "text/css", "text/javascript", "image/svg+xml"), text),
                    errors={"304": _UNCHANGED, "404": "There is no such file."},
                    parameters=[_parameter("name", "path", "The file's name.")],
                )
            )
        },
    }


_ANYTHING: Schema = {"type": "object"}
_UNCHANGED = "The browser's copy still holds."


def _operation(
    summary: str,
    body: dict[str, Any] | None = None,
    *,
    answers: dict[str, Any],
    errors: dict[str, str] | None = None,
    parameters: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """One method of a route; statuses below 400 among `errors` have no content."""
    responses: dict[str, Any] = {"200": {"description": "Done.", "content": answers}}
    for status, text in {**_GATE, **(errors or {})}.items():
        content = {} if int(status) < 400 else {"content": _json("Error")}
        responses[status] = {"description": text, **content}
    if "429" in responses:
        responses["429"]["headers"] = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}, "required": True}}
    made: dict[str, Any] = {"summary": summary, "responses": responses}
    if body is not None:
        made["requestBody"] = {"required": True, "content": body}
    return made | ({"parameters": parameters} if parameters else {})


def _health() -> dict[str, Any]:
    """Says the same of itself while it ends, with another status."""
    made = _operation("Whether it answers.", answers=_json("Health"))
    made["responses"]["503"] = {"description": "It is being stopped.", "content": _json("Health")}
    return _open(made)


def _open(operation: dict[str, Any]) -> dict[str, Any]:
    """An operation that asks for no key."""
    del operation["responses"]["401"]
    return operation | {"security": []}


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": reference(name)}}


def _parameter(name: str, place: str, text: str, required: bool = True) -> dict[str, Any]:
    schema = {"type": "string", **({"minLength": 1} if required else {})}
    return {"name": name, "in": place, "required": required, "description": text, "schema": schema}
