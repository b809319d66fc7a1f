"""A checkpoint, float or quantized, that answers questions about pictures greedily, several at once.

Only prompts of one length are batched, so that nothing is padded and each answer is what it would be alone. A quantized
one has the device's INT8 cache. Axes: B questions, L tokens, V vocabulary, H model width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache

from stages.device.imaging.loading import load_image
from stages.device.prompt.messages import user
from stages.workshop.model.checkpoint import load_checkpoint
from stages.workshop.quant.simulation import load_quantized, simulated_cache

# A question's pictures and its text.
Asked = tuple[tuple[Path, ...], str]


class GreedyAnswer(NamedTuple):
    """What the model said, and its tokens; those of the prompt include the pictures'."""

    text: str
    image_tokens: int
    prompt_tokens: int
    generated_tokens: int


class GreedyAnswers:
    """The model, loaded.

    Args:
        folder: a checkpoint, or a quantized one.
        quantized: which of them.
        max_tokens: most tokens of an answer.
        batch: questions answered at once.
        threads: CPU threads; None leaves torch's number.
        device: where it runs.

    Raises:
        ModelError: the folder cannot be loaded.
    """

    def __init__(
        self,
        folder: Path,
        *,
        quantized: bool,
        max_tokens: int,
        batch: int,
        threads: int | None = None,
        device: str = "cpu",
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self.max_tokens, self.batch, self.device = max_tokens, batch, device
        self._model, self._processor = load_quantized(folder) if quantized else load_checkpoint(folder)
        self._model.to(device)
        text = self._model.config
        self._new_cache = (lambda: simulated_cache(folder, text)) if quantized else DynamicCache
        eos = self._model.generation_config.eos_token_id
        self._stops = set(eos) if isinstance(eos, list) else {eos}

    def __call__(self, questions: Sequence[Asked]) -> Iterator[GreedyAnswer]:
        """Answers in order, `batch` questions at a time.

        Raises:
            ImageError: a picture cannot be read.
        """
        for start in range(0, len(questions), self.batch):
            with torch.inference_mode():
                replies = self._answer_group(questions[start : start + self.batch])
            yield from replies

    def _answer_group(self, questions: Sequence[Asked]) -> list[GreedyAnswer]:
        seen: dict[tuple[Path, ...], tuple[list[int], torch.Tensor | None]] = {}
        prompts = []
        for files, text in questions:
            if files not in seen:
                seen[files] = self._encode(files)
            tokens, _ = seen[files]
            messages = [user(text, images=len(tokens))]
            prompts.append(self._processor.prompts.encode(messages, tokens, add_generation_prompt=True))
        replies: dict[int, GreedyAnswer] = {}
        for length in {len(prompt.ids) for prompt in prompts}:
            same = [index for index, prompt in enumerate(prompts) if len(prompt.ids) == length]
            pictures = [features for index in same if (features := seen[questions[index][0]][1]) is not None]
            ids = torch.tensor([prompts[index].ids for index in same], device=self.device)  # [B, L]
            for index, answer in zip(same, self._generate(ids, pictures), strict=True):
                said = self._processor.prompts.decode(answer)
                replies[index] = GreedyAnswer(said, prompts[index].image_tokens, length, len(answer))
        return [replies[index] for index in range(len(questions))]

    def _encode(self, pictures: Sequence[Path]) -> tuple[list[int], torch.Tensor | None]:
        """Image tokens of each picture, and the features [tokens, H] of all."""
        if not pictures:
            return [], None
        cut = self._processor.image_processor([load_image(path) for path in pictures])
        pixels = torch.from_numpy(cut["pixel_values"]).to(self.device)
        features = self._model.get_image_features(pixels)  # [tiles, tokens, H]
        return list(cut["tokens_per_image"]), features.flatten(0, 1)  # [tokens, H]

    def _generate(self, ids: torch.Tensor, pictures: Sequence[torch.Tensor]) -> list[list[int]]:
        """Answers to the prompts [B, L], without the token that ends them."""
        answers: list[list[int]] = [[] for _ in ids]
        open_rows = set(range(len(answers)))
        state: dict[str, Any] = {"past_key_values": self._new_cache(), "use_cache": True, "logits_to_keep": 1}
        features = torch.cat(list(pictures)) if pictures else None
        logits = self._model(input_ids=ids, image_features=features, **state).logits[:, -1]  # [B, V]
        for step in range(self.max_tokens):
            # A slot without a picture is never an answer.
            logits[:, self._model.config.image_token_id] = -torch.inf
            tokens = logits.argmax(dim=-1)  # [B]
            for row, token in enumerate(tokens.tolist()):
                if token in self._stops:
                    open_rows.discard(row)
                elif row in open_rows:
                    answers[row].append(token)
            if not open_rows or step + 1 == self.max_tokens:
                break
            logits = self._model(input_ids=tokens[:, None], **state).logits[:, -1]  # [B, V]
        return answers
