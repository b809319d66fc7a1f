"""Sampling against a brute-force reading of its definition, and the draws against the probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.artifacts.errors import ProblemsError, UsageError
from stages.device.runtime.sampling import Sampler, SamplingSpec, draw, greedy, probabilities


def brute_force(logits: list[float], temperature: float, top_k: int, top_p: float) -> list[float]:
    """Sorts everything, keeps what the definition keeps, ties included."""
    scaled = [(value - max(logits)) / temperature for value in logits]
    if top_k:
        kth = sorted(scaled, reverse=True)[min(top_k, len(scaled)) - 1]
        scaled = [value if value >= kth else -math.inf for value in scaled]
    weights = [math.exp(value) for value in scaled]
    total = math.fsum(weights)
    weights = [weight / total for weight in weights]
    if top_p < 1:
        mass, floor = 0.0, 0.0
        for weight in sorted(weights, reverse=True):
            mass, floor = mass + weight, weight
            if mass >= top_p:
                break
        weights = [weight if weight >= floor else 0.0 for weight in weights]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


LOGITS = st.lists(st.integers(-40, 40).map(lambda value: value / 4), min_size=1, max_size=40)


@settings(max_examples=500, deadline=None)
@given(LOGITS, st.floats(0.05, 5), st.integers(0, 45), st.sampled_from([0.01, 0.3, 0.77, 0.9, 0.999, 1.0]))
def test_probabilities_equal_brute_force(logits: list[float], temperature: float, top_k: int, top_p: float) -> None:
    found = probabilities(np.array(logits, np.float32), temperature, top_k, top_p)
    np.testing.assert_allclose(found, brute_force(logits, temperature, top_k, top_p), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.95, 0.99999])
@pytest.mark.parametrize("spread", [0.01, 1.0, 4.0])
def test_a_large_vocabulary_is_cut_as_if_all_of_it_were_sorted(top_p: float, spread: float) -> None:
    """A flat distribution needs more tokens than the first look takes, a peaked one fewer."""
    logits = (np.random.default_rng(3).normal(size=5000) * spread).astype(np.float32)
    found = probabilities(logits, 0.8, 0, top_p)
    np.testing.assert_allclose(found, brute_force(logits.tolist(), 0.8, 0, top_p), rtol=1e-9, atol=1e-15)


def test_the_order_of_the_vocabulary_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    logits = rng.integers(0, 5, 50).astype(np.float32)
    order = rng.permutation(50)
    np.testing.assert_allclose(
        probabilities(logits, 0.7, 10, 0.8)[order], probabilities(logits[order], 0.7, 10, 0.8), rtol=1e-12
    )


@settings(max_examples=200, deadline=None)
@given(LOGITS, st.floats(0, 1, exclude_max=True))
def test_a_draw_is_the_inverse_of_the_cumulated_probabilities(logits: list[float], uniform: float) -> None:
    weights = probabilities(np.array(logits, np.float32), 1.0, 3, 0.9)
    token = draw(weights, uniform)
    assert weights[token] > 0
    total = math.fsum(weights)
    assert math.fsum(weights[:token]) <= uniform * total + 1e-12
    assert uniform * total <= math.fsum(weights[: token + 1]) + 1e-12


def test_draws_follow_the_probabilities() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    sampler = Sampler(SamplingSpec(temperature=1.0, seed=1))
    counts = np.bincount([sampler(logits) for _ in range(4000)], minlength=4) / 4000
    np.testing.assert_allclose(counts, [0.5, 0.3, 0.15, 0.05], atol=0.03)


def test_same_seed_same_tokens() -> None:
    logits = np.random.default_rng(5).normal(size=100).astype(np.float32)

    def tokens(seed: int) -> list[int]:
        sampler = Sampler(SamplingSpec(temperature=1.5, top_k=50, top_p=0.95, seed=seed))
        return [sampler(logits) for _ in range(30)]

    assert tokens(4) == tokens(4)
    assert tokens(4) != tokens(5)


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_what_is_no_answer_is_never_chosen(temperature: float) -> None:
    logits = np.array([1.0, 30.0, 2.0, 29.0], np.float32)
    sampler = Sampler(SamplingSpec(temperature=temperature), never=[1, 3])
    assert {sampler(logits) for _ in range(50)} <= {0, 2}
    assert logits[1] == 30.0


def test_greedy_is_temperature_zero_and_the_limit_of_small_ones() -> None:
    logits = np.array([1.0, 3.0, 3.0, 2.0], np.float32)
    assert greedy(logits) == 1
    assert Sampler(SamplingSpec())(logits) == 1
    np.testing.assert_allclose(probabilities(logits, 1e-6), [0, 0.5, 0.5, 0])
    np.testing.assert_allclose(probabilities(logits, 1e-320), [0, 0.5, 0.5, 0])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("temperature", -0.1, "--temperature is -0.1"),
        ("temperature", math.nan, "--temperature is nan"),
        ("temperature", math.inf, "--temperature is inf"),
        ("top_k", -1, "--top-k is -1"),
        ("top_p", 0.0, "--top-p is 0.0"),
        ("top_p", 1.5, "--top-p is 1.5"),
        ("top_p", math.nan, "--top-p is nan"),
        ("seed", -3, "--seed is -3"),
    ],
)
def test_values_out_of_range_are_refused(field: str, value: float, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SamplingSpec(**{field: value})  # type: ignore[arg-type]


def test_all_bad_values_are_reported_together() -> None:
    with pytest.raises(ProblemsError) as caught:
        SamplingSpec(temperature=-1, top_k=-1, top_p=2, seed=-1)
    assert len(caught.value.problems) == 4
