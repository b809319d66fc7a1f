"""Prefix reuse across turns: only new positions are computed, and the result is that of a fresh prefill."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.artifacts.errors import UsageError
from stages.device.contract.device_config import read_device_config
from stages.device.runtime.context import Context, PictureSlot, TokenPrompt, common_prefix
from stages.device.runtime.language import load_language

IMAGE = 258
CLOSE = {"rtol": 1e-5, "atol": 2e-5}


def context_of(folder: Path) -> Context:
    return load_language(folder, read_device_config(folder), threads=1, capacity=64, chunk=16).context


def picture(name: str, tokens: int) -> PictureSlot:
    rng = np.random.default_rng(sum(name.encode()))
    return PictureSlot(name, rng.normal(size=(tokens, 32)).astype(np.float32))


def prompt(*parts: str | PictureSlot) -> TokenPrompt:
    """Letters are tokens, pictures their image tokens."""
    ids = [i for p in parts for i in ([IMAGE] * len(p.features) if isinstance(p, PictureSlot) else list(p.encode()))]
    return TokenPrompt(ids, IMAGE, [part for part in parts if isinstance(part, PictureSlot)])


def counted(context: Context) -> list[int]:
    """Records how many positions each prefill computes."""
    lengths: list[int] = []
    original = context.decoder.prefill

    def prefill(embeds: np.ndarray, chunk: int = 128) -> np.ndarray:
        lengths.append(len(embeds))
        return original(embeds, chunk)

    context.decoder.prefill = prefill  # type: ignore[method-assign]
    return lengths


CAT, DOG = picture("cat", 8), picture("dog", 8)
CASES = {
    "continued": (prompt(CAT, "what?"), prompt(CAT, "what? a cat. sure?"), 13, 13),
    "the very same": (prompt(CAT, "what?"), prompt(CAT, "what?"), 12, 1),
    "shorter": (prompt(CAT, "what is it?"), prompt(CAT, "what?"), 12, 1),
    "another picture": (prompt("x", CAT, "what?"), prompt("x", DOG, "what?"), 1, 13),
    "a second picture": (prompt(CAT, "what?"), prompt(CAT, "what?", DOG, "and this?"), 13, 17),
    "pictures exchanged": (prompt(CAT, DOG, "?"), prompt(DOG, CAT, "?"), 0, 17),
    "a longer picture": (prompt(CAT, "?"), prompt(picture("cat", 9), "?"), 8, 2),
    "nothing in common": (prompt("abc"), prompt("xyz"), 0, 3),
}


@pytest.mark.parametrize("case", CASES)
def test_reuse_equals_fresh_prefill(handmade: Path, case: str) -> None:
    first, second, reused, computed = CASES[case]
    used = context_of(handmade)
    used.read(first)
    lengths = counted(used)
    result = used.read(second)
    assert (result.reused, lengths) == (reused, [computed])
    assert used.length == len(second.ids)
    np.testing.assert_allclose(result.logits, context_of(handmade).read(second).logits, **CLOSE)


def test_generated_tokens_are_part_of_the_prefix(handmade: Path) -> None:
    used = context_of(handmade)
    used.read(prompt(CAT, "what?"))
    for letter in b" a cat":
        fed = used.feed(letter)
    np.testing.assert_allclose(fed, context_of(handmade).read(prompt(CAT, "what? a cat")).logits, **CLOSE)
    assert used.read(prompt(CAT, "what? a cat.")).reused == 8 + len("what? a cat")


def test_an_interrupted_prefill_keeps_what_it_read(handmade: Path) -> None:
    used = context_of(handmade)
    run, calls = used.decoder.graph.run_bound, []

    def interrupted(binding: object) -> None:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        run(binding)

    used.decoder.graph.run_bound = interrupted  # type: ignore[method-assign]
    long = prompt(CAT, "a question of more than three chunks of sixteen positions")
    with pytest.raises(KeyboardInterrupt):
        used.read(long)
    assert used.length == 32
    used.decoder.graph.run_bound = run  # type: ignore[method-assign]
    result = used.read(long)
    assert result.reused == 32
    np.testing.assert_allclose(result.logits, context_of(handmade).read(long).logits, **CLOSE)


def test_a_prompt_that_does_not_fit_leaves_the_cache_as_it_was(handmade: Path) -> None:
    used = context_of(handmade)
    used.read(prompt("abc"))
    with pytest.raises(UsageError, match="takes 600 tokens"):
        used.read(prompt("x" * 600))
    assert used.length == 3
    assert used.read(prompt("abcd")).reused == 3


def test_slots_and_features_must_agree() -> None:
    with pytest.raises(ValueError, match="8 image tokens, the pictures fill 0"):
        TokenPrompt(prompt(CAT).ids, IMAGE, [])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 2), max_size=8), st.lists(st.integers(0, 2), max_size=8))
def test_common_prefix_is_the_longest(first: list[int], second: list[int]) -> None:
    found = common_prefix(first, second)
    assert first[:found] == second[:found]
    assert found == min(len(first), len(second)) or first[found] != second[found]
