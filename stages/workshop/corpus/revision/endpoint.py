"""An OpenAI-compatible endpoint: one request at a time, retried where that can help.

Retried, with growing waits or as long as the endpoint asks (`Retry-After`): 408, 409, 425, 429, 5xx, timeouts, dropped
connections, bodies that are cut short or not what the protocol says. A refused key, model or account ends the run; any
other 4xx is about the one request.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import os
import random
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import Field

from stages.artifacts.errors import BluelmError, UsageError
from stages.artifacts.recipes import RecipeModel
from stages.workshop.corpus.revision.answers import Reply

if TYPE_CHECKING:
    from openai import APIError, AsyncOpenAI

_RETRIED = (408, 409, 425, 429)
_LONGEST_BACKOFF = 60.0
_SHOWN = 300
_ADDED_HEADERS = (
    *("OpenAI-Organization", "OpenAI-Project"),
    *(
        f"X-Stainless-{name}"
        for name in ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version", "Async")
    ),
    *("x-stainless-retry-count", "x-stainless-read-timeout"),
)


class Patience(RecipeModel):
    """How long an endpoint is waited for. None of it changes what is made."""

    timeout: float = Field(default=120.0, gt=0, allow_inf_nan=False, description="seconds for one request")
    retries: int = Field(default=6, ge=0, description="how often a failed request is sent again")
    backoff: float = Field(default=1.0, ge=0, allow_inf_nan=False, description="first wait in seconds; then doubled")
    longest_wait: float = Field(
        default=900.0, ge=0, allow_inf_nan=False, description="longest wait that an endpoint may ask for, in seconds"
    )


class EndpointError(BluelmError):
    """An endpoint that is gone, or that refuses whatever is asked."""


class RejectedError(Exception):
    """The endpoint refuses this one request; another may pass."""


class ExhaustedError(Exception):
    """All retries of a request failed."""

    def __init__(self, reason: str, gone: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.gone = gone
        """Whether no connection could be made at all."""


class Endpoint:
    """A client whose requests go to one address and nowhere else."""

    def __init__(self, url: str, patience: Patience, key: str | None = None) -> None:
        """Connects to nothing yet.

        Args:
            url: the base address, as `http://localhost:8000/v1`.
            patience: timeouts and retries.
            key: the API key; no `Authorization` is sent without one.

        Raises:
            UsageError: the address is none, or holds a password.
        """
        _check(url)
        self.url = url
        self.patience = patience
        self.retried = 0
        self._key = key
        self._quiet_until = 0.0
        self._client = _client(url, patience, key)

    async def close(self) -> None:
        """Ends all connections."""
        await self._client.close()

    async def ask(self, request: Mapping[str, Any]) -> Reply:
        """Sends a request until it is answered.

        Raises:
            RejectedError: the endpoint refuses it.
            ExhaustedError: all retries failed.
            EndpointError: the endpoint refuses the key, the account or the model, or asks for too long a wait.
        """
        attempt = 0
        while True:
            await self._wait_for_all()
            answer = await self._send(request)
            if isinstance(answer, Reply):
                return answer
            if attempt == self.patience.retries:
                raise ExhaustedError(answer.reason, answer.gone)
            await asyncio.sleep(self._backoff(attempt) if answer.wait is None else 0)
            attempt += 1
            self.retried += 1

    async def _send(self, request: Mapping[str, Any]) -> Reply | _Failure:
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        try:
            response = await self._client.chat.completions.with_raw_response.create(
                **request, extra_headers=_left_out(self._key)
            )
            return _read(response.content)
        except _MalformedError as error:
            return _Failure(str(error))
        except APITimeoutError:
            return _Failure(f"no answer within {self.patience.timeout:g} seconds")
        except APIConnectionError as error:
            # The library that openai sends through names it so, whichever of its versions is installed.
            cause = type(error.__cause__).__name__
            detail = _shown(str(error.__cause__ or error), self._key)
            return _Failure(detail or cause, gone=cause in ("ConnectError", "ConnectTimeout"))
        except APIStatusError as error:
            return self._status(error.status_code, error.response.headers, error)

    def _status(self, status: int, headers: Mapping[str, str], error: APIError) -> _Failure:
        """What a status means: a failure to be retried, or an error."""
        said = f"{status}: {_shown(_message(error), self._key)}"
        if status in (401, 402, 403) or error.code == "insufficient_quota":
            raise EndpointError(
                f"{self.url} refuses: {said}.",
                "No request will be answered.",
                "Check the API key (an environment variable, see --key-variable) and the account.",
            )
        if status == 404:
            fix = "Check --endpoint (it often ends in /v1) and --model."
            raise EndpointError(f"{self.url} does not know what is asked: {said}.", "No request will be answered.", fix)
        if 300 <= status < 400:
            where = _shown(headers.get("location", "nowhere"), self._key)
            fix = "If you trust that address, give it as --endpoint."
            raise EndpointError(f"{self.url} redirects to {where}.", "Nothing is sent to other addresses.", fix)
        if status not in _RETRIED and status < 500:
            raise RejectedError(said)
        wait = retry_after(headers, time.time())
        if wait is not None:
            self._pause(wait, said)
        return _Failure(said, wait=wait)

    def _pause(self, wait: float, said: str) -> None:
        """Keeps all requests back for as long as the endpoint asks one of them to wait."""
        if wait > self.patience.longest_wait:
            raise EndpointError(
                f"{self.url} asks to wait {wait:,.0f} seconds ({said}).",
                f"That is longer than longest_wait, {self.patience.longest_wait:,.0f} seconds.",
                "Run the same command again later; it goes on where it ended.",
            )
        self._quiet_until = max(self._quiet_until, time.monotonic() + wait)

    async def _wait_for_all(self) -> None:
        while (left := self._quiet_until - time.monotonic()) > 0:
            await asyncio.sleep(left)

    def _backoff(self, attempt: int) -> float:
        longest = min(self.patience.backoff * 2**attempt, _LONGEST_BACKOFF)
        # Requests that failed together would otherwise return together.
        return longest * random.uniform(0.5, 1)


class _Failure:
    """A request that did not work and may be sent again."""

    def __init__(self, reason: str, gone: bool = False, wait: float | None = None) -> None:
        self.reason = reason
        self.gone = gone
        self.wait = wait


class _MalformedError(ValueError):
    """A body that is not what the protocol says."""


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that an endpoint asks to wait (RFC 9110, 10.2.3: seconds or a date; OpenAI adds milliseconds), or None.

    Args:
        headers: of the response, in lower case or in a mapping that does not mind.
        now: seconds since 1970, for dates.
    """
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        if "retry-after" not in headers:
            return None
        given = headers["retry-after"]
        if given.strip().replace(".", "", 1).isdigit():
            return float(given)
        return max(0.0, email.utils.parsedate_to_datetime(given).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None


def key_from(variable: str) -> str | None:
    """The API key in an environment variable; None where it is not set."""
    return os.environ.get(variable, "").strip() or None


def _client(url: str, patience: Patience, key: str | None) -> AsyncOpenAI:
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient

    return AsyncOpenAI(
        api_key=key or "none",
        base_url=url,
        timeout=patience.timeout,
        max_retries=0,
        http_client=DefaultAsyncHttpxClient(follow_redirects=False),
    )


def _left_out(key: str | None) -> dict[str, Any]:
    """Headers that the library would add of itself: what other variables of the environment say, and this machine."""
    from openai import Omit

    names = _ADDED_HEADERS if key is not None else (*_ADDED_HEADERS, "Authorization")
    return {name: Omit() for name in names}


def _check(url: str) -> None:
    why = "Requests are sent there."
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError as error:
        raise UsageError(f"--endpoint {url} is no address: {error}.", why, "Write http://HOST:PORT/v1") from error
    if parts.username is not None or parts.password is not None:
        fix = "Put the key into an environment variable and name that with --key-variable."
        raise UsageError("--endpoint holds a user or password.", "It would stand in logs and messages.", fix)
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_fine:
        raise UsageError(f"--endpoint {url} is no address.", why, "Write http://HOST:PORT/v1 or https://…")


def _read(body: bytes) -> Reply:
    """The answer in a response.

    Raises:
        _MalformedError: there is none.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _MalformedError(f"the answer is not JSON: {_shown(body[:80].decode('utf-8', 'replace'))!r}") from error
    try:
        choice = content["choices"][0]
        message = choice["message"]
        refusal = message.get("refusal")
        text = message.get("content") or refusal or ""
        finish = "refusal" if refusal else choice.get("finish_reason") or "stop"
        usage = content.get("usage") or {}
        counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise _MalformedError(f"the answer holds no message: {_shown(json.dumps(content))}") from error
    if not isinstance(text, str) or not isinstance(finish, str):
        raise _MalformedError(f"the answer holds no text: {_shown(json.dumps(content))}")
    asked, said = (count if isinstance(count, int) and count >= 0 else None for count in counts)
    # Half a surrogate pair is JSON, but no text that a file could hold.
    whole = text.encode("utf-8", "replace").decode("utf-8")
    return Reply(whole, finish, asked, said)


def _message(error: APIError) -> str:
    body = error.body
    inner = body.get("message") if isinstance(body, Mapping) else body
    return str(inner or error.message)


def _shown(text: str, key: str | None = None) -> str:
    """What an endpoint says, on one short line and without the key, should it repeat that."""
    line = " ".join(text.split()).rstrip(".")
    if key:
        line = line.replace(key, "…")
    return line if len(line) <= _SHOWN else line[:_SHOWN] + "…"
