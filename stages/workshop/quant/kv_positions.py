"""What INT8 does to keys and values at long positions: one long conversation through the float model.

Keys turn with their position, and values of late positions were not among those that short prompts calibrated with, so
the error is told by position. Axes: K KV heads, T tokens, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from stages.device.contract import int8_kv
from stages.device.contract.kv_scales import KvScales
from stages.device.prompt.messages import Message, assistant, user
from stages.workshop.model.modeling import BlueLMVForConditionalGeneration
from stages.workshop.model.processing import BlueLMVProcessor
from stages.workshop.quant.fidelity import KvPositions
from stages.workshop.quant.kv_cache import fake_quantize
from stages.workshop.quant.teacher_forcing import Asked

# Ends of the ranges that are told apart.
ENDS = (128, 256, 512, 1024, 2048, 4096)


def errors_by_position(
    model: BlueLMVForConditionalGeneration,
    processor: BlueLMVProcessor,
    scales: KvScales,
    questions: Sequence[Asked],
    context: int,
) -> tuple[KvPositions, ...]:
    """Reads questions and answers one after the other as one conversation, as long as fits.

    Args:
        model: the float model.
        processor: its processor.
        scales: of the INT8 cache.
        questions: their text alone; pictures would fill the context.
        context: most positions.
    """
    ids = _conversation(processor, questions, min(context, int(model.config.text_config.max_position_embeddings)))
    if len(ids) < 2:
        return ()
    cache = DynamicCache()
    layers = [_MeasuredLayer(scales, layer) for layer in range(scales.layers)]
    cache.layers, cache.layer_class_to_replicate = list(layers), None
    with torch.inference_mode():
        model(input_ids=torch.tensor([ids], device=model.device), past_key_values=cache, logits_to_keep=1)
    errors = torch.stack([torch.stack(layer.found) for layer in layers]).double().mean(dim=0).cpu()  # [3, T]
    rows, start = [], 0
    for end in (*[end for end in ENDS if end < len(ids)], len(ids)):
        if end > start:
            key, value, clipped = errors[:, start:end].mean(dim=1).tolist()
            rows.append(KvPositions(first=start, last=end - 1, key_error=key, value_error=value, clipped=clipped))
            start = end
    return tuple(rows)


def _conversation(processor: BlueLMVProcessor, questions: Sequence[Asked], context: int) -> list[int]:
    turns: list[Message] = []
    ids: list[int] = []
    # The same rows again where they are too few to fill the context.
    while questions and len(ids) < context:
        before = len(ids)
        for question in questions:
            turns += [user(question.text, images=0), assistant(question.truth)]
        ids = processor.prompts.encode(turns).ids
        if len(ids) == before:
            break
    return ids[:context]


class _MeasuredLayer(DynamicLayer):
    """Plain, but knows what INT8 would have done to each position: errors of keys and values, share clipped."""

    def __init__(self, scales: KvScales, layer: int) -> None:
        super().__init__()
        self._scales, self._layer = scales, layer
        self.found: tuple[torch.Tensor, torch.Tensor, torch.Tensor]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        errors, clipped = [], []
        for states, scale in zip(
            (key_states, value_states), self._scales.arrays(self._layer, key_states.shape[1]), strict=True
        ):
            step = torch.from_numpy(scale).to(states.device)
            off = (states.float() - fake_quantize(states.float(), step)).norm(dim=(1, 3))[0]  # [T]
            errors.append(off / states.float().norm(dim=(1, 3))[0].clamp(min=1e-30))
            steps = states.float() / step
            beyond = (steps > int8_kv.VALUE_MAX + 0.5) | (steps < int8_kv.VALUE_MIN - 0.5)
            clipped.append(beyond.float().mean(dim=(1, 3))[0])
        self.found = (errors[0], errors[1], (clipped[0] + clipped[1]) / 2)
        return super().update(key_states, value_states, *args, **kwargs)
