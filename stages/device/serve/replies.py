"""What clients get: completions, chunks of them, and errors, in the shapes of OpenAI's API."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import JSONResponse, StreamingResponse

from stages.device.runtime.engine import Answer
from stages.device.serve.api_errors import ApiError

DONE = "data: [DONE]\n\n"


@dataclass(frozen=True)
class CompletionReply:
    """One completion, whole or in chunks.

    Attributes:
        model: its name.
        fingerprint: the model's.
        include_usage: the stream ends with the tokens that were used.
    """

    model: str
    fingerprint: str
    include_usage: bool = False
    id: str = field(default_factory=lambda: "chatcmpl-" + secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The answer as one object."""
        message = {"role": "assistant", "content": answer.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason(answer)}
        return self._about("chat.completion") | {"choices": [choice], "usage": usage(answer)}

    def opening(self) -> str:
        """The first event of a stream: who speaks."""
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def piece(self, text: str) -> str:
        """Some text."""
        return self._chunk({"content": text})

    def closing(self, answer: Answer) -> str:
        """Why the answer ended, the usage where it is wanted, and the end of the stream."""
        end = self._chunk({}, finish_reason(answer))
        if self.include_usage:
            end += event(self._about("chat.completion.chunk") | {"choices": [], "usage": usage(answer)})
        return end + DONE

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        more = {"usage": None} if self.include_usage else {}
        return event(self._about("chat.completion.chunk") | {"choices": [choice]} | more)

    def _about(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


def streamed(events: AsyncIterator[str]) -> StreamingResponse:
    """Server-sent events as a reply that nothing on the way keeps or holds back."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


def event(payload: dict[str, Any]) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(payload, ensure_ascii=False, separators=(',', ':'), allow_nan=False)}\n\n"


def finish_reason(answer: Answer) -> str:
    """OpenAI's word for why an answer ended."""
    return "stop" if answer.reason == "stop" else "length"


def usage(answer: Answer) -> dict[str, Any]:
    """The tokens that an answer used; `image_tokens` are part of the prompt's, as cached ones are."""
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.generated_tokens,
        "total_tokens": answer.prompt_tokens + answer.generated_tokens,
        "prompt_tokens_details": {"cached_tokens": answer.reused_tokens, "image_tokens": answer.image_tokens},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def error_reply(error: ApiError) -> JSONResponse:
    """An error as a whole answer."""
    return JSONResponse(error.as_dict(), error.status, headers=error.headers)
