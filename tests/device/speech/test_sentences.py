"""Sentences from a stream: the same however it is cut into pieces, nothing lost, and no cut inside 3.14 or e.g."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stages.device.speech.sentences import LONG, SentenceStream
from stages.device.speech.spoken_text import CODE, spoken


def sentences(text: str, sizes: list[int] | None = None) -> list[str]:
    stream, found, place = SentenceStream(), [], 0
    for size in sizes or []:
        found += stream.push(text[place : place + size])
        place += size
    return [*found, *stream.push(text[place:]), *stream.flush()]


@pytest.mark.parametrize(
    "expected",
    [
        ["It is red.", "It is round!", "Is it?", "Yes"],
        ["Pi is 3.14 and e is 2.718.", "Both go on."],
        ["It costs $1,299.50 in all.", "No tax."],
        ["Dr. Smith met Mrs. Jones vs. nobody.", "Good."],
        ["Colours, e.g. red, i.e. not blue.", "Done."],
        ["At 10:30 p.m. it is dark.", "Go home."],
        ["It closes at 5 p.m.", "Then we go."],
        ["See Fig. 3 and No. 7 below.", "Fine."],
        ["Is it red?", "No.", "It is blue."],
        ["Bread, milk, etc.", "That is all."],
        ["J. R. Smith wrote it.", "So did I.", "Really."],
        ["1. Bread", "2. Milk", "3. Eggs"],
        ['He said "Stop!"', "Then he left."],
        ["Wait...", "What?!", "Oh"],
        ["Well... perhaps not.", "No"],
        ["See www.example.com for more.", "Bye."],
        ["**It is red.**", "Really."],
        ["形状是圆的。", "颜色是红色！", "好"],
    ],
)
def test_where_sentences_end(expected: list[str]) -> None:
    joint = "\n" if expected[0].startswith("1.") else "" if expected[0].startswith("形") else " "
    assert sentences(joint.join(expected)) == expected


def test_code_is_one_piece_and_is_not_read() -> None:
    text = "Run this:\n```python\nprint('a. B. c!')\n\nx = 1.\n```\nIt prints. Done."
    found = sentences(text)
    assert found == ["Run this:", "```python\nprint('a. B. c!')\n\nx = 1.\n```", "It prints.", "Done."]
    assert [spoken(sentence) for sentence in found] == ["Run this:", CODE, "It prints.", "Done."]
    assert [spoken(sentence) for sentence in sentences("```\nnever closed. Really.")] == [CODE]


def test_a_sentence_is_given_as_soon_as_it_is_sure() -> None:
    stream = SentenceStream()
    assert stream.push("It is red.") == []  # 0.5 or "red." may follow
    assert stream.push(" ") == []
    assert stream.push("A") == ["It is red."]
    assert stream.push(" line\n") == ["A line"]
    assert stream.flush() == []


def test_nobody_waits_for_a_sentence_without_an_end() -> None:
    text = "word " * 200
    found = sentences(text)
    assert all(len(sentence) <= LONG + 6 for sentence in found) and len(found) > 3
    assert " ".join(found) == text.strip()


PIECES = st.sampled_from([*"aA1 .!?…,;:\n\"')*_`。|#", "```", "e.g.", "No.", "3.14", "Dr.", "i.e. ", " a.m. ", "word"])
TEXTS = st.lists(PIECES, max_size=60).map("".join)


@given(TEXTS, st.lists(st.integers(1, 5), max_size=80))
@example("``` a", [1, 1, 1])
@example("a.\n", [2])
def test_how_it_is_cut_changes_nothing(text: str, sizes: list[int]) -> None:
    whole = sentences(text)
    assert sentences(text, sizes) == whole
    assert "".join("".join(whole).split()) == "".join(text.split())
    assert all(sentence.strip() for sentence in whole)


@given(TEXTS)
def test_what_is_said_has_no_marks(text: str) -> None:
    for sentence in sentences(text):
        said = spoken(sentence)
        assert not set(said) & set("`*#|\n")
        assert said == "" or any(letter.isalnum() for letter in said)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("## A *heading*", "A heading"),
        ("- **Red**, `blue` and ~~green~~", "Red, blue and green"),
        ("See [the page](https://example.com/x).", "See the page."),
        ("![a cat](cat.png)", "a cat"),
        ("At https://www.example.com/a/b?c=d.", "At example.com"),
        ("| Tea | 2.20 |", "Tea, 2.20"),
        ("|---|---|", ""),
        ("---", ""),
        ("file_name_here is 2 * 3", "file_name_here is 2 3"),
        ("> quoted", "quoted"),
        ("\x1b[31mred", "[31mred"),
        ("3 < 5 & 7", "3 < 5 & 7"),
    ],
)
def test_markdown_as_it_is_said(written: str, said: str) -> None:
    assert spoken(written) == said
