"""Which chat template a public model gets: its own where that works with pictures, else the one it was trained with.

The templates of VILA-1.5 are code in its repository, not files of its checkpoints; `templates/` holds them as jinja2.
vicuna has a space behind <s> and its pictures: VILA tokenizes the text between pictures piece by piece, and
SentencePiece puts a space before each piece.
Source: NVlabs/VILA, `llava/conversation.py` (vicuna_v1, llama_3, hermes-2).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2
import jinja2.meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from stages.artifacts.errors import BluelmError, UsageError
from stages.device.prompt.encoder import PromptEncoder
from stages.device.prompt.messages import assistant, system, user
from stages.device.prompt.template import ChatTemplate, default_template

NAMES = ("chatml", "vicuna", "llama3")
# A token in the vocabulary that gives the family away, the first that is there.
_TELLTALE = (("<|im_start|>", "chatml"), ("<|start_header_id|>", "llama3"))
_VARIABLES = ("bos_token", "eos_token", "unk_token", "pad_token")


@dataclass(frozen=True)
class ChosenTemplate:
    """A chat template and where it comes from, for people."""

    source: str
    origin: str


def choose_template(
    tokenizer: Any, candidates: Sequence[str], image_token: str, wanted: str | None = None
) -> ChosenTemplate:
    """The template for a tokenizer.

    Args:
        tokenizer: transformers' tokenizer, image token included.
        candidates: templates that came with the model, the likeliest first.
        image_token: the text of the image token.
        wanted: one of `NAMES` to take that one.

    Raises:
        UsageError: there is no template of the wanted name.
    """
    if wanted is not None:
        return ChosenTemplate(_self_contained(named_template(wanted), tokenizer), f"{wanted}, as asked for")
    own = tokenizer.chat_template
    for source in (*candidates, *([own] if isinstance(own, str) else [])):
        complete = _self_contained(source, tokenizer)
        if handles_pictures(tokenizer, complete, image_token):
            return ChosenTemplate(complete, "the model's own")
    vocabulary = tokenizer.get_vocab()
    name = next((name for token, name in _TELLTALE if token in vocabulary), "vicuna")
    return ChosenTemplate(_self_contained(named_template(name), tokenizer), f"{name}, by its special tokens")


def named_template(name: str) -> str:
    """One of the templates we carry.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in NAMES:
        raise UsageError(
            f"There is no chat template {name!r}.",
            "The template decides how a question looks to the model.",
            f"Use one of: {', '.join(NAMES)}.",
        )
    if name == "chatml":
        return default_template()
    return resources.files(__package__).joinpath("templates", f"{name}.jinja").read_text(encoding="utf-8")


def handles_pictures(tokenizer: Any, source: str, image_token: str) -> bool:
    """Whether a template puts one slot per picture and every text into the prompt."""
    question, answer = "What is on the sign?", "A fish."
    try:
        encoder = PromptEncoder(tokenizer.backend_tokenizer, ChatTemplate(source), image_token)
        first = [user(question, images=1)]
        prompt = encoder.encode(first, [1], add_generation_prompt=True)
        talk = encoder.encode([system("Be brief."), *first, assistant(answer), user("Why?")], [1])
    except (BluelmError, jinja2.TemplateError):
        return False
    return question in prompt.text and all(text in talk.text for text in ("Be brief.", question, answer, "Why?"))


def _self_contained(source: str, tokenizer: Any) -> str:
    """The template with the special tokens it asks for written into it, so that it needs nothing from outside."""
    environment = ImmutableSandboxedEnvironment(extensions=[_IgnoreGeneration, jinja2.ext.loopcontrols])
    try:
        asked = jinja2.meta.find_undeclared_variables(environment.parse(source))
    except jinja2.TemplateError:
        return source
    values = {name: getattr(tokenizer, name, None) or "" for name in _VARIABLES if name in asked}
    return "".join(f"{{%- set {name} = {json.dumps(value)} %}}" for name, value in values.items()) + source


class _IgnoreGeneration(jinja2.ext.Extension):
    """Reads over `{% generation %}` tags: only variable names are looked for here."""

    tags = {"generation"}  # noqa: RUF012 (jinja2's own declaration)

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)
