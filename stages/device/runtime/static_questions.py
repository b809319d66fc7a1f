"""Questions about pictures, asked of static graphs: cut, encoded, put into a prompt, answered greedily."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stages.device.imaging.crop import padding_colour
from stages.device.imaging.cutting import cut_picture
from stages.device.imaging.tiling import plan_tiling
from stages.device.prompt.encoder import load_prompt_encoder
from stages.device.prompt.messages import user
from stages.device.runtime.static_model import StaticModel


class StaticQuestions:
    """Asks a static model.

    Args:
        folder: the export, for its tokenizer and template.
        model: its graphs, wherever they run.
    """

    def __init__(self, folder: Path, model: StaticModel) -> None:
        spec = model.config.prompt
        self.model = model
        self.prompt = load_prompt_encoder(folder, spec.image_token, {"bos_token": spec.bos_token or ""})

    def answer(self, question: str, pictures: Sequence[Path], max_tokens: int) -> list[int]:
        """The ids of a greedy answer.

        Raises:
            ImageError: a picture cannot be read.
            UsageError: prompt and answer do not fit the cache.
        """
        config = self.model.config
        pad = padding_colour(config.vision.image_mean)
        features = []
        for path in pictures:
            cut = cut_picture(
                path, str(path), lambda size: plan_tiling(size, config.tiling), pad, config.vision.resample
            )
            features.append(self.model.encode(cut.tiles))
        counts = [len(rows) for rows in features]
        ids = self.prompt.encode([user(question, len(pictures))], counts, add_generation_prompt=True).ids
        return list(self.model.answer(ids, np.concatenate(features) if features else None, max_tokens))


def agreeing_tokens(one: list[int], other: list[int], *, most: int) -> tuple[int, int]:
    """How many tokens of two answers are the same before the first difference, of how many; an early end is one too."""
    ended = [[*answer, -1] if len(answer) < most else answer[:most] for answer in (one, other)]
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(*ended, strict=False))
    return sum(1 for _ in same), max(map(len, ended))
