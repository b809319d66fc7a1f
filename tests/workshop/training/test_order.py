"""The order of the data is a pure function; every pass holds every sample once."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from stages.workshop.training.order import BatchOrder


@given(
    samples=st.integers(1, 40),
    batch=st.integers(1, 7),
    batches=st.integers(1, 90),
    seed=st.integers(0, 5),
    by_length=st.booleans(),
)
def test_every_pass_holds_every_sample_once(samples: int, batch: int, batches: int, seed: int, by_length: bool) -> None:
    lengths = [(number * 7) % 11 + 1 for number in range(samples)]
    order = list(BatchOrder(lengths, batch, batches, seed, by_length))
    assert len(order) == batches
    assert {len(found) for found in order} == {batch}
    assert order == list(BatchOrder(lengths, batch, batches, seed, by_length))
    counts = Counter(index for found in order for index in found)
    whole_passes = batches * batch // samples
    if not by_length or batches % 32 == 0:
        assert all(whole_passes <= counts[index] <= whole_passes + 1 for index in range(samples))


def test_seeds_and_passes_differ() -> None:
    first = list(BatchOrder([1] * 50, 50, 2, seed=0, by_length=False))
    assert first[0] != first[1]
    assert first[0] != next(iter(BatchOrder([1] * 50, 50, 2, seed=1, by_length=False)))
    assert first[0] != sorted(first[0])


def test_length_groups_pad_less_and_lose_nothing() -> None:
    lengths = [(number * 37) % 101 + 1 for number in range(256)]
    plain = list(BatchOrder(lengths, 8, 32, seed=0, by_length=False))
    grouped = list(BatchOrder(lengths, 8, 32, seed=0, by_length=True))

    def padding(order: list[list[int]]) -> int:
        return sum(max(lengths[i] for i in batch) * len(batch) - sum(lengths[i] for i in batch) for batch in order)

    assert padding(grouped) < padding(plain) / 5
    assert sorted(index for batch in grouped for index in batch) == list(range(256))
    # Batches themselves come in no order of length.
    longest = [max(lengths[index] for index in batch) for batch in grouped]
    assert longest != sorted(longest)
