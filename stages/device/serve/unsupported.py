"""Parameters of OpenAI's API that would change an answer in a way this server does not know: refused, never ignored."""

from __future__ import annotations

from stages.device.serve.api_errors import ApiError, unsupported
from stages.device.serve.json_fields import JsonFields

_NO_TOOLS = "this model calls no tools; leave it out."
_PENALTIES = ("frequency_penalty", "presence_penalty")


def refuse_unsupported(fields: JsonFields) -> None:
    """Raises ApiError for the first parameter that cannot be done; values that ask for nothing are let through."""
    values = fields.values
    if (count := fields.integer("n", 1)) is not None and count != 1:
        raise _only("n", count, "1: one answer a request; send it again for another")
    for name in ("tools", "functions"):
        if values.get(name) not in (None, []):
            raise unsupported(name, _NO_TOOLS)
    for name in ("tool_choice", "function_call"):
        if values.get(name) not in (None, "none", "auto"):
            raise unsupported(name, _NO_TOOLS)
    top = fields.integer("top_logprobs", 0)
    if fields.flag("logprobs") or top:
        raise unsupported("logprobs", "this server gives no log probabilities.")
    if values.get("logit_bias") not in (None, {}):
        raise unsupported("logit_bias", "this server does not weigh single tokens.")
    for name in _PENALTIES:
        if fields.number(name, -2, 2):
            raise unsupported(name, "this server has no penalties; leave it out or give 0.")
    if fields.given("response_format") and (kind := fields.object("response_format").text("type")) != "text":
        raise _only("response_format", kind, "'text'")
    if values.get("modalities") not in (None, ["text"]) or values.get("audio") is not None:
        raise unsupported("modalities", "this server answers in text.")


def refuse_calls(message: JsonFields) -> None:
    """Raises ApiError for a message of a model that called tools, as another one may have."""
    if message.values.get("tool_calls") not in (None, []) or message.values.get("function_call") is not None:
        raise unsupported(message.path("tool_calls"), "this model calls no tools.")


def _only(param: str, value: object, allowed: str) -> ApiError:
    message = f"Unsupported value: '{param}' is {value!r}; this server supports only {allowed}."
    return ApiError(400, message, "unsupported_value", param)
