"""The chat template: rendered with jinja2 exactly as transformers' `apply_chat_template` does, without transformers.

Templates come with checkpoints from anywhere, so they run in jinja2's immutable sandbox. Answers are found through the
`{% generation %}` block that transformers defined for this, or, in templates without it, by rendering the conversation
turn by turn. Source: transformers, `utils/chat_template_utils.py`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from stages.artifacts.errors import ModelError
from stages.device.contract.names import CHAT_TEMPLATE_FILE
from stages.device.prompt.marks import ANSWER_END, ANSWER_START
from stages.device.prompt.messages import Message, normalize


def default_template() -> str:
    """The source of our own chat template (ChatML)."""
    return resources.files(__package__).joinpath(CHAT_TEMPLATE_FILE).read_text(encoding="utf-8")


class _GenerationBlock(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}`: puts marks around what the assistant says."""

    tags = {"generation"}  # noqa: RUF012 (jinja2's own declaration)

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller: Any) -> str:
        return f"{ANSWER_START}{caller()}{ANSWER_END}"


@dataclass(frozen=True)
class ChatTemplate:
    """A compiled chat template.

    Attributes:
        source: the jinja2 text.
    """

    source: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "_compiled", _compile(self.source))

    def __reduce__(self) -> tuple[type[ChatTemplate], tuple[str]]:
        """Copies and pickles by source: compiled templates can do neither."""
        return ChatTemplate, (self.source,)

    @property
    def marks_answers(self) -> bool:
        """Whether the template itself says where answers are."""
        return "endgeneration" in self.source

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False, **variables: Any) -> str:
        """The prompt with answer marks (see `marks`); `without_marks` of it equals transformers' rendering.

        Args:
            messages: a conversation, see `messages`.
            add_generation_prompt: end with the words after which the assistant answers.
            variables: what the template may ask for, such as `bos_token` and `eos_token`.

        Raises:
            ModelError: the template fails on this conversation.
            UsageError: the conversation holds something else than text and pictures.
        """
        plain = normalize(messages)
        text = self._render(plain, add_generation_prompt, variables)
        if not self.marks_answers and any(message["role"] == "assistant" for message in plain):
            text = self._mark_turn_by_turn(plain, text, variables)
        return text

    def _render(self, messages: list[dict[str, Any]], add_generation_prompt: bool, variables: dict[str, Any]) -> str:
        compiled: jinja2.Template = self._compiled  # type: ignore[attr-defined]  # set in __post_init__ of a frozen class
        try:
            return compiled.render(
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **variables,
            )
        except Exception as error:  # a template is a program from outside: any Python error can come out of it
            raise ModelError(
                f"The chat template fails on this conversation: {error}.",
                "Some templates want turns in a certain order, or contents of a certain form.",
                f"Check the order of the roles, or replace {CHAT_TEMPLATE_FILE} in the model folder.",
            ) from error

    def _mark_turn_by_turn(self, messages: list[dict[str, Any]], text: str, variables: dict[str, Any]) -> str:
        """Finds each answer as what its turn adds after the generation prompt; leaves odd templates unmarked."""
        spans: list[tuple[int, int]] = []
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self._render(messages[:index], True, variables)
            after = self._render(messages[: index + 1], False, variables).rstrip()
            if not (text.startswith(after) and after.startswith(before)):
                return text
            spans.append((len(before), len(after)))
        for start, end in reversed(spans):
            text = f"{text[:start]}{ANSWER_START}{text[start:end]}{ANSWER_END}{text[end:]}"
        return text


def _compile(source: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = _now
    try:
        return environment.from_string(source)
    except (jinja2.TemplateError, ValueError, ArithmeticError, RecursionError, SyntaxError) as error:
        # Beyond its own, what Python makes of a number of thousands of digits or of brackets without end.
        raise ModelError(
            f"The chat template cannot be read: {error}.",
            "Without it no prompt can be built.",
            f"Restore {CHAT_TEMPLATE_FILE} in the model folder, or make the checkpoint again.",
        ) from error


def _raise(message: str) -> str:
    raise jinja2.TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
