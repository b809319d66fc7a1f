"""Choosing the next token: greedy, or drawn with temperature, top-k and top-p. Pure functions over logits [V].

The order is that of transformers: temperature, then top-k, then top-p. Cuts go by probability, never by position, so
tokens that tie with the last one kept are kept too and the order of the vocabulary cannot matter.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.artifacts.errors import BluelmError, UsageError, raise_all

Floats = NDArray[np.float64]
# Top-p looks at this many of the likeliest tokens first, and at four times as many while they are too few.
_FIRST_LOOK = 256


@dataclass(frozen=True)
class SamplingSpec:
    """How to choose: temperature 0 is greedy; top_k 0 and top_p 1 cut nothing.

    Raises:
        UsageError: a value out of range; all of them together.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        problems: list[BluelmError] = []
        if not 0 <= self.temperature < float("inf"):
            problems.append(_bad("temperature", self.temperature, "0 (greedy) or more, such as 0.7"))
        if self.top_k < 0:
            problems.append(_bad("top-k", self.top_k, "0 (all tokens) or more"))
        if not 0 < self.top_p <= 1:
            problems.append(_bad("top-p", self.top_p, "above 0, at most 1"))
        if self.seed < 0:
            problems.append(_bad("seed", self.seed, "0 or more"))
        raise_all(problems)


class Sampler:
    """Draws tokens by a spec, with a generator of its own: same spec, same logits, same tokens.

    Args:
        spec: how to choose.
        never: ids that are no answer, such as the image token (transformers' `suppress_tokens`).
    """

    def __init__(self, spec: SamplingSpec, never: Collection[int] = ()) -> None:
        self.spec = spec
        self._never = list(never)
        self._random = np.random.default_rng(spec.seed)

    def __call__(self, logits: NDArray[np.float32]) -> int:
        """The next token's id."""
        if self._never:
            logits = logits.copy()
            logits[self._never] = -np.inf
        if self.spec.temperature == 0:
            return greedy(logits)
        return draw(
            probabilities(logits, self.spec.temperature, self.spec.top_k, self.spec.top_p), self._random.random()
        )


def greedy(logits: NDArray[np.float32]) -> int:
    """The likeliest token; the first of equals."""
    return int(np.argmax(logits))


def probabilities(logits: NDArray[np.float32], temperature: float, top_k: int = 0, top_p: float = 1.0) -> Floats:
    """What to draw from: softmax of the logits over the temperature, cut by top-k, then by top-p. [V], sums to 1."""
    scaled = logits.astype(np.float64)
    scaled = (scaled - scaled.max()) / max(temperature, np.finfo(np.float64).tiny)  # [V]
    if 0 < top_k < len(scaled):
        kth = np.partition(scaled, len(scaled) - top_k)[len(scaled) - top_k]
        scaled = np.where(scaled >= kth, scaled, -np.inf)
    weights = np.exp(scaled)
    weights /= weights.sum()
    if top_p < 1:
        weights = np.where(weights >= _nucleus_floor(weights, top_p), weights, 0.0)
        weights /= weights.sum()
    return weights


def draw(weights: Floats, uniform: float) -> int:
    """The token at a point `uniform` of [0, 1) along the cumulated probabilities."""
    cumulated = np.cumsum(weights)
    index = int(np.searchsorted(cumulated, uniform * cumulated[-1], side="right"))
    return min(index, int(np.flatnonzero(weights)[-1]))


def _nucleus_floor(weights: Floats, top_p: float) -> float:
    """The probability of the last token needed for a mass of top_p, going from the likeliest down.

    Only as many tokens are sorted as are needed: sorting a whole vocabulary costs more than a decoding step may.
    """
    look = _FIRST_LOOK
    while True:
        largest = weights if look >= len(weights) else np.partition(weights, len(weights) - look)[-look:]
        ordered = np.sort(largest)[::-1]
        needed = int(np.searchsorted(np.cumsum(ordered), top_p, side="left"))
        if needed < len(ordered):
            return float(ordered[needed])
        if look >= len(weights):
            return float(ordered[-1])
        look *= 4


def _bad(name: str, value: float, allowed: str) -> UsageError:
    return UsageError(f"--{name} is {value}.", "No token can be drawn with it.", f"Give a number that is {allowed}.")
