"""From a conversation to the ids a model reads: template, control tokens, slots and answers in one place.

The same class serves the device and the workshop: it needs only a `tokenizers.Tokenizer`, which transformers' fast
tokenizers carry inside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from stages.artifacts.errors import ModelError
from stages.device.contract.names import CHAT_TEMPLATE_FILE, TOKENIZER_FILE
from stages.device.prompt.marks import BREAK, break_control_tokens, without_marks
from stages.device.prompt.messages import Message, normalize
from stages.device.prompt.slots import slot_sources
from stages.device.prompt.spans import segments
from stages.device.prompt.template import ChatTemplate


@dataclass(frozen=True)
class EncodedPrompt:
    """A conversation as ids.

    Attributes:
        text: the rendered prompt, one image token per picture.
        ids: token ids, image slots expanded.
        is_answer: for every id, whether the assistant said it (the closing token included): what training learns.
        image_tokens: how many of the ids are image tokens.
    """

    text: str
    ids: list[int]
    is_answer: list[bool]
    image_tokens: int


@dataclass(frozen=True)
class PromptEncoder:
    """Builds prompts for one model.

    Attributes:
        tokenizer: the model's tokenizer.
        template: its chat template.
        image_token: the text of the token that marks a picture.
        variables: what the template may ask for, such as `bos_token`.
    """

    tokenizer: Tokenizer
    template: ChatTemplate
    image_token: str = "<image>"
    variables: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.tokenizer.token_to_id(self.image_token) is None:
            raise ModelError(
                f"The tokenizer has no token {self.image_token!r}.",
                "It marks where a picture stands in the prompt.",
                "Use the tokenizer that came with this model.",
            )

    @cached_property
    def image_token_id(self) -> int:
        """The id of the image token."""
        token_id = self.tokenizer.token_to_id(self.image_token)
        if token_id is None:
            raise KeyError(self.image_token)
        return int(token_id)

    @cached_property
    def control_tokens(self) -> tuple[str, ...]:
        """Tokens that only the template may write: special ones, and added ones that the template uses."""
        added = self.tokenizer.get_added_tokens_decoder().values()
        used = {token.content for token in added if token.special or token.content in self.template.source}
        return tuple(sorted(used | {self.image_token}))

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """The prompt with marks; control tokens inside the messages are broken, so they stay text."""
        control = self.control_tokens
        safe = [_separate(message) for message in normalize(messages, lambda text: break_control_tokens(text, control))]
        return self.template.render(safe, add_generation_prompt=add_generation_prompt, **self.variables)

    def encode(
        self, messages: Sequence[Message], tokens_per_image: Sequence[int] = (), *, add_generation_prompt: bool = False
    ) -> EncodedPrompt:
        """Encodes a conversation.

        Args:
            messages: see `messages`.
            tokens_per_image: image tokens of each picture, in order.
            add_generation_prompt: end where the assistant begins to answer.

        Raises:
            UsageError: pictures and slots do not match, or a message is malformed.
            ModelError: the template fails.
        """
        rendered = self.render(messages, add_generation_prompt=add_generation_prompt)
        ids: list[int] = []
        is_answer: list[bool] = []
        for segment in segments(rendered, self.control_tokens):
            found = self._inside(segment.text) if ids else self._ids(segment.text)
            ids.extend(found)
            is_answer.extend([segment.is_answer] * len(found))
        sources = slot_sources(ids, self.image_token_id, tokens_per_image)
        return EncodedPrompt(
            text=without_marks(rendered),
            ids=[ids[source] for source in sources],
            is_answer=[is_answer[source] for source in sources],
            image_tokens=sum(tokens_per_image),
        )

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def _inside(self, text: str) -> list[int]:
        """The ids of a piece from the middle of a prompt.

        SentencePiece tokenizers put a space before the first word of a text. Behind a newline there is none, so the
        piece is read behind one, which is then taken away.
        """
        if not self._adds_space:
            return self._ids(text)
        newline, both = self._ids("\n"), self._ids("\n" + text)
        return both[len(newline) :] if both[: len(newline)] == newline else self._ids(text)

    @cached_property
    def _adds_space(self) -> bool:
        return self._ids("\na") != self._ids("\n") + self._ids("a")

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))


def _separate(message: dict[str, Any]) -> dict[str, Any]:
    """Breaks before every text but the first, so that two texts side by side cannot spell a control token."""
    seen = False
    for part in message["content"]:
        if part["type"] == "text":
            part["text"] = BREAK + part["text"] if seen else part["text"]
            seen = True
    return message


def load_prompt_encoder(
    folder: Path, image_token: str = "<image>", variables: Mapping[str, str] | None = None
) -> PromptEncoder:
    """The prompt encoder of a model folder (`tokenizer.json` and `chat_template.jinja`).

    Raises:
        ModelError: a file is missing or cannot be read.
    """
    tokenizer_path, template_path = folder / TOKENIZER_FILE, folder / CHAT_TEMPLATE_FILE
    missing = [path.name for path in (tokenizer_path, template_path) if not path.is_file()]
    if missing:
        raise ModelError(
            f"{folder}: {' and '.join(missing)} missing.",
            "Without them no prompt can be built.",
            "Export or save the model again with this bluelm.",
        )
    try:
        tokenizer = Tokenizer.from_file(str(tokenizer_path))
    except Exception as error:  # the library raises bare Exception for a broken file
        raise ModelError(
            f"{tokenizer_path} cannot be read: {error}.",
            "Without it no prompt can be built.",
            "Export the model again.",
        ) from error
    try:
        template = ChatTemplate(template_path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ModelError(
            f"{template_path} is not UTF-8: {error.reason} at byte {error.start}.",
            "Without it no prompt can be built.",
            "Export the model again.",
        ) from error
    return PromptEncoder(tokenizer, template, image_token, dict(variables or {}))
