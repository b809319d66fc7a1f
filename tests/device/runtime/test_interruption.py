"""Interruption: encoding, prefill and decoding end at the next run of a graph, and the engine goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stages.device.prompt.messages import user
from stages.device.runtime.engine import Answer, AnswerOptions, Engine, EngineOptions
from stages.device.runtime.interruption import Interrupted, interruptible

OPTIONS = AnswerOptions(max_tokens=30)


class After:
    """Says stop after so many questions."""

    def __init__(self, runs: int) -> None:
        self.runs = runs

    def __call__(self) -> bool:
        self.runs -= 1
        return self.runs < 0


@pytest.fixture
def engine(handmade: Path) -> Iterator[Engine]:
    made = Engine(handmade, EngineOptions(threads=1, chunk=16, keep_vision=True))
    made.wait()
    yield made
    made.close()


@pytest.mark.parametrize("runs", [0, 2, 5, 20])
def test_what_was_read_stays_and_the_next_answer_is_the_same(engine: Engine, runs: int) -> None:
    question = [user("Tell me more, and then some more, until it is enough for both of us.")]
    whole = list(engine.answer(question, (), OPTIONS))[-1]
    engine.language.context.keep(0)
    with pytest.raises(Interrupted), interruptible(After(runs)):
        list(engine.answer(question, (), OPTIONS))
    context = engine.language.context
    assert context.length == engine.language.context.decoder.length >= 0
    again = list(engine.answer(question, (), OPTIONS))[-1]
    assert isinstance(whole, Answer) and isinstance(again, Answer)
    assert again.text == whole.text
    assert again.reused_tokens >= min(runs * 16, 64) - 1


def test_encoding_ends_after_its_batch(engine: Engine) -> None:
    side = engine.config.vision.tile_size
    tiles = np.zeros((6, 3, side, side), np.uint8)
    stopped = After(2)
    with pytest.raises(Interrupted), interruptible(stopped):
        list(engine.encoder.encode([tiles]))
    assert stopped.runs == -1
    assert len(next(engine.encoder.encode([tiles])).values) == 6


def test_outside_of_the_block_nothing_stops(engine: Engine) -> None:
    with interruptible(lambda: True):
        pass
    assert list(engine.answer([user("a")], (), OPTIONS))
