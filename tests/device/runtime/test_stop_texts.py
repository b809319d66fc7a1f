"""Stop texts against the obvious definition, however the text is cut into pieces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stages.device.runtime.generator import Generation, Token
from stages.device.runtime.stop_texts import StopTexts, until_stop_text

ALPHABET = "ab\n"


@given(
    pieces=st.lists(st.text(ALPHABET, max_size=4), max_size=12),
    texts=st.lists(st.text(ALPHABET, min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_a_stream_ends_where_the_whole_text_would(pieces: list[str], texts: list[str]) -> None:
    stop, shown = StopTexts(texts), ""
    given_so_far = ""
    for piece in pieces:
        shown += stop.push(piece)
        given_so_far += piece
        if stop.found:
            break
    shown += stop.flush()
    ends = [start for text in texts if (start := given_so_far.find(text)) >= 0]
    assert stop.found is bool(ends)
    assert shown == (given_so_far[: min(ends)] if ends else given_so_far)


def test_what_may_be_the_beginning_is_held_back_and_no_more() -> None:
    stop = StopTexts(["\n\nUser:"])
    assert [stop.push(piece) for piece in ("one\n", "\nUs", "e it")] == ["one", "", "\n\nUse it"]


def test_a_generation_is_put_right() -> None:
    state = Generation(ids=[1, 2, 3])
    tokens = iter([Token(1, "on"), Token(2, "e. T"), Token(3, "wo")])
    assert [token.text for token in until_stop_text(tokens, [". "], state)] == ["on", "e"]
    assert (state.text, state.reason) == ("one", "stop")
    assert next(tokens).text == "wo"  # what comes after is not drawn


def test_without_stop_texts_nothing_is_touched() -> None:
    state = Generation(text="as it was")
    assert [token.text for token in until_stop_text(iter([Token(1, "a")]), (), state)] == ["a"]
    assert state.text == "as it was"
