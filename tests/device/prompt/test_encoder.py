"""Prompts: what users type stays text, slots and answers are exact, and training sees what chat sees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from stages.artifacts.errors import ModelError, UsageError
from stages.device.prompt.encoder import PromptEncoder, load_prompt_encoder
from stages.device.prompt.marks import ANSWER_END, ANSWER_START, BREAK, break_control_tokens, without_marks
from stages.device.prompt.messages import assistant, system, user
from stages.device.prompt.template import ChatTemplate, default_template

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>")
# Texts made of control tokens, pieces of them, marks and ordinary words.
fragments = st.sampled_from(
    [*CONTROL, "<", "image>", "<ima", "ge>", "<|im_", "start|>", BREAK, ANSWER_START, "a", " red", "\n", "é"]
)
texts = st.lists(fragments, max_size=8).map("".join)


def special_ids(encoder: PromptEncoder, ids: list[int]) -> list[int]:
    wanted = {encoder.tokenizer.token_to_id(token) for token in CONTROL}
    return [token for token in ids if token in wanted]


@given(texts)
def test_breaks_leave_no_control_token_whole(text: str) -> None:
    broken = break_control_tokens(text, CONTROL)
    assert not any(token in piece for piece in broken.split(BREAK) for token in CONTROL)
    assert without_marks(broken) == without_marks(text)


@settings(deadline=None)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=3))
def test_users_cannot_write_special_tokens(encoder_of_session: PromptEncoder, turns: list[tuple[str, str]]) -> None:
    encoder = encoder_of_session
    talk = [message for question, answer in turns for message in (user(question, images=1), assistant(answer))]
    harmless = [message for _ in turns for message in (user("x", images=1), assistant("x"))]
    ids = encoder.encode(talk, [2] * len(turns)).ids
    assert special_ids(encoder, ids) == special_ids(encoder, encoder.encode(harmless, [2] * len(turns)).ids)


@settings(deadline=None)
@given(texts, texts)
def test_texts_side_by_side_spell_no_token(encoder_of_session: PromptEncoder, first: str, second: str) -> None:
    parts = [{"type": "text", "text": first}, {"type": "text", "text": second}]
    ids = encoder_of_session.encode([{"role": "user", "content": parts}]).ids
    assert special_ids(encoder_of_session, ids) == [1, 2]


@settings(deadline=None)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=3))
def test_what_was_said_is_a_prefix_of_what_follows(
    encoder_of_session: PromptEncoder, turns: list[tuple[str, str]]
) -> None:
    """So a chat can keep its cache, and training reads questions exactly as they are asked."""
    encoder = encoder_of_session
    talk = [message for question, answer in turns for message in (user(question), assistant(answer))]
    whole = encoder.encode(talk)
    for count in range(1, len(talk), 2):
        asked = encoder.encode(talk[:count], add_generation_prompt=True)
        assert whole.ids[: len(asked.ids)] == asked.ids
    learned = [token for token, answer in zip(whole.ids, whole.is_answer, strict=True) if answer]
    said = [encoder.tokenizer.encode(piece).ids for _, answer in turns for piece in _pieces(answer)]
    assert learned == [token for ids in said for token in ids]


def _pieces(answer: str) -> list[str]:
    """An answer as the tokenizer sees it: cut inside its would-be control tokens, closed by the real one."""
    *cut, last = break_control_tokens(answer, CONTROL).split(BREAK)
    return [piece for piece in cut if piece] + [last + "<|im_end|>"]


def test_slots_and_answers(encoder: PromptEncoder) -> None:
    prompt = encoder.encode(
        [system("s"), user("Which?", images=2), assistant("red"), user("Why?"), assistant("so")], [3, 5]
    )
    image = encoder.image_token_id
    assert prompt.ids.count(image) == prompt.image_tokens == 8
    start = prompt.ids.index(image)
    assert prompt.ids[start : start + 8] == [image] * 8
    answers = encoder.tokenizer.decode(
        [t for t, a in zip(prompt.ids, prompt.is_answer, strict=True) if a], skip_special_tokens=False
    )
    assert answers == "red<|im_end|>so<|im_end|>"
    assert prompt.text.count("<image>") == 2


def test_typed_markers_stay_readable(encoder: PromptEncoder) -> None:
    prompt = encoder.encode([user("Is <image> a tag?<|im_end|>", images=1)], [4])
    assert prompt.image_tokens == prompt.ids.count(encoder.image_token_id) == 4
    assert encoder.tokenizer.decode(prompt.ids, skip_special_tokens=False) == prompt.text.replace(
        "<image>Is", "<image>" * 4 + "Is"
    )


def test_ids_equal_transformers(encoder: PromptEncoder, hf_tokenizer: Any) -> None:
    talk = [system("Be brief."), user("What colour is the shape?", images=1), assistant("red"), user("blue 12?")]
    theirs = hf_tokenizer.apply_chat_template(
        talk, chat_template=default_template(), add_generation_prompt=True, return_dict=False
    )
    assert encoder.encode(talk, [1], add_generation_prompt=True).ids == theirs


def test_a_template_without_tags_gives_the_same_prompt(encoder: PromptEncoder, tokenizer: Tokenizer) -> None:
    source = default_template().replace("{%- generation %}", "").replace("{%- endgeneration %}", "")
    untagged = PromptEncoder(tokenizer, ChatTemplate(source))
    talk = [user("Which?", images=1), assistant("red <image>"), user("Why?"), assistant("so")]
    assert untagged.encode(talk, [2]) == encoder.encode(talk, [2])


VICUNA = (
    "{{ '<s>' }}{% for m in messages %}{% if m['role'] == 'user' %}{{ 'USER: ' }}{% for p in m['content'] %}"
    "{{ '<image>\n' if p['type'] == 'image' else p['text'] }}{% endfor %}{{ ' ' }}{% else %}{{ 'ASSISTANT:' }}"
    "{% generation %}{{ ' ' + m['content'][0]['text'] + '</s>' }}{% endgeneration %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def test_cutting_adds_no_space_with_sentencepiece(sentence_tokenizer: Tokenizer) -> None:
    encoder = PromptEncoder(sentence_tokenizer, ChatTemplate(VICUNA))
    talk = [user("What colour", images=1), assistant("red"), user("The shape"), assistant("blue")]
    prompt = encoder.encode(talk, [1])
    assert prompt.text == "<s>USER: <image>\nWhat colour ASSISTANT: red</s>USER: The shape ASSISTANT: blue</s>"
    assert prompt.ids == sentence_tokenizer.encode(prompt.text, add_special_tokens=False).ids
    answers = [t for t, a in zip(prompt.ids, prompt.is_answer, strict=True) if a]
    assert sentence_tokenizer.decode(answers, skip_special_tokens=False) == " red</s> blue</s>"


def test_pictures_must_match_slots(encoder: PromptEncoder) -> None:
    with pytest.raises(UsageError, match="has 1 picture, 2 were given"):
        encoder.encode([user("Q", images=1)], [4, 4])


def test_a_tokenizer_without_image_token_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ModelError, match="no token '<picture>'"):
        PromptEncoder(tokenizer, ChatTemplate(default_template()), image_token="<picture>")


def test_a_folder_gives_the_same_encoder(encoder: PromptEncoder, tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"tokenizer.json and chat_template.jinja missing"):
        load_prompt_encoder(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(default_template(), encoding="utf-8")
    (tmp_path / "tokenizer.json").write_text(json.dumps({"broken": True}), encoding="utf-8")
    with pytest.raises(ModelError, match=r"tokenizer.json cannot be read"):
        load_prompt_encoder(tmp_path)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    talk = [user("Which?", images=1), assistant("red")]
    assert load_prompt_encoder(tmp_path).encode(talk, [2]) == encoder.encode(talk, [2])


def test_marks_are_invisible_to_the_tokenizer(encoder: PromptEncoder) -> None:
    prompt = encoder.encode([user(f"a{BREAK}b{ANSWER_START}c{ANSWER_END}d")])
    assert prompt.text == "<|im_start|>user\nabcd<|im_end|>\n"
    assert not any(prompt.is_answer)
