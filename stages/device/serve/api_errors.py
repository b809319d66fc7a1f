"""Errors as OpenAI's clients expect them: a status and {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ApiError(Exception):
    """A request that is not answered, and why.

    Args:
        status: HTTP's.
        message: for people.
        code: for programs, one of OpenAI's where it has one.
        param: what in the request is meant, such as `messages[0].content[1].image_url.url`.
        kind: `type` in the answer.
        headers: to send along.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        kind: str = "invalid_request_error",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status, self.message, self.code, self.param, self.kind = status, message, code, param, kind
        self.headers = dict(headers or {})
        super().__init__(message)

    def as_dict(self) -> dict[str, Any]:
        """The body of the answer."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


def bad_value(param: str, message: str, code: str = "invalid_value") -> ApiError:
    """A parameter whose value cannot be used."""
    return ApiError(400, f"Invalid value for '{param}': {message}", code, param)


def bad_type(param: str, expected: str, value: object) -> ApiError:
    """A parameter of the wrong type."""
    message = f"Invalid type for '{param}': expected {expected}, but got {json_type(value)} instead."
    return ApiError(400, message, "invalid_type", param)


def missing(param: str) -> ApiError:
    """A parameter that must be there."""
    return ApiError(400, f"Missing required parameter: '{param}'.", "missing_required_parameter", param)


def unsupported(param: str, message: str) -> ApiError:
    """A parameter that would change the answer in a way that this server does not know."""
    return ApiError(400, f"Unsupported parameter: '{param}': {message}", "unsupported_parameter", param)


def too_long(message: str) -> ApiError:
    """A conversation that does not fit the model."""
    return ApiError(400, message, "context_length_exceeded", "messages")


def queue_full(message: str, retry_after: int) -> ApiError:
    """No place; the client is told when to come again."""
    headers = {"Retry-After": str(retry_after)}
    return ApiError(429, message, "rate_limit_exceeded", kind="rate_limit_error", headers=headers)


def connections_full() -> ApiError:
    """One client too many."""
    return ApiError(
        503,
        "Too many clients are connected (limits.connections). Try again later.",
        kind=_SERVER,
        headers={"Retry-After": "5"},
    )


def our_fault() -> ApiError:
    """A bug; what it is stands in the server's log, not in the answer."""
    return ApiError(500, "The server had an error while it processed your request; its log says more.", kind=_SERVER)


def failed(message: str) -> ApiError:
    """The model cannot answer."""
    return ApiError(500, message, kind=_SERVER)


def stopping() -> ApiError:
    """The server ends."""
    return ApiError(503, "The server is being stopped.", kind=_SERVER)


def json_type(value: object) -> str:
    """What JSON calls a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    names = {str: "a string", int: "an integer", float: "a decimal", list: "an array", dict: "an object"}
    return names.get(type(value), "something else")


_SERVER = "server_error"
