"""The torch model that the exported graphs are held against, with numpy at its borders.

Axes: T tiles, S tile side, P patches, C tower width, K tokens per tile, H hidden, L tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn
from transformers import Cache, DynamicCache

from stages.device.contract.kv_scales import KvScales
from stages.workshop.graph.checkpoint_weights import EMBEDDING, HEAD, CheckpointWeights
from stages.workshop.graph.linear import Floats
from stages.workshop.model.checkpoint import load_model
from stages.workshop.model.modeling import BlueLMVForConditionalGeneration
from stages.workshop.quant.activation_policy import ActivationChoice
from stages.workshop.quant.kv_cache import Int8KVCache
from stages.workshop.quant.quantized_folder import QuantizedFolder
from stages.workshop.quant.simulation import DeviceArithmetic, device_arithmetic, load_quantized


class Reference(Protocol):
    """What each graph should compute."""

    def patch_embeds(self, pixels: Floats) -> Floats:
        """Normalized pixels [T, 3, S, S] → [T, P, C]."""
        ...

    def vision(self, patches: Floats) -> tuple[Floats, Floats]:
        """[T, P, C] → image features [T, K, H] and tower features [T, P, C]."""
        ...

    def embeddings(self, ids: np.ndarray) -> Floats:
        """[1, L] → [1, L, H]."""
        ...

    def logits(self, embeds: Floats) -> Floats:
        """[1, L, H] → [L, V], every position."""
        ...

    def keys_values(self, embeds: Floats) -> Floats:
        """[1, L, H] → [layers, 2, kv_heads, L, D], float, as if the cache were."""
        ...

    def rounded(self, *, compact: bool = False) -> AbstractContextManager[bool]:
        """What the graphs round is rounded here too while the block lasts; False where they round nothing.

        Args:
            compact: as compact prefill rounds it, not as decoder.onnx does.
        """
        ...


class TorchReference:
    """A float32 torch model, its cache as the device's: through INT8 where there are scales."""

    def __init__(
        self,
        model: BlueLMVForConditionalGeneration,
        kv_scales: KvScales | None = None,
        arithmetic: DeviceArithmetic | None = None,
        compact: DeviceArithmetic | None = None,
    ) -> None:
        self.model = model.eval()
        self.kv_scales = kv_scales
        self.arithmetic = arithmetic or DeviceArithmetic()
        self.compact = compact or DeviceArithmetic()

    @contextmanager
    def rounded(self, *, compact: bool = False) -> Iterator[bool]:
        """See `Reference`."""
        arithmetic = self.compact if compact else self.arithmetic
        with arithmetic.on(self.model):
            yield bool(arithmetic)

    def patch_embeds(self, pixels: Floats) -> Floats:
        """See `Reference`."""
        with torch.no_grad():
            return self.model.embed_patches(torch.from_numpy(pixels)).numpy()

    def vision(self, patches: Floats) -> tuple[Floats, Floats]:
        """See `Reference`."""
        with torch.no_grad():
            features = self.model.encode_patches(torch.from_numpy(patches))  # [T, P, C]
            return self.model.multi_modal_projector(features).numpy(), features.numpy()

    def embeddings(self, ids: np.ndarray) -> Floats:
        """See `Reference`."""
        with torch.no_grad():
            return self.model.get_input_embeddings()(torch.from_numpy(ids)).numpy()

    def logits(self, embeds: Floats) -> Floats:
        """See `Reference`."""
        return self._read(embeds, DynamicCache() if self.kv_scales is None else Int8KVCache(self.kv_scales))

    def keys_values(self, embeds: Floats) -> Floats:
        """See `Reference`."""
        cache = DynamicCache()
        self._read(embeds, cache)
        return np.stack([np.stack([layer.keys[0].numpy(), layer.values[0].numpy()]) for layer in cache.layers])

    def _read(self, embeds: Floats, cache: Cache) -> Floats:
        """Logits [L, V] of a prompt [1, L, H]; fills the cache."""
        with torch.no_grad():
            output = self.model.language_model(
                inputs_embeds=torch.from_numpy(embeds), past_key_values=cache, use_cache=True
            )
        return output.logits[0].numpy()


def checkpoint_reference(
    folder: Path, weights: CheckpointWeights, kv_scales: KvScales | None, choice: ActivationChoice = "policy"
) -> TorchReference:
    """The reference of a checkpoint, or of a quantized folder with its weights dequantized.

    Embedding and tied head are taken from the export's own weights, since they may be rounded only there.

    Args:
        folder: the checkpoint.
        weights: what is exported.
        kv_scales: of an INT8 cache.
        choice: what the graphs round the inputs of Linears to.

    Raises:
        ModelError: the folder cannot be opened as a model.
    """
    model = load_quantized(folder, exact=True)[0] if weights.quantized else load_model(folder)
    text = model.config.text_config
    for name in (EMBEDDING, HEAD) if weights.tied else (EMBEDDING,):
        linear = weights.linear(name, text.vocab_size, text.hidden_size, bias=False)
        # A new parameter each: a tied head may be rounded otherwise than the embedding.
        weight = torch.from_numpy(linear.dequantized().copy())
        model.get_submodule(name).weight = nn.Parameter(weight, requires_grad=False)
    if not weights.quantized:
        return TorchReference(model, kv_scales)
    source = QuantizedFolder(folder)
    plain, compact = (device_arithmetic(source, choice, compact=compact) for compact in (False, True))
    return TorchReference(model, kv_scales, plain, compact)
