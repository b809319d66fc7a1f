"""Prompts, answers, waits and the cache by themselves."""

from __future__ import annotations

import asyncio
import json
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.artifacts.errors import BluelmError
from stages.device.imaging.geometry import Size
from stages.workshop.corpus.picture import PictureFile
from stages.workshop.corpus.revision.answer_cache import AnswerCache
from stages.workshop.corpus.revision.answers import (
    Pair,
    RefusedAnswerError,
    Reply,
    Task,
    UnreadableAnswerError,
    read_answer,
)
from stages.workshop.corpus.revision.asking import Tally
from stages.workshop.corpus.revision.budget import Cost, Prices
from stages.workshop.corpus.revision.endpoint import retry_after
from stages.workshop.corpus.revision.pace import Pace
from stages.workshop.corpus.revision.prompt import load_prompt
from stages.workshop.corpus.revision.question import Question, Sampling, prompt_values
from stages.workshop.corpus.revision.sent_picture import SentPictures, scaled
from stages.workshop.corpus.row import Row, Turn

TURNS = (
    Turn("system", "Be brief."),
    Turn("user", "<image>\nWhat is it?"),
    Turn("assistant", "A cat."),
    Turn("user", "Which colour? <image>"),
    Turn("assistant", "Röd <é>."),
)
ROW = Row("a", TURNS, (PictureFile(Path(), "1.png"), PictureFile(Path(), "2.png")))


def reply(text: str, finish: str = "stop") -> Reply:
    return Reply(text, finish, 1, 1)


def template(folder: Path, text: str) -> Path:
    (folder / "ask.jinja").write_text(text, encoding="utf-8")
    return folder / "ask.jinja"


@pytest.mark.parametrize("name", ["caption", "qa", "revise"])
@pytest.mark.parametrize("row", [ROW, Row("b", TURNS[1:3], ROW.pictures[:1]), Row("c", (), ROW.pictures[:1])])
def test_the_shipped_prompts_say_what_the_row_says(name: str, row: Row) -> None:
    spoken = load_prompt(name).render(prompt_values(row, {"language": "German", "pairs": 7}))
    assert spoken.system is not None and "<image>" not in spoken.user and "{" not in spoken.system
    assert ("A cat." in spoken.user) == bool(row.turns)
    if name == "caption":
        assert "German" in spoken.user
    else:
        assert "JSON list" in spoken.user and (name == "revise" or "7 questions" in spoken.user)
    if name == "revise":
        given = json.JSONDecoder().raw_decode(spoken.user, spoken.user.index("["))[0]
        pairs = [{"question": "What is it?", "answer": "A cat."}, {"question": "Which colour?", "answer": "Röd <é>."}]
        assert given == pairs[: sum(turn.role == "assistant" for turn in row.turns)]
        assert "\\u" not in spoken.user


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{% if %}", "line 1"),
        ("{{ picture }}", "Did you mean 'pictures'?"),
        ("{% block sytem %}x{% endblock %}", "block 'sytem'"),
        ("{% block system %}x{% endblock %}", "none for the user"),
        (" \n", "is empty"),
    ],
)
def test_a_template_is_checked_before_anything_is_asked(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(BluelmError) as found:
        load_prompt(template(tmp_path, text))
    assert told in " ".join(f"{problem.what} {problem.fix}" for problem in found.value.problems)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{{ variables.style }}", "style"),
        ("{{ turns[9].text }}", "undefined|no element"),
        ("{{ pictures / 0 }}", "zero"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ turns.append(1) }}", "not safely callable|unsafe"),
        ("{% include '/etc/passwd' %}", "no loader|no include"),
        ("{% if pictures > 9 %}x{% endif %}", "is empty"),
    ],
)
def test_a_template_that_fails_on_a_row_fails_that_row_only(tmp_path: Path, text: str, told: str) -> None:
    prompt = load_prompt(template(tmp_path, text))
    with pytest.raises(BluelmError, match=f"(?i){told}"):
        prompt.render(prompt_values(ROW, {}))


PAIRS = (Pair("q", "a"), Pair("r", "3"))
LIST = '[{"question": "q", "answer": "a"}, {"question": " r ", "answer": 3}]'


@pytest.mark.parametrize(
    "text",
    [
        LIST,
        f"```json\n{LIST}\n```",
        f"Sure, here they are:\n{LIST}\nAnything else?",
        f"<think>first [ a { {1} } </think>\n{LIST}",
        f'{{"pairs": {LIST}}}',
    ],
)
def test_pairs_are_found_however_they_are_wrapped(text: str) -> None:
    assert read_answer("create-qa", reply(text)) == PAIRS


@pytest.mark.parametrize(
    ("task", "text", "told"),
    [
        ("create-qa", "", "empty"),
        ("create-qa", "<think>so</think>  ", "empty"),
        ("create-qa", "No idea.", "no JSON"),
        ("create-qa", LIST[:-5], "broken"),
        ("create-qa", "[" * 100_000, "broken"),
        ("create-qa", "[]", "list is empty"),
        ("create-qa", '["q"]', "item 0 is not an object"),
        ("create-qa", '[{"question": "q"}]', "item 0 has no answer"),
        ("create-qa", '[{"question": "q", "answer": true}]', "item 0 has no answer"),
        ("create-qa", '[{"question": "<image>", "answer": "a"}]', "stands for a picture"),
        ("create-qa", '{"a": [], "b": []}', "not a JSON list"),
        ("create-caption", " \n", "empty"),
        ("create-caption", "a <image> b", "stands for a picture"),
        ("create-caption", "a \x00 b", "control characters"),
    ],
)
def test_an_answer_that_is_not_what_was_asked_for(task: Task, text: str, told: str) -> None:
    with pytest.raises(UnreadableAnswerError, match=told):
        read_answer(task, reply(text))


def test_why_an_answer_ended_counts() -> None:
    assert read_answer("revise", reply("[]")) == ()
    assert read_answer("create-caption", reply(" A [cat]. ")) == (Pair("", "A [cat]."),)
    with pytest.raises(UnreadableAnswerError, match="cut off"):
        read_answer("create-caption", reply("A cat on a", "length"))
    with pytest.raises(RefusedAnswerError, match="I cannot"):
        read_answer("create-caption", reply("I cannot", "refusal"))


@given(text=st.text(max_size=60), task=st.sampled_from(["create-caption", "create-qa", "revise"]))
@settings(max_examples=300, deadline=None)
def test_no_answer_is_an_accident(text: str, task: Task) -> None:
    for answer in (text, f"[{text}", f'[{{"question": "q", "answer": {text}}}]'):
        try:
            pairs = read_answer(task, reply(answer))
        except UnreadableAnswerError:
            continue
        assert all(pair.answer.strip() == pair.answer != "" for pair in pairs)


def test_waits_are_read_as_they_are_written() -> None:
    now = 1_800_000_000.0
    assert retry_after({}, now) is None
    assert retry_after({"retry-after": "7"}, now) == 7
    assert retry_after({"retry-after": "1.5"}, now) == 1.5
    assert retry_after({"retry-after-ms": "250", "retry-after": "9"}, now) == 0.25
    assert retry_after({"retry-after": formatdate(now + 30, usegmt=True)}, now) == 30
    assert retry_after({"retry-after": formatdate(now - 30, usegmt=True)}, now) == 0
    assert retry_after({"retry-after": "soon"}, now) is None


def question(**changed: Any) -> Question:
    values: dict[str, Any] = {
        "model": "m",
        "system": "s",
        "user": "u",
        "pictures": (),
        "digests": ("d",),
        "sent": SentPictures(),
        "sampling": Sampling(),
    }
    return Question(**{**values, **changed})


def test_a_question_is_known_by_all_that_decides_its_answer_and_by_nothing_else() -> None:
    keys = [
        question().key,
        question(model="n").key,
        question(system=None).key,
        question(user="v").key,
        question(digests=("e",)).key,
        question(sent=SentPictures(side=64)).key,
        question(sampling=Sampling(temperature=0.1)).key,
        question(sampling=Sampling(extra={"top_k": 3})).key,
        question().asked_again("no", "try again").key,
        question().asked_again("no", "try again").asked_again("no", "try again").key,
    ]
    assert len(set(keys)) == len(keys)
    assert question(pictures=(PictureFile(Path(), "moved.png"),), tokens=9).key == keys[0]


def test_answers_are_kept_whatever_happens_to_the_end_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "answers.jsonl"
    replies = {f"{number:064x}": Reply(f"text {number} \n é \ud800", "stop", number, None) for number in range(20)}

    async def put(cache: AnswerCache) -> None:
        await asyncio.gather(*(cache.put(key, said) for key, said in replies.items()))

    with AnswerCache(path) as cache:
        asyncio.run(put(cache))
        assert len(cache) == 20 and "ff" * 32 not in cache and cache.get("ff" * 32) is None
    whole = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(whole) if byte == 10]
    # As a kill leaves it: cut anywhere. All whole lines stay, and the next answer stands on a line of its own.
    for cut in (0, 1, ends[0] - 1, ends[0], ends[7] + 30, len(whole) - 1, len(whole)):
        path.write_bytes(whole[:cut])
        with AnswerCache(path) as cache:
            assert len(cache) == sum(end <= cut for end in ends) and cache.damaged == 0
            asyncio.run(cache.put("ab" * 32, reply("new")))
        with AnswerCache(path) as cache:
            assert cache.get("ab" * 32) == reply("new")
            assert len(cache) == sum(end <= cut for end in ends) + 1 and cache.damaged == 0
    path.write_bytes(b'garbage\n{"key": "zz"}\n[]\n' + whole)
    with AnswerCache(path) as cache:
        assert cache.damaged == 3 and len(cache) == 20
        found = cache.get(f"{3:064x}")
        assert found is not None and found.text.startswith("text 3 \n é") and found.completion_tokens is None


def test_pictures_keep_their_aspect() -> None:
    assert scaled(Size(4000, 3000), 1024) == (1024, 768)
    assert scaled(Size(100, 50), 1024) == (100, 50)
    assert scaled(Size(9000, 1), 100) == (100, 1)


def test_the_pace_tells_rate_money_and_time_left() -> None:
    pace = Pace(1000, Prices(input=1, output=10))
    tally = Tally()
    assert pace.event(tally, Cost(), now=0).label == "asking · 0.0 rows/s · 0 spent"
    tally.rows, tally.failed = 100, 3
    event = pace.event(tally, Cost(100, 500_000, 50_000), now=10)
    assert event.label == "asking · 10.0 rows/s · 1 spent · 3 failed · 1 min 30 s left"
    assert (event.done, event.total, event.unit) == (100, 1000, "rows")
    # Only the last minute counts.
    tally.rows = 110
    assert "0.0 rows/s" in pace.event(tally, Cost(), now=1000).label
    tally.rows = 111
    assert (
        pace.event(tally, Cost(), now=1010).label.startswith("asking · 0.1 rows/s")
        and "2 h 28 min" in pace.event(tally, Cost(), now=1010).label
    )
