"""Image slots: the k-th image token becomes exactly n_k."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.artifacts.errors import UsageError
from stages.device.prompt.slots import expand_slots, slot_sources

IMAGE = 7


@given(
    st.lists(st.one_of(st.integers(0, 20).filter(lambda token: token != IMAGE), st.integers(1, 50).map(lambda n: -n)))
)
def test_expansion_equals_the_definition(plan: list[int]) -> None:
    """Negative numbers stand for pictures of that many tokens."""
    ids = [IMAGE if item < 0 else item for item in plan]
    counts = [-item for item in plan if item < 0]
    expected = [token for item in plan for token in ([IMAGE] * -item if item < 0 else [item])]
    assert expand_slots(ids, IMAGE, counts) == expected
    sources = slot_sources(ids, IMAGE, counts)
    assert sources == sorted(sources)
    assert [ids[source] for source in sources] == expected


@pytest.mark.parametrize(
    ("ids", "counts", "words"),
    [
        ([1, IMAGE], [], "has 1 picture, 0 were given"),
        ([1, IMAGE, IMAGE], [4], "has 2 pictures, 1 was given"),
        ([1], [4], "has 0 pictures, 1 was given"),
        ([IMAGE], [0], "has 0 image tokens"),
    ],
)
def test_a_mismatch_is_an_error(ids: list[int], counts: list[int], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        expand_slots(ids, IMAGE, counts)
    assert caught.value.why
    assert caught.value.fix
