"""Top-1 agreement: how often two exported models, given the same text, would say the same next token.

    bluelm export build/int4-mix --out mix
    bluelm export build/int4-mix --out exact --activations float
    python -c 'from stages.evaluate.agreement import agreement; …; print(agreement(mix, exact, windows).share)'

What rounding activations costs in tokens, apart from what rounding weights costs: both models have the same weights.
Text is read as the device reads it, in spans: a span of one token goes through the decoder graph, a long one through
compact prefill, and the token that would follow each span is compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.device.contract.device_config import read_device_config
from stages.device.runtime.context import TokenPrompt
from stages.device.runtime.language import LanguageModel, load_language
from stages.evaluate.metrics import Interval, wilson


@dataclass(frozen=True)
class Agreement:
    """Compared places, and how many of them had the same most likely token."""

    places: int
    same: int

    @property
    def share(self) -> float:
        """Share of the places."""
        return self.same / self.places

    @property
    def interval(self) -> Interval:
        """Wilson's, 95 %."""
        return wilson(self.same, self.places)


def agreement(
    first: Path,
    second: Path,
    windows: Sequence[Sequence[int]],
    *,
    span: int = 1,
    threads: int | None = None,
) -> Agreement:
    """Reads every window with both models.

    Args:
        first, second: exported models with the same tokenizer.
        windows: token ids, each window a context of its own; without image tokens.
        span: tokens that are read between two comparisons.
        threads: None takes every core.

    Raises:
        ModelError: a model cannot be opened.
        UsageError: a window is longer than a model's context.
        ValueError: no window has as many tokens as a span.
    """
    tokens = [list(top_tokens(model, windows, span, threads)) for model in (first, second)]
    if not tokens[0]:
        raise ValueError(f"no window has {span} tokens")
    same = sum(one == other for one, other in zip(*tokens, strict=True))
    return Agreement(len(tokens[0]), same)


def top_tokens(folder: Path, windows: Sequence[Sequence[int]], span: int, threads: int | None = None) -> Iterator[int]:
    """The most likely token behind each span of each window."""
    model: LanguageModel = load_language(folder, read_device_config(folder), threads=threads)
    for window in windows:
        model.context.keep(0)
        for end in range(span, len(window) + 1, span):
            logits = model.context.read(TokenPrompt(window[:end], image_token_id=-1)).logits
            yield int(np.argmax(logits))
