"""Attention of every position to every other, its two products in INT8: what the ViT may compute with.

    q     one step per head                            rint(q / step)
    k     one step per token and head                  rint(k / step)
    v     one step per head                            rint(v / step)
    p     softmax of the logits, then one step per query and head: 255 to the largest weight, never below zero

A step by each query's own largest weight keeps attention that spreads over hundreds of tokens, each worth less than a
255th.

Axes: T tiles, P positions, N heads, D head size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.device.contract.activations import SMALLEST, STEPS, high_step

PROBABILITY_STEPS = 255

Floats = NDArray[np.float32]


def attend(q: Floats, k: Floats, v: Floats, heads: int) -> Floats:
    """softmax(q · kᵀ / √D) · v with rounded factors; all [T, P, N·D]."""
    queries, keys, values = (_by_head(part, heads) for part in (q, k, v))  # [T, N, P, D]
    query_step, key_step, value_step = _step(queries, (2, 3)), _step(keys, (3,)), _step(values, (2, 3))
    size = np.float32(queries.shape[-1] ** -0.5)
    products = _steps(queries / query_step) @ _steps(keys / key_step).swapaxes(2, 3)  # [T, N, P, P]
    logits = products * (key_step * query_step * size).swapaxes(2, 3)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    weight_step = weights.max(axis=-1, keepdims=True) * np.float32(1 / PROBABILITY_STEPS)  # [T, N, P, 1]
    rounded = np.rint(weights / weight_step) @ _steps(values / value_step)
    attended: Floats = (rounded * value_step * weight_step).astype(np.float32)
    return attended.transpose(0, 2, 1, 3).reshape(q.shape)


def _by_head(x: Floats, heads: int) -> Floats:
    """[T, P, N·D] → [T, N, P, D]"""
    return x.astype(np.float32, copy=False).reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)


def _step(x: Floats, axes: tuple[int, ...]) -> Floats:
    largest = np.maximum(np.abs(x).max(axis=axes, keepdims=True), SMALLEST)
    step: Floats = largest * high_step()
    return step


def _steps(x: Floats) -> Floats:
    return np.clip(np.rint(x), -STEPS, STEPS)
