"""A vision tower that learns to read: every patch is asked which characters stand there (see `glyph_page`).

This is the tower's own pre-training, as SigLIP's is contrastive: one page asks some two hundred questions, each about
the place where its answer stands, so a small tower reads after tens of thousands of pages. The head that answers is
thrown away; the paper's stages go on with the tower (Sec. 4).

Axes: B pages, S side of a tile, N patches, K slots of a patch, C width of the tower, A characters and "none".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import PreTrainedModel, SiglipVisionConfig, SiglipVisionModel

from stages.workshop.corpus.rendering.glyph_page import GlyphLook, GlyphPage, draw_glyph_page
from stages.workshop.corpus.rendering.split import SPLITS, Split
from stages.workshop.model.processing import IGNORED
from stages.workshop.training.loss import normalize_tiles
from stages.workshop.training.trainer import StageTrainer


class TowerReader(PreTrainedModel):
    """A SigLIP tower and a linear head over its patches.

    Args:
        config: the tower's.
        characters: how many there are.
        slots: K.
    """

    config_class = SiglipVisionConfig
    base_model_prefix = "vision_tower"
    main_input_name = "pixel_values"
    _supports_sdpa = True

    def __init__(self, config: SiglipVisionConfig, characters: int, slots: int) -> None:
        super().__init__(config)
        self.slots = slots
        self.vision_tower = SiglipVisionModel(config)
        self.reader = nn.Linear(config.hidden_size, slots * (characters + 1))
        self.post_init()

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Normalized pixels [B, 3, S, S] → logits [B, N, K, A]."""
        features = self.vision_tower(pixel_values).last_hidden_state  # [B, N, C]
        return self.reader(features).unflatten(-1, (self.slots, -1))  # [B, N, K, A]

    def _init_weights(self, module: nn.Module) -> None:
        if module is self.reader:
            nn.init.normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)


class GlyphSet(Dataset[GlyphPage]):
    """Pages drawn as they are asked for, each a pure function of seed, split and number.

    Args:
        look: how they look.
        split: whose texts they show.
        seed: of all pages.
        count: how many there are.
    """

    def __init__(self, look: GlyphLook, split: Split, seed: int, count: int) -> None:
        self._look, self._split, self._seed, self._count = look, split, seed, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> GlyphPage:
        if not 0 <= index < self._count:
            raise IndexError(index)
        rng = np.random.default_rng([self._seed, SPLITS.index(self._split), index])
        return draw_glyph_page(rng, self._look, self._split)


def collate(pages: Sequence[GlyphPage]) -> dict[str, Any]:
    """Pages as a batch: `tiles` uint8 [B, 3, S, S], `labels` [B, 1 + N·K]: places in the alphabet from 1, 0 for none.

    Behind the first empty slot of a patch nothing is asked, nor in the first column: the library counts labels as those
    of a text, whose first token nothing foretells.
    """
    slots = torch.from_numpy(np.stack([page.slots for page in pages]))  # [B, N, K]
    behind = torch.zeros_like(slots, dtype=torch.bool)  # [B, N, K]
    behind[:, :, 1:] = slots[:, :, :-1] == 0
    labels = nn.functional.pad(slots.masked_fill(behind, IGNORED).flatten(1), (1, 0), value=IGNORED)  # [B, 1 + N·K]
    tiles = torch.from_numpy(np.stack([page.tile for page in pages]))  # [B, 3, S, S]
    return {"tiles": tiles, "labels": labels, "tokens": labels.numel()}


class TowerTrainer(StageTrainer):
    """Trains a tower to read; everything but the loss is a stage's."""

    def loss_of(self, model: nn.Module, inputs: dict[str, Any], items: torch.Tensor | int) -> torch.Tensor:
        """Summed loss of a batch over `items`, the slots that were asked for."""
        logits = model(normalize_tiles(inputs["tiles"], self.mean, self.std))  # [B, N, K, A]
        total = nn.functional.cross_entropy(
            logits.float().flatten(0, 2), inputs["labels"][:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
        )
        return total / items


def reading_accuracy(reader: TowerReader, pages: Sequence[GlyphPage], pixels: tuple[Any, Any]) -> Mapping[str, float]:
    """How well a tower reads pages.

    Args:
        reader: the tower with its head.
        pages: held-out ones.
        pixels: mean and standard deviation of the pixels, 3 numbers each.

    Returns:
        `characters`: share of the characters that were named; `patches`: share of the patches with characters in which
        all were; `empty`: share of the patches without any that were called empty.
    """
    named = asked = whole = written = called = empty = 0
    reader.eval()
    for start in range(0, len(pages), 32):
        batch = collate(pages[start : start + 32])
        labels = batch["labels"][:, 1:].unflatten(1, (-1, reader.slots))  # [B, N, K]
        with torch.no_grad():
            found = reader(normalize_tiles(batch["tiles"], *pixels)).argmax(-1)  # [B, N, K]
        right = (found == labels) | (labels == IGNORED)  # [B, N, K]
        named += int((right & (labels > 0)).sum())
        asked += int((labels > 0).sum())
        filled = labels[..., 0] > 0  # [B, N]
        whole += int((right.all(-1) & filled).sum())
        written += int(filled.sum())
        called += int((right[..., 0] & ~filled).sum())
        empty += int((~filled).sum())
    return {"characters": named / max(asked, 1), "patches": whole / max(written, 1), "empty": called / max(empty, 1)}
