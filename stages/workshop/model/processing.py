"""The processor: text and pictures → model inputs, through the device's own prompt and imaging code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers.processing_utils import ProcessorMixin

from stages.artifacts.errors import UsageError
from stages.device.prompt.encoder import PromptEncoder
from stages.device.prompt.messages import Message
from stages.device.prompt.template import ChatTemplate, default_template
from stages.workshop.model.tokenizer import IMAGE_TOKEN

IGNORED = -100


@dataclass(frozen=True)
class ChatSample:
    """One conversation as the model reads it.

    Attributes:
        input_ids: L token ids, image slots expanded.
        labels: L ids, -100 everywhere but on the assistant's answers.
        pixel_values: float32 [T, 3, S, S], or None without pictures.
    """

    input_ids: list[int]
    labels: list[int]
    pixel_values: np.ndarray | None


class BlueLMVProcessor(ProcessorMixin):
    """Tokenizer, image processor and chat template of one model."""

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        image_token: str = IMAGE_TOKEN,
    ) -> None:
        self.image_token = image_token
        self.image_token_id = tokenizer.convert_tokens_to_ids(image_token)
        template = chat_template or tokenizer.chat_template or default_template()
        super().__init__(image_processor, tokenizer, chat_template=template)
        self._prompts: PromptEncoder | None = None

    @property
    def prompts(self) -> PromptEncoder:
        """The prompt encoder that also runs on the device."""
        current = self._prompts
        if current is None or current.template.source != self.chat_template:
            variables = {key: str(value) for key, value in self.tokenizer.special_tokens_map.items()}
            template = ChatTemplate(self.chat_template)
            current = PromptEncoder(self.tokenizer.backend_tokenizer, template, self.image_token, variables)
            self._prompts = current
        return current

    def to_dict(self) -> dict[str, Any]:
        """What `save_pretrained` writes: without the prompt encoder, which is made from the rest."""
        return {key: value for key, value in super().to_dict().items() if key not in ("_prompts", "image_token_id")}

    @property
    def unused_input_names(self) -> list[str]:
        """Outputs of the image processor that the model does not take."""
        return ["tiles_per_image", "tokens_per_image"]

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs: Any) -> str:
        """The image tokens of one picture (transformers' hook)."""
        return self.image_token * int(image_inputs["tokens_per_image"][image_idx])

    def validate_inputs(self, images: Any = None, text: Any = None, **kwargs: Any) -> None:
        """Checks that pictures and slots match (transformers' hook).

        Raises:
            UsageError: they do not.
        """
        try:
            super().validate_inputs(images=images, text=text, **kwargs)
        except ValueError as error:
            raise UsageError(
                f"{error}",
                f"Every {self.image_token} in the text is the place of one picture.",
                "Give as many pictures as the text has places for.",
            ) from error

    def encode_chat(
        self, messages: Sequence[Message], images: Sequence[Any] = (), *, add_generation_prompt: bool = False
    ) -> ChatSample:
        """One conversation with its pictures, ready for training (or, with the generation prompt, for answering).

        Raises:
            UsageError: pictures and slots do not match, or a message is malformed.
        """
        pixel_values = None
        tokens: list[int] = []
        if len(images):
            features = self.image_processor(list(images))
            pixel_values, tokens = features["pixel_values"], features["tokens_per_image"]
        prompt = self.prompts.encode(messages, tokens, add_generation_prompt=add_generation_prompt)
        labels = [token if answer else IGNORED for token, answer in zip(prompt.ids, prompt.is_answer, strict=True)]
        return ChatSample(prompt.ids, labels, pixel_values)
