"""A checkpoint rounded with prompts: they are encoded, and walked through the model block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from stages.artifacts.events import Progress
from stages.device.imaging.loading import load_image
from stages.device.prompt.messages import Message
from stages.workshop.model.checkpoint import load_processor
from stages.workshop.model.configuration import BlueLMVConfig
from stages.workshop.quant.block_files import BlockFiles
from stages.workshop.quant.block_rounding import BlockRounding, Rounding
from stages.workshop.quant.blocks import BlockModel, Prompt
from stages.workshop.quant.calibration import Calibration
from stages.workshop.quant.kv_cache import check_layers
from stages.workshop.quant.kv_calibration import KvCalibration, KvObserver
from stages.workshop.quant.layer_pass import LayerPass
from stages.workshop.quant.tensor_files import TensorSource


@dataclass(frozen=True)
class Chat:
    """A calibration prompt: a conversation with its answers, and its pictures' files."""

    turns: Sequence[Message]
    pictures: Sequence[Path]


@dataclass(frozen=True)
class CalibratedRounding:
    """What it takes to round a checkpoint with prompts.

    Attributes:
        config: of the model, as it will be written.
        source: its float tensors.
        how: policy and settings of methods.
        kv: how the scales of the KV cache are chosen.
        dtype: what blocks compute in.
        device: where they compute.
        error_samples: on how many prompts the errors of every layer are measured.
    """

    config: BlueLMVConfig
    source: TensorSource
    how: Rounding
    kv: KvCalibration
    dtype: torch.dtype
    device: str
    error_samples: int

    def new_calibration(self) -> Calibration:
        """One that has seen nothing.

        Raises:
            ModelError: a layer has another kind of cache than a full one.
        """
        return Calibration(KvObserver(check_layers(self.config), self.kv))

    def run(
        self, checkpoint: Path, chats: Sequence[Chat], calibration: Calibration, files: BlockFiles
    ) -> Iterator[Progress]:
        """Rounds all blocks that `files` does not hold yet.

        Args:
            checkpoint: whose processor encodes the prompts.
            chats: the prompts.
            calibration: filled on the way.
            files: where finished blocks go.

        Raises:
            BluelmError: a picture cannot be read, or a weight cannot be rounded as asked.
        """
        model = BlockModel(self.config, self.source, self.dtype, self.device)
        prompts: list[Prompt] = []
        processor = load_processor(checkpoint)
        with model.patches_loaded():
            for chat in chats:
                sample = processor.encode_chat(chat.turns, [load_image(path) for path in chat.pictures])
                is_answer = [label >= 0 for label in sample.labels]
                calibration.saw_prompt(sample.input_ids, is_answer, self.config.image_token_id)
                prompts.append(model.start(sample.input_ids, is_answer, sample.pixel_values))
                yield Progress("read prompts", len(prompts), len(chats), "prompts")
        walk = LayerPass(model, BlockRounding(model, self.source, self.how), calibration, self.error_samples)
        total = len(model.blocks())
        for done, _ in enumerate(walk.run(prompts, files), start=1):
            yield Progress("calibrate", done, total, "blocks")
