"""A torch model that reads questions with their answers in place: what it expects at every place.

A quantized one computes as its export does. Its prompt goes through compact prefill where the device reads it so (see
`simulation`); the prompt's last position and the answer go through the decoder's arithmetic, which rounds each token by
itself, so that one call over all answer tokens computes what the device computes one by one.

Only prompts of one length are batched; answers are padded at the end, where nothing attends to what follows.
Axes: B questions, L tokens, P places, V vocabulary, H model width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Cache, DynamicCache

from stages.artifacts.errors import DataError
from stages.device.imaging.loading import load_image
from stages.device.prompt.messages import assistant, user
from stages.workshop.model.modeling import BlueLMVForConditionalGeneration
from stages.workshop.model.processing import BlueLMVProcessor
from stages.workshop.quant.expandable import reads_compactly
from stages.workshop.quant.kv_cache import Int8KVCache
from stages.workshop.quant.quantized_folder import QuantizedFolder
from stages.workshop.quant.simulation import DeviceArithmetic, device_arithmetic, new_cache

# Longer prompts are read by compact prefill (SHORTEST of device/runtime/prefill.py).
SHORTEST_COMPACT = 128


class Asked(Protocol):
    """A question with its answer."""

    @property
    def name(self) -> str: ...
    @property
    def pictures(self) -> tuple[Path, ...]: ...
    @property
    def text(self) -> str: ...
    @property
    def truth(self) -> str: ...


class ForcedReading(NamedTuple):
    """What stands at the places [P], which of them are the assistant's [P], and the logits there [P, V]."""

    tokens: NDArray[np.int64]
    is_answer: NDArray[np.bool_]
    logits: NDArray[np.float32]


@dataclass(frozen=True)
class ReadingMode:
    """How a model computes.

    Attributes:
        new_cache: an empty cache.
        prompt: arithmetic of long prompts but for their last position.
        step: that of everything else.
        compact: long prompts are read layer by layer, their keys and values rounded afterwards.
    """

    new_cache: Callable[[], Cache] = DynamicCache
    prompt: DeviceArithmetic = DeviceArithmetic()  # noqa: RUF009 (frozen)
    step: DeviceArithmetic = DeviceArithmetic()  # noqa: RUF009 (frozen)
    compact: bool = False


class _Prompt(NamedTuple):
    order: int
    ids: list[int]
    is_answer: list[bool]
    start: int  # where the answer begins


class ForcedReader:
    """Reads questions, `batch` of them at a time.

    Args:
        model: in evaluation mode.
        processor: its processor.
        mode: how it computes.
        batch: questions at a time.
        answers_only: leave the places of the prompt's own text out.
    """

    def __init__(
        self,
        model: BlueLMVForConditionalGeneration,
        processor: BlueLMVProcessor,
        mode: ReadingMode | None = None,
        *,
        batch: int = 16,
        answers_only: bool = False,
    ) -> None:
        self._model, self._processor = model, processor
        self._mode, self._batch, self._answers_only = mode or ReadingMode(), batch, answers_only

    def __call__(self, questions: Sequence[Asked]) -> Iterator[ForcedReading]:
        """Readings in the questions' order.

        Raises:
            DataError: an answer without tokens.
            ImageError: a picture cannot be read.
        """
        for start in range(0, len(questions), self._batch):
            with torch.inference_mode():
                readings = self._read(questions[start : start + self._batch])
            yield from readings

    def _read(self, questions: Sequence[Asked]) -> list[ForcedReading]:
        features: dict[tuple[Path, ...], tuple[list[int], torch.Tensor | None]] = {}
        prompts: dict[int, list[_Prompt]] = {}
        for index, question in enumerate(questions):
            if question.pictures not in features:
                features[question.pictures] = self._encode(question.pictures)
            prompt = self._prompt(index, question, features[question.pictures][0])
            prompts.setdefault(prompt.start, []).append(prompt)
        readings: dict[int, ForcedReading] = {}
        for same in prompts.values():
            pictures = [found for one in same if (found := features[questions[one.order].pictures][1]) is not None]
            for one, reading in zip(same, self._read_same(same, pictures), strict=True):
                readings[one.order] = reading
        return [readings[index] for index in range(len(questions))]

    def _prompt(self, index: int, question: Asked, tokens: list[int]) -> _Prompt:
        turns = [user(question.text, images=len(tokens)), assistant(question.truth)]
        encoded = self._processor.prompts.encode(turns, tokens)
        if True not in encoded.is_answer:
            raise DataError(f"{question.name} has no answer.", "There is nothing to compare.", "Mend the row.")
        last = len(encoded.ids) - encoded.is_answer[::-1].index(True)
        return _Prompt(index, encoded.ids[:last], encoded.is_answer[:last], encoded.is_answer.index(True))

    def _encode(self, pictures: Sequence[Path]) -> tuple[list[int], torch.Tensor | None]:
        """Image tokens of each picture, and the features [tokens, H] of all."""
        if not pictures:
            return [], None
        cut = self._processor.image_processor([load_image(path) for path in pictures])
        pixels = torch.from_numpy(cut["pixel_values"]).to(self._model.device, self._model.dtype)
        with self._mode.step.on(self._model):
            features = self._model.get_image_features(pixels)  # [tiles, tokens, H]
        return list(cut["tokens_per_image"]), features.flatten(0, 1)  # [tokens, H]

    def _read_same(self, prompts: Sequence[_Prompt], pictures: Sequence[torch.Tensor]) -> Iterator[ForcedReading]:
        """Prompts of one length, in two calls: up to its last position, and from there on."""
        cut, longest = prompts[0].start - 1, max(len(prompt.ids) for prompt in prompts)
        rows = [prompt.ids + [prompt.ids[-1]] * (longest - len(prompt.ids)) for prompt in prompts]
        ids = torch.tensor(rows, device=self._model.device)  # [B, L]
        wanted = [self._places(prompt) for prompt in prompts]
        before = sorted({place for places in wanted for place in places if place < cut})
        cache = self._mode.new_cache()
        found: dict[int, NDArray[np.float32]] = {}  # [B, V] by position
        logits = self._call(ids[:, :cut], cache, pictures, before, long=cut + 1 > SHORTEST_COMPACT)
        found |= {place: logits[:, at] for at, place in enumerate(before)}
        after = list(range(cut, longest - 1))
        logits = self._call(ids[:, cut:-1], cache, (), [place - cut for place in after], long=False)
        found |= {place: logits[:, at] for at, place in enumerate(after)}
        for row, (prompt, places) in enumerate(zip(prompts, wanted, strict=True)):
            following = [place + 1 for place in places]
            yield ForcedReading(
                tokens=np.array([prompt.ids[place] for place in following]),
                is_answer=np.array([prompt.is_answer[place] for place in following]),
                logits=np.stack([found[place][row] for place in places]),
            )

    def _places(self, prompt: _Prompt) -> list[int]:
        """Positions whose next token counts."""
        image = self._model.config.image_token_id
        first = prompt.start - 1 if self._answers_only else 0
        return [
            place
            for place in range(first, len(prompt.ids) - 1)
            if prompt.ids[place + 1] != image and (not self._answers_only or prompt.is_answer[place + 1])
        ]

    def _call(
        self, ids: torch.Tensor, cache: Cache, pictures: Sequence[torch.Tensor], keep: list[int], *, long: bool
    ) -> NDArray[np.float32]:
        """Logits [B, kept, V] of some positions; the cache takes all."""
        if not ids.shape[1]:
            return np.zeros((len(ids), 0, 0), np.float32)
        # One position at least: an empty list would mean all of them.
        positions = torch.tensor(keep or [ids.shape[1] - 1], device=ids.device)
        features = torch.cat(list(pictures)) if pictures else None
        with _arithmetic(self._model, self._mode, cache, long):
            output = self._model(
                input_ids=ids, image_features=features, past_key_values=cache, use_cache=True, logits_to_keep=positions
            )
        logits = output.logits.float()
        # A slot without a picture is never an answer.
        logits[..., self._model.config.image_token_id] = -torch.inf
        found: NDArray[np.float32] = logits.cpu().numpy()[:, : len(keep)]
        return found


def device_mode(source: QuantizedFolder, layers: int, parts: Callable[[str], bool] = lambda name: True) -> ReadingMode:
    """How a quantized folder's model computes once it is exported.

    Args:
        source: the folder.
        layers: of its decoder.
        parts: which modules' inputs are rounded; all of them by default.

    Raises:
        ModelError: scales of the KV cache are missing or broken.
    """
    compact = reads_compactly(source)
    prompt, step = (device_arithmetic(source, compact=whole).only(parts) for whole in (True, False))
    scales = source.kv_scales(layers)
    return ReadingMode(lambda: new_cache(scales), prompt, step, compact)


@contextmanager
def _arithmetic(model: Any, mode: ReadingMode, cache: Cache, long: bool) -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context((mode.prompt if long else mode.step).on(model))
        if long and mode.compact and isinstance(cache, Int8KVCache):
            stack.enter_context(cache.compact())
        yield
