"""The chat template: the same text as transformers renders, and the same answers."""

from __future__ import annotations

from typing import Any

import pytest

from stages.artifacts.errors import ModelError, UsageError
from stages.device.prompt.marks import without_marks
from stages.device.prompt.messages import assistant, count_images, system, user
from stages.device.prompt.spans import answer_spans
from stages.device.prompt.template import ChatTemplate, default_template

CONVERSATIONS: list[list[dict[str, Any]]] = [
    [user("What colour?")],
    [user("What colour?", images=1)],
    [user("Compare.", images=3), assistant("Both red."), user("Sure?"), assistant("Yes.\n")],
    [system("Be brief."), user(" leading and trailing "), assistant("")],
    [{"role": "user", "content": "plain {{ 7 }} {% text %}\n\n"}, {"role": "assistant", "content": "été 漢字 🙂"}],
    [
        {
            "role": "user",
            "content": [{"type": "text", "text": "before"}, {"type": "image"}, {"type": "text", "text": "after"}],
        }
    ],
]
# LLaVA-OneVision's manner: pictures first, texts behind, generation tags that leave the closing token out.
ONEVISION = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + ' '}}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ '\n' + content['text'] }}{% endfor %}{% else %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ '\n' + content['text'] }}{% endgeneration %}{% endfor %}{% endif %}{{'<|im_end|>'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Indented blocks, loop controls, filters and namespaces: what trim_blocks and the extensions are for.
CRAFTED = """
{%- set ns = namespace(n=0) %}
{% for message in messages %}
    {% if message['role'] == 'system' %}
        {% continue %}
    {% endif %}
    {% set ns.n = ns.n + 1 %}
    {{ ns.n }}: {{ message['content'] | tojson }}
{% endfor %}
"""


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("generation", [False, True])
@pytest.mark.parametrize("source", [default_template(), ONEVISION, CRAFTED], ids=["ours", "onevision", "crafted"])
def test_rendering_equals_transformers(
    hf_tokenizer: Any, conversation: list[dict[str, Any]], generation: bool, source: str
) -> None:
    if source != default_template():
        conversation = [
            m if not isinstance(m["content"], str) else {**m, "content": [{"type": "text", "text": m["content"]}]}
            for m in conversation
        ]
    theirs = hf_tokenizer.apply_chat_template(
        conversation, chat_template=source, tokenize=False, add_generation_prompt=generation
    )
    ours = ChatTemplate(source).render(conversation, add_generation_prompt=generation)
    assert without_marks(ours) == theirs


def test_our_template_is_chatml() -> None:
    text = without_marks(
        ChatTemplate(default_template()).render([user("Hi", images=1), assistant("Yo")], add_generation_prompt=True)
    )
    assert text == "<|im_start|>user\n<image>Hi<|im_end|>\n<|im_start|>assistant\nYo<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_answers_found_by_tags_and_turn_by_turn_agree(conversation: list[dict[str, Any]]) -> None:
    tagged = ChatTemplate(default_template())
    source = default_template().replace("{%- generation %}", "").replace("{%- endgeneration %}", "")
    untagged = ChatTemplate(source)
    assert tagged.marks_answers
    assert not untagged.marks_answers
    texts = []
    for template in (tagged, untagged):
        rendered = template.render(conversation)
        plain = without_marks(rendered)
        texts.append([plain[start:end] for start, end in answer_spans(rendered)])
    answers = [
        m["content"] if isinstance(m["content"], str) else m["content"][0]["text"]
        for m in conversation
        if m["role"] == "assistant"
    ]
    assert texts[0] == texts[1] == [f"{answer}<|im_end|>" for answer in answers]


def test_an_answer_takes_in_the_token_that_closes_it() -> None:
    rendered = ChatTemplate(ONEVISION).render([user("Q"), assistant("A")])
    plain = without_marks(rendered)
    assert [plain[a:b] for a, b in answer_spans(rendered)] == ["\nA"]
    assert [plain[a:b] for a, b in answer_spans(rendered, ["<|im_end|>"])] == ["\nA<|im_end|>"]


def test_a_template_that_hides_its_answers_marks_none() -> None:
    source = "{% for m in messages %}{{ m['role'] }}{% endfor %}{{ messages | length }}"
    assert answer_spans(ChatTemplate(source).render([user("Q"), assistant("A")])) == []


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{% for %}", "cannot be read"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ ''.__class__.__mro__ }}", "fails on this conversation"),
        ("{{ messages.append(1) }}", "fails on this conversation"),
    ],
)
def test_bad_and_malicious_templates_are_errors(source: str, words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        ChatTemplate(source).render([user("Hi")])
    assert "chat_template.jinja" in caught.value.fix


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"role": "tool", "content": "x"}, "role 'tool'"),
        ({"role": "user"}, "content None"),
        ({"role": "user", "content": 3}, "content 3"),
        ({"role": "user", "content": [{"type": "video"}]}, "part {'type': 'video'}"),
        ({"role": "user", "content": [{"type": "text"}]}, "part {'type': 'text'}"),
        ({"role": "user", "content": ["x"]}, "part 'x'"),
    ],
)
def test_malformed_messages_are_named(message: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ChatTemplate(default_template()).render([message])


def test_pictures_are_counted() -> None:
    assert [count_images(conversation) for conversation in CONVERSATIONS] == [0, 1, 3, 0, 0, 1]
