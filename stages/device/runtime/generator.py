"""From logits to a stream of text: choose, show, feed, until the model stops or may say no more."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stages.device.runtime.context import Context
from stages.device.runtime.text_stream import TextStream

StopReason = Literal["stop", "max_tokens", "context"]


@dataclass(frozen=True)
class Token:
    """A generated token and the text it completes (empty while a character is unfinished)."""

    id: int
    text: str


@dataclass
class Generation:
    """What a generation has come to so far.

    Attributes:
        ids: generated tokens, without the one that ended it.
        text: their text.
        reason: why it ended; None while it runs or when it was interrupted.
        steps: decoder steps taken (t1).
        step_seconds: what they took, the choice of the next token included.
    """

    ids: list[int] = field(default_factory=list)
    text: str = ""
    reason: StopReason | None = None
    steps: int = 0
    step_seconds: float = 0.0

    @property
    def tok_s(self) -> float | None:
        """Tokens per second of decoding, None where nothing was decoded after the prompt."""
        return self.steps / self.step_seconds if self.steps and self.step_seconds > 0 else None


def generate(
    context: Context,
    logits: NDArray[np.float32],
    *,
    choose: Callable[[NDArray[np.float32]], int],
    decode: Callable[[Sequence[int]], str],
    stop_ids: Collection[int],
    max_tokens: int,
    state: Generation,
) -> Iterator[Token]:
    """Generates after a prompt that `context` has read, filling `state` as it goes.

    Args:
        context: holds the prompt; generated tokens are added to it.
        logits: [V] after the prompt.
        choose: picks a token from logits.
        decode: ids to text.
        stop_ids: tokens that end the answer; they are not part of it.
        max_tokens: most tokens to generate.
        state: what the caller reads afterwards, or when it stops early.

    Raises:
        ModelError: the decoder fails.
    """
    stream = TextStream(decode)
    token = choose(logits)
    while token not in stop_ids:
        state.ids.append(token)
        yield _shown(Token(token, stream.push(token)), state)
        if len(state.ids) >= max_tokens or context.length >= context.limit:
            state.reason = "max_tokens" if len(state.ids) >= max_tokens else "context"
            break
        started = time.perf_counter()
        token = choose(context.feed(token))
        state.step_seconds += time.perf_counter() - started
        state.steps += 1
    else:
        state.reason = "stop"
    if rest := stream.flush():
        yield _shown(Token(state.ids[-1], rest), state)


def _shown(token: Token, state: Generation) -> Token:
    state.text += token.text
    return token
