"""Every reader against files made worse: it takes them or refuses them in three beats, and nothing else happens.

`BLUELM_FUZZ_SECONDS=600 pytest -m slow tests/hostile/test_fuzzed.py` is the ten minutes of each.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hostile.mutations import mutated
from tests.hostile.targets import SEEDS, TARGETS, attempt

FEW = 60
CORPUS = Path(__file__).with_name("corpus")
WORDS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8))
VALUES = st.recursive(
    WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("target", TARGETS)
def test_well_formed_files_are_told_from_broken_ones(target: str, tmp_path: Path) -> None:
    taken = [attempt(target, seed, tmp_path) for seed in SEEDS[target]]
    # These hold too little to be taken: a file that is listed is missing, sections are.
    needs_more = ("manifest", "device", "tensor_index", "conversation", "sizes")
    assert all(taken) or target in needs_more
    assert not attempt(target, b"\xff\x00\xfe" * 5, tmp_path) or target in ("rows", "tar")


@pytest.mark.parametrize("target", TARGETS)
def test_a_few_mutations(target: str, tmp_path: Path) -> None:
    rng = random.Random(target)
    for number in range(FEW):
        data = mutated(rng.choice(SEEDS[target]), rng)
        try:
            attempt(target, data, tmp_path)
        except BaseException as error:
            raise AssertionError(f"mutation {number}: {data[:300]!r}") from error


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_a_minute_of_mutations(target: str, tmp_path: Path) -> None:
    stop, seed = time.monotonic() + float(os.environ.get("BLUELM_FUZZ_SECONDS", "60")), time.time_ns()
    rng, number = random.Random(seed), 0
    while time.monotonic() < stop:
        data = mutated(rng.choice(SEEDS[target]), rng)
        number += 1
        began = time.monotonic()
        try:
            attempt(target, data, tmp_path)
        except BaseException as error:
            (tmp_path / "crash").write_bytes(data)
            raise AssertionError(f"seed {seed}, mutation {number}: {tmp_path / 'crash'}") from error
        assert time.monotonic() - began < 60, data[:300]


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*/*")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_once_crashed(path: Path, tmp_path: Path) -> None:
    attempt(path.parent.name, path.read_bytes(), tmp_path)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(VALUES)
def test_json_of_any_shape(tmp_path: Path, value: object) -> None:
    import json

    data = json.dumps(value).encode()
    for target in ("manifest", "typed", "device", "rows", "tensor_index", "recipe"):
        attempt(target, data, tmp_path)
    row = {"id": value, "image": value, "conversations": value}
    attempt(
        "rows", json.dumps([row, {**row, "conversations": [value, {"from": value, "value": value}]}]).encode(), tmp_path
    )
    header = json.dumps({"w": {"dtype": value, "shape": value, "data_offsets": value}, "v": value}).encode()
    attempt("tensors", len(header).to_bytes(8, "little") + header, tmp_path)
