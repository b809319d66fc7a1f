"""Several conversations in turns: each is read once, answers are those of a model that reads all anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.device.contract.device_config import read_device_config
from stages.device.imaging.geometry import Grid, Size
from stages.device.prompt.messages import Message, assistant, user
from stages.device.runtime.album import PictureFeatures
from stages.device.runtime.context import common_prefix
from stages.device.runtime.contexts import Contexts
from stages.device.runtime.engine import Answer, AnswerOptions, Engine, EngineOptions
from stages.device.runtime.feature_memory import FeatureMemory
from stages.device.runtime.language import load_language


def asked(engine: Engine, messages: Sequence[Message]) -> Answer:
    answer = list(engine.answer(messages, (), AnswerOptions(max_tokens=5)))[-1]
    assert isinstance(answer, Answer)
    return answer


def talks(folder: Path, most: int, turns: int = 3) -> list[Answer]:
    """Two conversations in turns."""
    engine = Engine(folder, EngineOptions(threads=1, chunk=16))
    try:
        engine.language.contexts.allow(most, 1e9)
        told: list[Answer] = []
        conversations: list[list[Message]] = [[], []]
        for turn in range(turns):
            for number, messages in enumerate(conversations):
                messages.append(user(f"{'AB'[number] * 20} turn {turn}, said by speaker {number}"))
                told.append(asked(engine, messages))
                messages.append(assistant(told[-1].text))
        assert len(engine.language.contexts) == min(most, 2)
        return told
    finally:
        engine.close()


def test_who_asks_in_turns_is_not_read_anew(handmade: Path) -> None:
    one, two = talks(handmade, 1), talks(handmade, 3)
    assert [answer.text for answer in one] == [answer.text for answer in two]
    assert [answer.prompt_tokens for answer in one] == [answer.prompt_tokens for answer in two]
    # What the two have in common is the template's first words alone.
    assert all(answer.reused_tokens < 20 for answer in one)
    for before, after in zip(two, two[2:], strict=False):
        assert after.reused_tokens >= before.prompt_tokens


def test_there_are_as_many_as_their_memory_allows(handmade: Path) -> None:
    contexts = load_language(handmade, read_device_config(handmade), threads=1).contexts
    spec = contexts.latest.decoder.spec
    size = {"float32": 4, "int8": 1}[spec.kv_dtype]
    each = 2 * spec.num_layers * spec.num_key_value_heads * spec.head_dim * spec.max_context * size
    for nbytes, most in ((0, 1), (each, 1), (3 * each - 1, 2), (3 * each, 3), (9 * each, 4)):
        contexts.allow(4, nbytes)
        assert contexts.most == most


@given(st.lists(st.lists(st.sampled_from("ab"), min_size=1, max_size=6), max_size=12), st.integers(1, 4))
def test_no_more_is_lost_than_kept_unless_all_places_are_taken(prompts: list[list[str]], most: int) -> None:
    class Fake:
        """A context that holds keys."""

        def __init__(self) -> None:
            self.keys: list[str] = []

        @property
        def length(self) -> int:
            return len(self.keys)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stages.device.runtime.contexts._beside", lambda _: Fake())
        contexts = Contexts(Fake(), most)  # type: ignore[arg-type]
        used: list[object] = []
        for keys in prompts:
            before = {id(context): list(context.keys) for context in contexts._contexts}
            chosen = contexts.choose(keys)
            held = before.get(id(chosen), [])
            shared = common_prefix(held, keys)
            best = max(
                (common_prefix(old, keys) for old in before.values() if 2 * common_prefix(old, keys) >= len(old)),
                default=None,
            )
            if best is not None:
                assert shared == best and 2 * shared >= len(held)
            elif len(before) < most:
                assert id(chosen) not in before
            else:
                assert chosen is next(context for context in used if context in contexts._contexts)
            assert contexts.latest is chosen and len(contexts) <= most
            used = [context for context in used if context is not chosen] + [chosen]
            chosen.keys = keys  # type: ignore[misc]


def test_features_are_bounded_in_bytes_and_in_number() -> None:
    def made(name: str, rows: int) -> PictureFeatures:
        return PictureFeatures(Path(name), name, Size(1, 1), Grid(1, 1), 1, np.zeros((rows, 10), np.float32), 0.0)

    memory = FeatureMemory(10_000, most=2)
    for name in "abc":
        memory.put(made(name, 1))
    assert (memory.get("a"), len(memory), memory.nbytes) == (None, 2, 80)
    assert memory.get("b") is not None  # so that it is the one used last
    memory.put(made("d", 1))
    assert memory.get("c") is None and memory.get("b") is not None
    memory.put(made("e", 249))
    assert (len(memory), memory.nbytes) == (2, 250 * 40)
    memory.put(made("f", 251))
    assert memory.get("f") is None
    none = FeatureMemory(10_000, most=0)
    none.put(made("a", 1))
    assert len(none) == 0
