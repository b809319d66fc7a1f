"""Looking while the user types, by the order of events and a clock that only encoding moves; room in the context;
features on disk."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stages.artifacts.events import Notice
from stages.device.prompt.messages import assistant, count_images, user
from stages.device.runtime.conversation import Conversation, oldest_kept
from stages.device.runtime.engine import Answer, AnswerOptions, Engine, EngineOptions
from stages.device.runtime.feature_disk import FeatureDisk
from stages.device.runtime.generator import Token

ENCODING_S = 7.0


class Clock:
    """Stands still, unless it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def make_engine(handmade: Path) -> Iterator[Callable[..., Engine]]:
    engines: list[Engine] = []

    def make(**more: Any) -> Engine:
        engines.append(Engine(handmade, EngineOptions(threads=1, chunk=16, cache=False), **more))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture
def picture(tmp_path: Path) -> Callable[[int], Path]:
    def make(seed: int) -> Path:
        path = tmp_path / f"{seed}.png"
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 40, 3), dtype=np.uint8)).save(path)
        return path

    return make


class SlowTalk:
    """A conversation whose encoder takes seven seconds of the clock, and ends when it is let; all events in order."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self.events: list[str] = []
        self.clock, self.talk = clock, Conversation(engine, AnswerOptions(max_tokens=4))
        self.begun, self.may_end = threading.Event(), threading.Event()
        engine.wait()
        encoder, read = engine.encoder.encode, engine.language.context.read

        def slow(*arguments: Any, **more: Any) -> Any:
            self.events.append("encoding begins")
            self.begun.set()
            assert self.may_end.wait(60)
            self.clock.now += ENCODING_S
            encoded = list(encoder(*arguments, **more))
            self.events.append("encoding ends")
            yield from encoded

        def prefill(*arguments: Any, **more: Any) -> Any:
            self.events.append("prefill")
            return read(*arguments, **more)

        engine.encoder.encode = slow  # type: ignore[method-assign]
        engine.language.context.read = prefill  # type: ignore[method-assign]

    def ask(self, text: str) -> Answer:
        self.events.append("Enter")
        for event in self.talk.ask(text, self.clock()):
            if isinstance(event, Token) and self.events[-1] != "first token":
                self.events.append("first token")
            if isinstance(event, Answer):
                return event
        raise AssertionError


def test_after_typing_the_first_token_comes_as_if_the_picture_had_been_there(make_engine: Any, picture: Any) -> None:
    clock = Clock()
    slow = SlowTalk(make_engine(clock=clock), clock)
    slow.talk.name(picture(1))
    assert slow.begun.wait(60)
    assert not slow.talk.named[0].features.done()  # and here the user types
    slow.may_end.set()
    slow.talk.named[0].features.result()
    answer = slow.ask("What?")
    # What the picture takes when it is there all along: its features are known, nothing is encoded.
    known = Clock()
    there = SlowTalk(make_engine(clock=known), known)
    there.talk.engine.album.know(slow.talk.pictures[0]).result()
    there.talk.name(picture(1))
    expected = there.ask("What?")
    assert slow.events[-3:] == there.events[-3:] == ["Enter", "prefill", "first token"]
    assert slow.events.index("encoding ends") < slow.events.index("Enter")
    assert answer.first_token_s == expected.first_token_s == 0.0
    assert answer.text == expected.text
    turn = slow.talk.turns[0]
    assert (turn.encoded_s, turn.waited_s, turn.hidden_s) == (ENCODING_S, 0.0, ENCODING_S)
    assert there.talk.turns[0].hidden_s == 0.0

    from bluelm_cli.chat_status import conversation_figures

    figures = "\n".join(conversation_figures(slow.talk))
    assert "encoding while typing saved 7.00 s of waiting (0.00 s were waited)" in figures
    assert "1 encoded, 0 found in memory, 0 found on disk" in figures


def test_who_does_not_type_waits_for_the_encoder(make_engine: Any, picture: Any) -> None:
    clock = Clock()
    slow = SlowTalk(make_engine(clock=clock), clock)
    slow.talk.name(picture(1))
    assert slow.begun.wait(60)
    wait = slow.talk.wait

    def waiting() -> Any:
        slow.may_end.set()  # only once the question waits
        return wait()

    slow.talk.wait = waiting  # type: ignore[method-assign]
    answer = slow.ask("What?")
    assert slow.events == ["encoding begins", "Enter", "encoding ends", "prefill", "first token"]
    assert answer.first_token_s == ENCODING_S
    assert (slow.talk.turns[0].waited_s, slow.talk.turns[0].hidden_s) == (ENCODING_S, 0.0)


def test_progress_is_told_tile_by_tile(make_engine: Any, picture: Any) -> None:
    talk = Conversation(make_engine())
    seen: list[tuple[int, int]] = []
    ended = threading.Event()

    def changed() -> None:
        progress = named[0].progress if named else None
        seen.append((progress.done, progress.total) if progress else (0, 0))
        if named and named[0].features.done():
            ended.set()

    named: list[Any] = talk.named
    talk.changed = changed
    talk.name(picture(1))
    assert ended.wait(60)
    assert [total for _, total in seen if total] and seen[-1] == (7, 7)
    assert sorted(seen) == seen


def answer_of(talk: Conversation, text: str) -> tuple[list[str], Answer]:
    events = list(talk.ask(text))
    answer = events[-1]
    assert isinstance(answer, Answer)
    return [event.text for event in events if isinstance(event, Notice)], answer


def test_the_oldest_turns_make_room(make_engine: Any, picture: Any) -> None:
    engine = make_engine()
    talk = Conversation(engine, AnswerOptions(max_tokens=6))  # the model holds 512
    talk.name(picture(1))
    assert answer_of(talk, "a" * 150)[0] == []
    talk.name(picture(2))
    assert answer_of(talk, "b" * 150)[0] == []
    notices, answer = answer_of(talk, "c" * 150)
    assert notices == ["The model holds 512 tokens: the oldest question and its answer with a picture were forgotten."]
    assert len(talk.pictures) == count_images(talk.messages) == 1
    # What was forgotten leaves no trace: the same turns, never having had the first, give the same answer.
    fresh = Conversation(make_engine(), AnswerOptions(max_tokens=6))
    fresh.messages, fresh.pictures = list(talk.messages[:2]), list(talk.pictures)
    assert answer_of(fresh, "c" * 150)[1].text == answer.text
    notices, _ = answer_of(talk, "d" * 380)
    assert "the 2 oldest questions and their answers" in notices[0] and len(talk.messages) == 2


def test_a_question_that_is_too_long_alone_forgets_nothing(make_engine: Any) -> None:
    from stages.artifacts.errors import UsageError

    talk = Conversation(make_engine(), AnswerOptions(max_tokens=6))
    answer_of(talk, "Hello?")
    before = list(talk.messages)
    with pytest.raises(UsageError, match="this model holds 512"):
        list(talk.ask("a" * 600))
    assert talk.messages == before


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 50)), min_size=1, max_size=8), st.integers(1, 300))
def test_the_longest_end_that_fits_is_kept(turns: list[tuple[int, int]], room: int) -> None:
    messages: list[Any] = []
    for pictures, length in turns:
        messages += [user("x" * length, images=pictures), assistant("y")]
    messages.pop()

    def tokens(kept: Any, before: int) -> int:
        assert before + count_images(kept) == count_images(messages)
        return sum(len(message["content"][-1]["text"]) for message in kept) + 9 * count_images(kept)

    first = oldest_kept(messages, room, tokens)
    sizes = {start: tokens(messages[start:], count_images(messages[:start])) for start in range(0, len(messages), 2)}
    fitting = [start for start, size in sizes.items() if size <= room]
    assert first == (min(fitting) if fitting else len(messages) - 1)


def test_features_are_found_on_disk_the_next_time(make_engine: Any, picture: Any, tmp_path: Path) -> None:
    folder = tmp_path / "features"
    first = make_engine(disk=FeatureDisk(folder, "m"))
    made = first.album.add(picture(1)).result()
    first.album.run_first(lambda: None).result()  # what was encoded is kept
    second = make_engine(disk=FeatureDisk(folder, "m"))
    found = second.album.add(picture(1)).result()
    assert np.array_equal(found.features, made.features) and found.reused and not made.reused
    assert (second.album.counts.encoded, second.album.counts.stored) == (0, 1)
    other = make_engine(disk=FeatureDisk(folder, "another model"))
    assert not other.album.add(picture(1)).result().reused
    assert folder.stat().st_mode & 0o077 == 0


def test_damaged_features_on_disk_cost_only_time(tmp_path: Path) -> None:
    disk, digest = FeatureDisk(tmp_path, "m"), "d" * 64
    values = np.ones((4, 8), np.float32)
    disk.put(digest, values)
    file = tmp_path / "m" / f"{digest}.safetensors"
    whole = file.read_bytes()
    assert np.array_equal(disk.get(digest, (4, 8)), values)  # type: ignore[arg-type]
    for damaged in (b"", whole[:-1], whole[:50], b"x" * 100):
        file.write_bytes(damaged)
        assert disk.get(digest, (4, 8)) is None and not file.exists()
    for wrong in (np.ones((4, 9), np.float32), np.full((4, 8), np.nan, np.float32)):
        disk.put(digest, wrong)
        assert disk.get(digest, (4, 8)) is None
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    FeatureDisk(blocked, "m").put(digest, values)  # no folder: nothing is kept


def test_the_disk_holds_no_more_than_its_bound(tmp_path: Path) -> None:
    values = np.ones((4, 8), np.float32)
    once = FeatureDisk(tmp_path, "m")
    once.put("0" * 64, values)
    size = next(tmp_path.glob("m/*")).stat().st_size
    disk = FeatureDisk(tmp_path, "m", limit=2 * size)
    os.utime(tmp_path / "m" / f"{'0' * 64}.safetensors", ns=(1, 1))
    FeatureDisk(tmp_path, "other", limit=2 * size).put("1" * 64, values)
    os.utime(tmp_path / "other" / f"{'1' * 64}.safetensors", ns=(2, 2))
    assert disk.get("0" * 64, (4, 8)) is not None  # used again: now the newest
    disk.put("2" * 64, values)
    assert sorted(path.name[0] for path in tmp_path.glob("*/*")) == ["0", "2"]
    disk.put("3" * 64, np.ones((400, 8), np.float32))  # larger than all that may be kept
    assert sorted(path.name[0] for path in tmp_path.glob("*/*")) == ["0", "2"]
