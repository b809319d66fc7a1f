"""JSGF: what is read, listed and drawn; every mistake is named; the shipped grammar covers the demo's questions."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.artifacts.errors import ProblemsError, UsageError
from stages.device.speech.grammar import Grammar, parse_grammar, read_grammar, shipped_grammar
from stages.device.speech.jsgf import Choice, Reference, Repeat, Sequence, Word
from stages.device.speech.transcribing import as_question, understood

HEAD = "#JSGF V1.0;\ngrammar g;\n"


def parsed(rules: str) -> Grammar:
    return parse_grammar(HEAD + rules, "g.jsgf")


def refused(rules: str, *messages: str) -> None:
    with pytest.raises(UsageError) as caught:
        parsed(rules)
    assert "g.jsgf" in caught.value.what and caught.value.why and caught.value.fix
    for message in messages:
        assert message in caught.value.what


def test_every_form_of_a_rule() -> None:
    grammar = parsed(
        """/* a comment
        of two lines */ public <a> = [please] (read | name {tag}) <b>; // and one more
        <b> = /0.3/ the word | /2/ it <NULL> <c>*; <c> = now+;"""
    )
    assert grammar.rules["c"] == Repeat(Word("now"))
    assert grammar.words == {"please", "read", "name", "the", "word", "it", "now"}
    assert set(grammar.sentences()) == {
        f"{before}{verb} {rest}"
        for before in ("", "please ")
        for verb in ("read", "name")
        for rest in ("the word", "it", "it now")
    }
    rng = random.Random(0)
    drawn = {grammar.draw(rng) for _ in range(300)}
    assert set(grammar.sentences()) <= drawn and "read it now now" in drawn


def test_several_public_rules_and_other_headers() -> None:
    grammar = parse_grammar("\ufeff#JSGF V1.0 UTF-8 en;\ngrammar x.y;\npublic <a> = one; public <b> = <a> two;", "x")
    assert list(grammar.sentences()) == ["one", "one two"]


def test_mistakes_are_named() -> None:
    with pytest.raises(UsageError, match="does not begin with #JSGF"):
        parse_grammar("grammar g; public <a> = b;", "g.jsgf")
    with pytest.raises(UsageError, match="line 1 has the end where grammar NAME"):
        parse_grammar("#JSGF V1.0;", "g.jsgf")
    refused("public <a> = b", "line 3 has the end where ; should be")
    refused("\npublic <a> = b | ;", "line 4 has ';' where a word")
    refused("public <a> = (b;", "line 3 has ';' where ) should be")
    refused("public <a> = b ];", "']'")
    refused("public <a> b;", "where = should be")
    refused("a = b;", "where <RULE>")
    refused("import <other.rule>;\npublic <a> = b;", "imports are not read")
    refused("<a> = b;", "no rule is public")
    refused("public <a> = b; <a> = c;", "<a> is defined twice")
    refused("public <a> = what <b>;", "<a> uses <b>, which is not defined")
    refused("public <a> = b <a>;", "<a> is defined by itself")
    refused("public <a> = b Größe;", "no words in lower-case English: Größe")
    refused("public <a> = b *;*", "")


def test_all_bad_rules_are_told_together() -> None:
    with pytest.raises(ProblemsError) as caught:
        parsed("<a> = <b> What; <c> = <c>;")
    assert [problem.what.split(": ", 1)[1] for problem in caught.value.problems] == [
        "no rule is public.",
        "<a> uses <b>, which is not defined.",
        "<c> is defined by itself.",
        "these are no words in lower-case English: What.",
    ]


def test_files_that_are_no_grammar(tmp_path: Path) -> None:
    path = tmp_path / "g.jsgf"
    for content, message in ((b"\xff\xfe", "no UTF-8 text"), (b" " * 2**21, "bytes")):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=message) as caught:
            read_grammar(path)
        assert str(path) in caught.value.what
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(UsageError, match=r"does not exist|is no file"):
            read_grammar(missing)


RULES = st.recursive(
    st.sampled_from([Word("one"), Word("two"), Word("three")]),
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: Sequence(tuple(parts))),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: Choice(tuple(parts))),
        inner.map(Repeat),
    ),
    max_leaves=8,
)


def written(part: object) -> str:
    match part:
        case Word(text):
            return text
        case Sequence(parts):
            return "(" + " ".join(map(written, parts)) + ")"
        case Choice(parts):
            return "(" + " | ".join(map(written, parts)) + ")"
        case Repeat(inner):
            return f"({written(inner)})+"
    raise TypeError(part)


@given(RULES)
def test_a_rule_that_is_written_is_read_as_it_was(part: Sequence | Choice | Repeat | Word) -> None:
    assert parsed(f"public <a> = {written(part)};").rules["a"] == part


def test_the_shipped_grammar_covers_what_the_demo_model_is_asked() -> None:
    from stages.workshop.corpus.rendering import printed, single_shape

    every = {as_question(sentence) for sentence in shipped_grammar().sentences()}
    assert 2000 < len(every) < 5000
    demo = {*single_shape.COLOUR_QUESTIONS, *single_shape.SHAPE_QUESTIONS}
    assert {question.replace("color ", "colour ") for question in demo} <= every
    other = {question for questions in printed.QUESTIONS.values() for question in questions}
    assert len(other & every) >= 0.8 * len(other), sorted(other - every)
    for question in ("How many circles are there?", "What is the total?", "What does the left button say?"):
        assert question in every
    assert Reference("colour") in shipped_grammar().rules["question"].parts  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("heard", "written_down"),
    [
        ("what colour is the shape", "What colour is the shape?"),
        ("read(2) line seven", "Read line 7."),
        ("which one has the largest value", "Which one has the largest value?"),
        ("read item number one", "Read item number 1."),
        ("what happens when i press it", "What happens when I press it?"),
        ("", ""),
    ],
)
def test_words_as_a_question(heard: str, written_down: str) -> None:
    assert as_question(heard) == written_down


def test_nothing_understood_says_what_helps() -> None:
    assert understood("Yes?", "a.wav") == "Yes?"
    with pytest.raises(Exception, match="nothing was understood") as caught:
        understood("", "a.wav")
    assert "--grammar" in str(caught.value) and "--asr" in str(caught.value)
