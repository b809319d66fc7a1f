"""The claims of chunked prefill on the shipped model and real questions: how a prompt is cut changes no token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stages.device.prompt.messages import user
from stages.device.runtime.engine import Answer, AnswerOptions, Engine, EngineOptions
from stages.evaluate.questions import Question, read_questions

Run = Callable[..., Any]


@pytest.fixture
def questions(tmp_path: Path, bluelm: Run) -> list[Question]:
    out = tmp_path / "corpus"
    drawn = ["--seed", "77", "--set", "train=0", "--set", "heldout=40"]
    assert bluelm("data", "render", "--recipe", "tiny/data.yaml", *drawn, "--out", out).code == 0
    return read_questions(out, "heldout")


@pytest.fixture(scope="module")
def engine(project_root: Path) -> Iterator[Engine]:
    engine = Engine(project_root / "recipes" / "demo", EngineOptions(keep_vision=True))
    engine.wait()
    yield engine
    engine.close()


def answers(engine: Engine, questions: list[Question], chunk: int, shortest: int) -> list[str]:
    """Every answer from an empty cache, prompts longer than `shortest` read layer by layer."""
    context = engine.language.context
    assert context.decoder.compact is not None
    context.decoder.compact.shortest, context.chunk = shortest, chunk
    told = []
    for question in questions:
        context.keep(0)
        pictures = [engine.album.add(path).result() for path in question.pictures]
        messages = [user(question.text, images=len(pictures))]
        for event in engine.answer(messages, pictures, AnswerOptions(max_tokens=8)):
            if isinstance(event, Answer):
                told.append(event.text)
    return told


def test_no_chunk_changes_an_answer(engine: Engine, questions: list[Question]) -> None:
    whole = answers(engine, questions, 2048, shortest=1)
    assert len(set(whole)) > 3
    for chunk in (3, 32, 128):
        assert answers(engine, questions, chunk, shortest=1) == whole


def test_layer_by_layer_answers_as_the_decoder_does(engine: Engine, questions: list[Question]) -> None:
    by_layer = answers(engine, questions, 128, shortest=1)
    by_decoder = answers(engine, questions, 128, shortest=10**6)
    assert sum(one == other for one, other in zip(by_layer, by_decoder, strict=True)) >= 0.98 * len(questions)
