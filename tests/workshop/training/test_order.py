"""The order of the data is a pure function; every pass holds every sample once; processes share each step."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.artifacts.errors import UsageError
from stages.workshop.training.order import BatchOrder, Steps


def lengths_of(samples: int) -> list[int]:
    return [(number * 37) % 101 + 1 for number in range(samples)]


@given(
    samples=st.integers(1, 40),
    batch=st.integers(1, 7),
    batches=st.integers(1, 90),
    seed=st.integers(0, 5),
    by_length=st.booleans(),
)
def test_every_pass_holds_every_sample_once(samples: int, batch: int, batches: int, seed: int, by_length: bool) -> None:
    order = list(BatchOrder(lengths_of(samples), Steps(batches, 1, batch), seed, by_length=by_length))
    assert len(order) == batches
    assert {len(found) for found in order} == {batch}
    assert order == list(BatchOrder(lengths_of(samples), Steps(batches, 1, batch), seed, by_length=by_length))
    counts = Counter(index for found in order for index in found)
    whole_passes = batches * batch // samples
    if not by_length or batches % 32 == 0:
        assert all(whole_passes <= counts[index] <= whole_passes + 1 for index in range(samples))


def test_seeds_and_passes_differ() -> None:
    first = list(BatchOrder([1] * 50, Steps(2, 1, 50), seed=0))
    assert first[0] != first[1]
    assert first[0] != next(iter(BatchOrder([1] * 50, Steps(1, 1, 50), seed=1)))
    assert first[0] != sorted(first[0])


def test_length_groups_pad_less_and_lose_nothing() -> None:
    lengths = lengths_of(256)
    plain = list(BatchOrder(lengths, Steps(32, 1, 8), seed=0))
    grouped = list(BatchOrder(lengths, Steps(32, 1, 8), seed=0, by_length=True))

    def padding(order: list[list[int]]) -> int:
        return sum(max(lengths[i] for i in batch) * len(batch) - sum(lengths[i] for i in batch) for batch in order)

    assert padding(grouped) < padding(plain) / 5
    assert sorted(index for batch in grouped for index in batch) == list(range(256))
    # Batches themselves come in no order of length.
    longest = [max(lengths[index] for index in batch) for batch in grouped]
    assert longest != sorted(longest)


cuts = st.builds(
    Steps,
    steps=st.integers(1, 40),
    accumulation=st.integers(1, 3),
    samples=st.integers(1, 5),
    rank=st.just(0),
    processes=st.integers(1, 4),
)
forms = st.sampled_from([{}, {"by_length": True}, {"packed": True}])


def of_rank(plan: Steps, rank: int) -> Steps:
    return Steps(plan.steps, plan.accumulation, plan.samples, rank, plan.processes)


@given(samples=st.integers(1, 40), plan=cuts, form=forms, seed=st.integers(0, 3))
def test_processes_share_the_batches_of_one(samples: int, plan: Steps, form: dict[str, bool], seed: int) -> None:
    """All processes together have, step by step, the batches that one process with more accumulation has."""
    alone = Steps(plan.steps, plan.batches, plan.samples)
    whole = list(BatchOrder(lengths_of(samples), alone, seed, **form))
    shares = [
        list(BatchOrder(lengths_of(samples), of_rank(plan, rank), seed, **form)) for rank in range(plan.processes)
    ]
    assert [batch for round_ in zip(*shares, strict=True) for batch in round_] == whole


@given(samples=st.integers(1, 40), plan=cuts, form=forms, data=st.data())
def test_a_resumed_order_is_the_rest_of_it(
    samples: int, plan: Steps, form: dict[str, bool], data: st.DataObject
) -> None:
    plan = of_rank(plan, data.draw(st.integers(0, plan.processes - 1)))
    whole = BatchOrder(lengths_of(samples), plan, 0, **form)
    batches = list(whole)
    assert len(batches) == len(whole) == plan.steps * plan.accumulation
    for _ in range(data.draw(st.integers(0, len(batches)))):
        whole.advance({})
    resumed = BatchOrder(lengths_of(samples), plan, 0, **form)
    resumed.load_state_dict(whole.state_dict())
    assert list(resumed) == batches[whole.step * plan.accumulation :]
    assert resumed.state_dict() == whole.state_dict()


@given(samples=st.integers(1, 40), plan=cuts)
def test_packing_changes_nothing_but_how_a_step_is_dealt(samples: int, plan: Steps) -> None:
    """Every step has the samples that it has without packing."""
    alone = Steps(plan.steps, plan.batches, plan.samples)
    plain = list(BatchOrder(lengths_of(samples), alone, 0))
    packed = list(BatchOrder(lengths_of(samples), alone, 0, packed=True))
    for step in range(plan.steps):
        batches = slice(step * plan.batches, (step + 1) * plan.batches)
        assert all(packed[batches])
        assert sorted(i for row in packed[batches] for i in row) == sorted(i for row in plain[batches] for i in row)


@given(samples=st.integers(1, 40), plan=cuts, packed=st.booleans(), step=st.integers(0, 4))
def test_a_run_goes_on_with_another_number_of_processes(samples: int, plan: Steps, packed: bool, step: int) -> None:
    """All processes together have the samples of the steps that are left, however many there were before."""
    step = min(step, plan.steps)
    before = BatchOrder(lengths_of(samples), Steps(plan.steps, plan.accumulation * plan.processes, plan.samples), 0)
    steps = [sorted(i for row in rows for i in row) for rows in by_step(list(before), plan.batches)]
    shares = []
    for rank in range(plan.processes):
        resumed = BatchOrder(lengths_of(samples), of_rank(plan, rank), 0, packed=packed)
        resumed.load_state_dict({"step": step, "processes": 1})
        shares.append(by_step(list(resumed), plan.accumulation))
    together = [sorted(i for rows in round_ for row in rows for i in row) for round_ in zip(*shares, strict=True)]
    assert together == steps[step:]


def by_step(batches: list[list[int]], size: int) -> list[list[list[int]]]:
    return [batches[start : start + size] for start in range(0, len(batches), size)]


def test_windows_of_similar_lengths_want_as_many_processes_as_before() -> None:
    order = BatchOrder(lengths_of(9), Steps(4, 1, 2, 0, 2), 0, by_length=True)
    with pytest.raises(UsageError, match="stopped with 4 processes, and would go on with 2") as caught:
        order.load_state_dict({"step": 1, "processes": 4})
    assert "Start 4 as before" in caught.value.fix
    order.load_state_dict({"step": 1, "processes": 2})
    assert order.step == 1
