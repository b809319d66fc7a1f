"""Conversations in the form transformers uses, checked once.

A message is `{"role": "user", "content": ...}`; content is a string, or parts `{"type": "image"}` and
`{"type": "text", "text": "…"}` in reading order. Roles: system, user, assistant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stages.artifacts.errors import UsageError

Message = Mapping[str, Any]
ROLES = ("system", "user", "assistant")


def user(text: str, images: int = 0) -> dict[str, Any]:
    """A user's turn: `images` pictures, then the text."""
    parts: list[dict[str, Any]] = [{"type": "image"} for _ in range(images)]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def assistant(text: str) -> dict[str, Any]:
    """An answer."""
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def system(text: str) -> dict[str, Any]:
    """Instructions that come before the conversation."""
    return {"role": "system", "content": [{"type": "text", "text": text}]}


def normalize(messages: Sequence[Message], clean: Callable[[str], str] = str) -> list[dict[str, Any]]:
    """The same conversation with every content as a list of parts, every text passed through `clean`.

    Only what a template may see is kept: a part's type and text, never the picture itself.

    Raises:
        UsageError: a role or part this model does not know.
    """
    return [{"role": _role(message), "content": _parts(message, clean)} for message in messages]


def count_images(messages: Sequence[Message]) -> int:
    """Pictures in a conversation."""
    parts = (part for message in messages if not isinstance(message.get("content"), str) for part in _content(message))
    return sum(isinstance(part, Mapping) and part.get("type") == "image" for part in parts)


def _role(message: Message) -> str:
    role = message.get("role")
    if role not in ROLES:
        raise UsageError(
            f"A message has the role {role!r}.", "The chat template knows " + ", ".join(ROLES) + ".", "Use one of them."
        )
    return str(role)


def _content(message: Message) -> Sequence[Any]:
    content = message.get("content")
    if isinstance(content, Sequence) and not isinstance(content, str | bytes):
        return content
    raise UsageError(
        f"A {message.get('role')} message has the content {content!r}.",
        "It must be a text or a list of parts.",
        'Write "content": "text", or a list of {"type": "image"} and {"type": "text", "text": "…"}.',
    )


def _parts(message: Message, clean: Callable[[str], str]) -> list[dict[str, Any]]:
    if isinstance(message.get("content"), str):
        return [{"type": "text", "text": clean(message["content"])}]
    parts: list[dict[str, Any]] = []
    for part in _content(message):
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "image":
            parts.append({"type": "image"})
        elif kind == "text" and isinstance(part.get("text"), str):
            parts.append({"type": "text", "text": clean(part["text"])})
        else:
            raise UsageError(
                f"A {message.get('role')} message has the part {part!r}.",
                "This model reads pictures and text.",
                'Use {"type": "image"} and {"type": "text", "text": "…"}.',
            )
    return parts
